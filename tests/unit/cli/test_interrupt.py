"""Signals reach the main thread wherever it waits, and the process ends in time."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

_PROGRAM = """
import signal, sys, threading
from envbuild.cli import interrupt

interrupt.GRACE = float(sys.argv[1])
lock = threading.Lock()
lock.acquire()

def elsewhere():
    # The kernel may choose any thread. Python's flag is set then, and nothing wakes the main thread's wait:
    # what happens, too, when a signal comes just before the wait begins.
    print("sent", flush=True)
    signal.pthread_kill(threading.get_ident(), signal.{signal})

with interrupt.interruptible() as interruption:
    threading.Timer(0.2, elsewhere).start()
    try:
        lock.acquire()
    except {raised}:
        print("unwound", interruption.status, flush=True)
        {then}
interrupt.leave(interruption.status)
"""


def _ended(grace: float, *, signal: str, raised: str, then: str) -> tuple[int, list[str], float]:
    program = _PROGRAM.format(signal=signal, raised=raised, then=then)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(grace)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines(), time.monotonic() - began


@pytest.mark.parametrize(
    ("signal", "raised", "status"), [("SIGINT", "KeyboardInterrupt", 130), ("SIGTERM", "SystemExit", 143)]
)
def test_a_waiting_main_thread_unwinds(signal: str, raised: str, status: int) -> None:
    code, said, seconds = _ended(20, signal=signal, raised=raised, then="pass")
    assert (code, said) == (status, ["sent", f"unwound {status}"])
    assert seconds < 15


def test_what_doesnt_let_go_is_left_behind() -> None:
    code, said, seconds = _ended(0.5, signal="SIGINT", raised="KeyboardInterrupt", then="lock.acquire()")
    assert (code, said) == (130, ["sent", "unwound 130"])
    assert seconds < 15
