"""Passes signals that envbuild gets on to the command it waits for."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def forwarding(send: Callable[[int], object], *more: signal.Signals) -> Iterator[None]:
    """Within, INT, TERM, HUP, QUIT and ``more`` go to ``send`` and don't end this process. The command is in
    a session of its own, where it gets none of them by itself."""

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            send(number)

    with handling(handle, *_NUMBERS, *more):
        yield


@contextlib.contextmanager
def stopping(send: Callable[[int], object]) -> Iterator[None]:
    """Within, what stops this process (Ctrl-Z) stops the command as well, until this one is continued."""

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            send(number)
            stop(number)
            send(signal.SIGCONT)

    with handling(handle, signal.SIGTSTP):
        yield


@contextlib.contextmanager
def handling(handle: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """Within, the signals ``numbers`` call ``handle``, but for those that this process was started to ignore:
    ``nohup`` does that, and shells to what runs in the background. Outside of the main thread, where Python
    allows no handlers, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in kept}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(number: int, *, group: bool = False) -> bool:
    """Stops this process, or all of its group, by the signal ``number`` and returns once it is continued.
    False: it wasn't stopped. The kernel doesn't where nobody could continue it, as in an orphaned group; nor
    is it done where the signal is ignored, or outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(number) is signal.SIG_IGN:
        return False
    continued = []
    with handling(lambda number, frame: continued.append(number), signal.SIGCONT):
        before = signal.signal(number, signal.SIG_DFL)
        try:
            os.kill(0 if group else os.getpid(), number)
        finally:
            signal.signal(number, before)
    return bool(continued)
