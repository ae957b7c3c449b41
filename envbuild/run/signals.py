"""Passes signals that envbuild gets on to the command it waits for."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def forwarding(send: Callable[[int], object], *, shared_terminal: bool) -> Iterator[None]:
    """Within, INT, TERM, HUP and QUIT go to ``send`` and don't end this process.

    ``shared_terminal``: the command is in this process group. What is typed on the terminal (Ctrl-C,
    Ctrl-\\) then reaches it without us, and would arrive twice. Outside of the main thread, where Python
    allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if shared_terminal and number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground():
            return
        with contextlib.suppress(ProcessLookupError):
            send(number)

    before = {number: signal.signal(number, handle) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether a terminal's keys signal this process group."""
    try:
        return os.isatty(sys.__stdin__.fileno()) and os.tcgetpgrp(sys.__stdin__.fileno()) == os.getpgrp()  # type: ignore[union-attr]
    except (OSError, AttributeError, ValueError):
        return False
