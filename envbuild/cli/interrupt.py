"""Ctrl-C and SIGTERM: stages unwind and clean up; what doesn't let go in time is left behind.

A worker thread can sit in a read from a silent server for a minute, and Python waits for its threads before
a process ends. What such an end leaves in the store's ``scratch`` is swept by the next command: its lock is
the kernel's.

Python runs a signal's handler in the main thread, between two of its steps. A signal that arrives just before
that thread waits for a lock is handled once the lock is free; one that is raised as an exception while a
thread is being started can leave locks taken for ever. So a thread of its own watches for signals, by the
pipe that Python writes their numbers to at once: it wakes the main thread,
and ends the process when time is up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

GRACE = 1.5
"""Seconds that stages have to clean up after the first signal. A second signal ends them at once."""
JOB_GRACE = 60
"""The same while a job runs on a target: it is stopped there first, which takes what the target takes."""

_LOOK_AGAIN = 0.1
"""Seconds after which the main thread is woken again, if it hasn't handled the signal."""
_HANDLED = (signal.SIGINT, signal.SIGTERM)

INTERRUPTED = 128 + signal.SIGINT


class Interruption:
    """What signals this process was asked to end by. ``status`` is its exit status then."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.grace: float = GRACE

    def wait_for_jobs(self) -> None:
        """Gives the stages the time that stopping a job takes."""
        self.grace = JOB_GRACE

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raises ``KeyboardInterrupt`` or ``SystemExit`` in the main thread."""
        if self.status is not None:
            leave(self.status)
        self.status = 128 + number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(self.status)

    def watch(self, numbers: int) -> None:
        """Reads the numbers of signals from the pipe ``numbers`` until it is closed. Ends the process when
        the first that is handled here has had its time, unless the main thread ended it before."""
        with open(numbers, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] in _HANDLED:
                    self._end_in_time(number[0])

    def _end_in_time(self, number: int) -> None:
        end = time.monotonic() + self.grace
        main = threading.main_thread().ident
        assert main is not None
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_LOOK_AGAIN, left))
            if self.status is None:
                signal.pthread_kill(main, number)
        leave(128 + number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handles the signals of this process while the context lasts. For a process that is ours: it may end
    in the middle of anything."""
    interruption = Interruption()
    # A shell starts what runs in the background with SIGINT ignored; that stays so.
    handled = [number for number in _HANDLED if signal.getsignal(number) is not signal.SIG_IGN]
    read, write = os.pipe()
    os.set_blocking(write, False)
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=interruption.watch, args=[read], name="signals", daemon=True).start()
    before = [(number, signal.signal(number, interruption.handle)) for number in handled]
    try:
        yield interruption
    finally:
        if interruption.status is None:
            for number, handler in before:
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(write)


def leave(status: int) -> NoReturn:
    """Ends this process now, without waiting for its threads, and its children with it."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    for child in _children(Path("/proc/self")):
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
    os._exit(status)


def _children(process: Path) -> list[int]:
    """What a process has started, and what that has, as far as the system tells. Elsewhere than on Linux
    a terminal's Ctrl-C has reached them all anyway."""
    children: list[int] = []
    for path in process.glob("task/*/children"):
        with suppress(OSError, ValueError):
            for word in path.read_text().split():
                children += [int(word), *_children(Path("/proc") / word)]
    return children
