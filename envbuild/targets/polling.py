"""Asking services that tell nothing on their own: until a job has ended, and again while one is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from envbuild.errors import RunError

T = TypeVar("T")


class ServiceUnreachable(RunError):
    """The service didn't answer, or not for now. What was asked may have been done."""


class ServiceRefusal(RunError):
    """The service answered that it won't. ``status`` is HTTP's."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between two questions, without end: the longer it takes, the less often is asked."""

    first: float
    longest: float
    growth: float = 1.3

    def __iter__(self) -> Iterator[float]:
        pause = self.first
        while True:
            yield pause
            pause = max(pause, min(pause * self.growth, self.longest))


class Absence:
    """How long a service hasn't answered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None

    def seconds(self) -> float:
        """To be asked whenever it doesn't answer: the seconds since the first time, 0.0 then."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        return now - self._since

    def end(self) -> None:
        self._since = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Polling:
    """How often a service is asked, and how long it may be away."""

    pauses: Iterable[float]
    """Between two looks at a job."""
    retries: Iterable[float] = Pauses(2.0, 2.0)
    """Between two tries while the service is away."""
    patience: float
    """Seconds that it may be away."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def states(self, ask: Callable[[], T], pauses: Iterable[float] | None = None) -> Iterator[T]:
        """What ``ask`` returns, for as long as somebody wants to know."""
        for pause in self.pauses if pauses is None else pauses:
            yield ask()
            self.sleep(pause)

    def until(self, ask: Callable[[], T | None], seconds: float | None = None) -> T | None:
        """The first answer that is something; None where ``seconds`` are over before."""
        limit = None if seconds is None else self.clock() + seconds
        for answer in self.states(ask):
            if answer or (limit is not None and self.clock() > limit):
                return answer
        return None

    def patiently(
        self, ask: Callable[[], T], missed: Callable[[ServiceUnreachable, float, float], None]
    ) -> T:
        """What ``ask`` returns, asked again while the service is away.

        ``missed`` gets each error, the seconds since the first one, and those to the next try; it raises what
        ends the patience.
        """
        absence, retries = Absence(self.clock), iter(self.retries)
        while True:
            try:
                return ask()
            except ServiceUnreachable as error:
                pause = next(retries)
                missed(error, absence.seconds(), pause)
            self.sleep(pause)
