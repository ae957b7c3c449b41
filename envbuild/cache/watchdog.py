"""Work with a registry that may fall silent: in parallel, and given up when nothing moves any more."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TypeVar

from envbuild.progress import Task

T = TypeVar("T")


class Heartbeat:
    """When there was last a sign of life. Stands in for the listener of a client, whose every byte is one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Notes a sign of life."""
        self._last = self._clock()

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return self._clock() - self._last

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        return _Heartbeats(self)

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def note(self, text: str) -> None:
        self.beat()


class _Heartbeats:
    def __init__(self, pulse: Heartbeat) -> None:
        self._pulse = pulse

    def advance(self, amount: int) -> None:
        self._pulse.beat()

    def __enter__(self) -> _Heartbeats:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.beat()


def work_through(
    items: Iterable[T], work: Callable[[T], None], *, workers: int, pulse: Heartbeat, patience: float
) -> bool:
    """Does ``work`` for each of ``items``, ``workers`` at once. False where nothing moved for ``patience``
    seconds: then what is still waiting for an answer is left to itself.

    Its threads are daemons, because one that waits for a dead host can't be stopped and nobody should wait
    for it at the end of the process. Raises what ``work`` raised first.
    """
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    count = min(workers, todo.qsize())
    ended = threading.Semaphore(0)
    stopped = threading.Event()
    raised: list[BaseException] = []

    def loop() -> None:
        try:
            while not stopped.is_set():
                try:
                    item = todo.get_nowait()
                except queue.Empty:
                    return
                work(item)
                pulse.beat()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            raised.append(error)
            stopped.set()
        finally:
            ended.release()

    pulse.beat()
    try:
        for number in range(count):
            threading.Thread(target=loop, name=f"registry-{number}", daemon=True).start()
        left = count
        while left and pulse.silence <= patience:
            if ended.acquire(timeout=patience / 10):
                left -= 1
    finally:
        stopped.set()
    if raised:
        raise raised[0]
    return not left
