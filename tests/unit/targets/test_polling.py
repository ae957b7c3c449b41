"""Services are asked with growing pauses, until there is an answer or no patience any more."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest

from envbuild.targets.polling import Absence, Pauses, Polling, ServiceUnreachable


class Clock:
    """Time passes only where one sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def polling(clock: Clock, patience: float = 10) -> Polling:
    return Polling(
        pauses=Pauses(1.0, 4.0, 2.0), patience=patience, sleep=clock.sleep, clock=lambda: clock.now
    )


def answers(*values: str | ServiceUnreachable) -> Callable[[], str]:
    """Says one after the other, the last one for ever."""
    left = list(values)

    def ask() -> str:
        value = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(value, ServiceUnreachable):
            raise value
        return value

    return ask


@pytest.mark.parametrize(
    ("pauses", "expected"),
    [(Pauses(1.0, 4.0, 2.0), [1.0, 2.0, 4.0, 4.0]), (Pauses(5.0, 2.0), [5.0, 5.0, 5.0, 5.0])],
)
def test_pauses_grow_to_the_longest(pauses: Pauses, expected: list[float]) -> None:
    assert list(islice(pauses, 4)) == expected


def test_first_answer_ends_the_questions() -> None:
    clock = Clock()
    assert polling(clock).until(answers("", "", "done")) == "done"
    assert clock.pauses == [1.0, 2.0]


def test_no_answer_in_time_is_none() -> None:
    clock = Clock()
    assert not polling(clock).until(answers(""), 6)
    assert clock.pauses == [1.0, 2.0, 4.0]


def test_service_that_is_away_is_asked_again_and_each_time_is_told() -> None:
    clock, missed = Clock(), []
    away = ServiceUnreachable("away")
    answer = polling(clock).patiently(
        answers(away, away, "there"), lambda error, seconds, pause: missed.append((seconds, pause))
    )
    assert (answer, missed, clock.pauses) == ("there", [(0.0, 2.0), (2.0, 2.0)], [2.0, 2.0])


def test_absence_counts_from_the_first_time_until_it_ends() -> None:
    clock = Clock()
    absence = Absence(lambda: clock.now)
    seconds = []
    for _ in range(2):
        seconds.append(absence.seconds())
        clock.sleep(3)
        seconds.append(absence.seconds())
        absence.end()
    assert seconds == [0.0, 3.0, 0.0, 3.0]
