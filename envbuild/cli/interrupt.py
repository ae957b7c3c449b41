"""Ctrl-C and SIGTERM: stages unwind and clean up; what doesn't let go in time is left behind.

A worker thread can sit in a read from a silent server for a minute, and Python waits for its threads before
a process ends. What such an end leaves in the store's ``scratch`` is swept by the next command: its lock is
the kernel's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

GRACE = 1.5
"""Seconds that stages have to clean up after the first signal. A second signal ends them at once."""
JOB_GRACE = 60
"""The same while a job runs on a target: it is stopped there first, which takes what the target takes."""

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
        timer = threading.Timer(self.grace, leave, [self.status])
        timer.daemon = True
        timer.start()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(self.status)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handles the signals of this process while the context lasts. For a process that is ours: it may end
    in the middle of anything."""
    interruption = Interruption()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # A shell starts what runs in the background with SIGINT ignored; that stays so.
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, interruption.handle)) for number in handled]
    try:
        yield interruption
    finally:
        if interruption.status is None:
            for number, handler in before:
                signal.signal(number, handler)


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
