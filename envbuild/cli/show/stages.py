"""What each stage has done and how long it took: one tally behind every display and the ``-v`` table."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRow:
    """One stage at one moment. Bytes and things are counted apart, as a stage may have tasks of both."""

    name: str
    what: str = ""
    """The latest piece of work, for people."""
    seconds: float = 0.0
    """Wall-clock time with work of this stage under way; work in parallel counts once."""
    active: int = 0
    """Pieces of work and timers now open."""
    done: int = 0
    total: int = 0
    """Bytes; ``total`` is of the tasks that know theirs."""
    things_done: int = 0
    things_total: int = 0
    noun: str = ""
    """What the things are."""


class Tally:
    """Counts the work of all stages; safe to call from several threads. Time is ``clock``'s, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[str, StageRow] = {}
        self._since: dict[str, float] = {}
        self._started = clock()

    def open(self, stage: str, what: str = "", *, total: int | None = None, unit: str = "B") -> StageRow:
        """Opens a piece of work of ``stage`` and returns the stage's row."""
        with self._lock:
            row = self._rows.get(stage, StageRow(name=stage))
            if row.active == 0:
                self._since[stage] = self._clock()
            row = replace(row, active=row.active + 1, what=what or row.what)
            if unit == "B":
                row = replace(row, total=row.total + (total or 0))
            else:
                row = replace(row, things_total=row.things_total + (total or 0), noun=unit)
            self._rows[stage] = row
            return row

    def advance(self, stage: str, amount: int, unit: str = "B") -> StageRow:
        with self._lock:
            row = self._rows[stage]
            if unit == "B":
                row = replace(row, done=row.done + amount)
            else:
                row = replace(row, things_done=row.things_done + amount)
            self._rows[stage] = row
            return self._now(row)

    def close(self, stage: str) -> StageRow:
        """Closes one piece of work that was opened before."""
        with self._lock:
            row = self._rows[stage]
            row = replace(row, active=row.active - 1)
            if row.active == 0:
                row = replace(row, seconds=row.seconds + self._clock() - self._since[stage])
            self._rows[stage] = row
            return row

    def rows(self) -> tuple[StageRow, ...]:
        """All stages in order of their first start, those still open timed up to now."""
        with self._lock:
            return tuple(self._now(row) for row in self._rows.values())

    def elapsed(self) -> float:
        """Seconds since the tally was made."""
        return self._clock() - self._started

    def busy(self) -> bool:
        with self._lock:
            return any(row.active for row in self._rows.values())

    def _now(self, row: StageRow) -> StageRow:
        """``row`` with the time up to now, where its work is still under way."""
        if not row.active:
            return row
        return replace(row, seconds=row.seconds + self._clock() - self._since[row.name])
