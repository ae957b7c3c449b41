"""How stages say what they are doing, without knowing who listens.

A stage is given a :class:`Progress` and opens a task for each piece of work; a display, a plain log or
nothing at all may be behind it. Implementations are safe to call from several threads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol


class Task(Protocol):
    """One piece of work under way; leaving the context ends it."""

    def advance(self, amount: int) -> None:
        """Counts ``amount`` more units (bytes where the task's unit is ``B``) as done."""

    def __enter__(self) -> Task: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Progress(Protocol):
    """The listener."""

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        """Opens a task of ``stage`` (``resolve``, ``download``, ``compile``, ``compose``, ``publish``…).

        ``what`` is shown to people; ``total`` is in ``unit``: ``B`` for bytes, anything else is a noun.
        """

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Times everything inside as part of the stage ``name``, for the table of ``-v``."""

    def note(self, text: str) -> None:
        """Tells people one line that isn't a log message (a choice made, a cache used)."""


class Counter:
    """Tells a task of bytes once only, however often a transfer is begun again."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._told = 0

    def reached(self, size: int) -> None:
        """The first ``size`` bytes are there."""
        if size > self._told:
            self._task.advance(size - self._told)
            self._told = size


class _SilentTask:
    def advance(self, amount: int) -> None:
        pass

    def __enter__(self) -> _SilentTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Silent:
    """A :class:`Progress` that tells nobody."""

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        return _SilentTask()

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def note(self, text: str) -> None:
        pass
