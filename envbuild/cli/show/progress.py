"""Shows progress: a live display on a terminal, plain lines elsewhere, or nothing.

A :class:`Display` is the ``Progress`` that stages are given; it keeps the tally and tells a screen. Only the
live screen needs rich, which is imported when it first draws.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from envbuild.cli.show.stages import StageRow, Tally
from envbuild.cli.show.text import printable, seconds_text, size_text
from envbuild.lazy import lazy
from envbuild.progress import Task
from envbuild.redact import redact

if TYPE_CHECKING:
    from rich import console as rich_console
    from rich import progress as rich_progress
    from rich.progress import TaskID
else:
    rich_console = lazy("rich.console")
    rich_progress = lazy("rich.progress")

RUN_STAGE = "run"
"""The stage in which a command of the user has the terminal: nothing is drawn meanwhile."""


class Screen(Protocol):
    """Where progress is drawn. Called under the display's lock, so never by two threads at once."""

    def started(self, row: StageRow) -> None:
        """A piece of work of the stage began."""

    def changed(self, row: StageRow) -> None:
        """Some of it is done."""

    def finished(self, row: StageRow) -> None:
        """The whole stage is over."""

    def note(self, text: str) -> None:
        """One line for people."""

    def ended(self) -> None:
        """All work is done, and well."""

    def pause(self) -> None:
        """Leaves the terminal as if nothing was ever drawn, until more work starts."""


class _Task:
    """One piece of work, told to the display; ends once, however often it is left."""

    def __init__(self, display: Display, stage: str, unit: str) -> None:
        self._display = display
        self._stage = stage
        self._unit = unit
        self._open = True

    def advance(self, amount: int) -> None:
        self._display.advance(self._stage, amount, self._unit)

    def __enter__(self) -> _Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open = False
            self._display.end(self._stage)


class Display:
    """The :class:`envbuild.progress.Progress` of the command line. Leaving its context stops the drawing."""

    def __init__(self, screen: Screen, clock: Callable[[], float]) -> None:
        self.tally = Tally(clock)
        self._screen = screen
        self._lock = threading.RLock()

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        with self._lock:
            row = self.tally.open(stage, what, total=total, unit=unit)
            self._screen.started(row)
        return _Task(self, stage, unit)

    def advance(self, stage: str, amount: int, unit: str) -> None:
        with self._lock:
            self._screen.changed(self.tally.advance(stage, amount, unit))

    def end(self, stage: str) -> None:
        with self._lock:
            self._screen.changed(self.tally.close(stage))
            if not self.tally.busy():
                self._screen.pause()

    def stage(self, name: str) -> AbstractContextManager[None]:
        return self._stage(name)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with self._lock:
            row = self.tally.open(name)
            if name == RUN_STAGE:
                self._screen.pause()
            else:
                self._screen.started(row)
        try:
            yield
        except BaseException:
            with self._lock:
                self.tally.close(name)
                self._screen.pause()
            raise
        with self._lock:
            row = self.tally.close(name)
            if name != RUN_STAGE:
                self._screen.finished(row)
            if not self.tally.busy():
                self._screen.pause()

    def note(self, text: str) -> None:
        with self._lock:
            self._screen.note(text)

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is None:
                self._screen.ended()
            self._screen.pause()


class NoScreen:
    """Shows nothing, not even notes."""

    def started(self, row: StageRow) -> None:
        pass

    def changed(self, row: StageRow) -> None:
        pass

    def finished(self, row: StageRow) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def ended(self) -> None:
        pass

    def pause(self) -> None:
        pass


class PlainScreen:
    """One line for each stage that takes its time: that it goes on after ``delay`` seconds of work, and when
    it is done, unless that took less than ``brief``. Never a carriage return. For logs and pipes."""

    def __init__(self, stream: TextIO, *, delay: float = 1.0, brief: float = 0.1) -> None:
        self._stream = stream
        self._delay = delay
        self._brief = brief
        self._lock = threading.RLock()
        self._rows: dict[str, StageRow] = {}
        self._told: set[str] = set()
        self._timers: dict[str, threading.Timer] = {}

    def started(self, row: StageRow) -> None:
        with self._lock:
            self._rows[row.name] = row
            if row.name not in self._told and row.name not in self._timers:
                timer = threading.Timer(self._delay, self._goes_on, (row.name,))
                timer.daemon = True
                self._timers[row.name] = timer
                timer.start()

    def changed(self, row: StageRow) -> None:
        with self._lock:
            if row.name in self._rows:
                self._rows[row.name] = row

    def finished(self, row: StageRow) -> None:
        with self._lock:
            # A stage that starts again, for another platform say, is told again.
            self._rows.pop(row.name, None)
            if timer := self._timers.pop(row.name, None):
                timer.cancel()
            if row.name in self._told or row.seconds >= self._brief:
                self._told.discard(row.name)
                amount = amount_text(row)
                self._write(
                    f"{row.name}: done in {seconds_text(row.seconds)}" + (f", {amount}" if amount else "")
                )

    def note(self, text: str) -> None:
        with self._lock:
            self._write(text)

    def ended(self) -> None:
        # Work that no timer of a stage encloses has no end before this.
        with self._lock:
            for row in list(self._rows.values()):
                self.finished(row)

    def pause(self) -> None:
        with self._lock:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _goes_on(self, name: str) -> None:
        with self._lock:
            self._timers.pop(name, None)
            row = self._rows.get(name)
            # Work without a timer of its stage may be over by now, and begin again.
            if row is not None and row.active and name not in self._told:
                self._told.add(name)
                self._write(f"{name}: started" + (f" ({row.what})" if row.what else ""))

    def _write(self, text: str) -> None:
        self._stream.write(printable(redact(text)) + "\n")
        self._stream.flush()


class LiveScreen:
    """One row a stage on a terminal: what it does, a bar, bytes and rate. Gone when the work is done.

    Nothing is drawn before ``delay`` seconds of work, so a build that only looks things up stays quiet
    and doesn't pay for the import of rich.
    """

    def __init__(self, stream: TextIO, *, color: bool, delay: float = 0.3) -> None:
        self._stream = stream
        self._color = color
        self._delay = delay
        self._lock = threading.RLock()
        self._rows: dict[str, StageRow] = {}
        self._tasks: dict[str, TaskID] = {}
        self._live: rich_progress.Progress | None = None
        self._timer: threading.Timer | None = None

    def started(self, row: StageRow) -> None:
        with self._lock:
            self._rows[row.name] = row
            if self._live is not None:
                self._draw(self._live, row)
            elif self._timer is None:
                self._timer = threading.Timer(self._delay, self._begin)
                self._timer.daemon = True
                self._timer.start()

    def changed(self, row: StageRow) -> None:
        with self._lock:
            self._rows[row.name] = row
            if self._live is not None:
                self._draw(self._live, row)

    def finished(self, row: StageRow) -> None:
        self.changed(row)

    def ended(self) -> None:
        pass

    def note(self, text: str) -> None:
        with self._lock:
            if self._live is not None:
                # Else what is drawn again below the line is what was drawn last, up to 0.1 s ago.
                self._live.refresh()
                self._live.console.print(
                    printable(redact(text)), markup=False, highlight=False, soft_wrap=True
                )
            else:
                self._stream.write(printable(redact(text)) + "\n")
                self._stream.flush()

    def pause(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            live, self._live = self._live, None
            self._tasks.clear()
        if live is not None:
            live.stop()

    def _begin(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            self._timer = None
            console = rich_console.Console(
                file=self._stream, no_color=not self._color, highlight=False, markup=False
            )
            live = rich_progress.Progress(
                rich_progress.SpinnerColumn(),
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(bar_width=24),
                rich_progress.TextColumn("{task.fields[amount]}", markup=False),
                rich_progress.TextColumn("{task.fields[what]}", markup=False),
                console=console,
                transient=True,
                # What the child writes is its own matter, and stdout carries the result.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live = live
            for row in self._rows.values():
                self._draw(live, row)
            live.start()

    def _draw(self, live: rich_progress.Progress, row: StageRow) -> None:
        done, total = (row.done, row.total) if row.total or row.done else (row.things_done, row.things_total)
        what = printable(redact(row.what))
        over = not row.active
        description = f"{printable(row.name):<9}"
        amount = amount_text(row, final=over)
        shown = what if len(what) <= 40 else what[:39] + "…"
        task = self._tasks.get(row.name)
        bar_total = float(max(total, done)) if total else None
        if task is None:
            task = self._tasks[row.name] = live.add_task(
                description, total=bar_total, amount=amount, what="" if over else shown
            )
        live.update(
            task,
            description=description,
            completed=done if bar_total else (1 if over else 0),
            total=bar_total if bar_total else (1 if over else None),
            amount=amount,
            what="" if over else shown,
        )


def amount_text(row: StageRow, *, final: bool = True) -> str:
    """``110.3 MB, 27.6 MB/s`` or ``41 wheels``; with a total while the stage is under way. "" for nothing."""
    parts = []
    if row.done or row.total:
        of = f" of {size_text(row.total)}" if row.total > row.done and not final else ""
        parts.append(f"{size_text(row.done)}{of}")
        if row.seconds >= 0.05 and row.done:
            parts.append(f"{size_text(row.done / row.seconds)}/s")
    if row.things_done or row.things_total:
        of = f" of {row.things_total}" if row.things_total > row.things_done and not final else ""
        noun = row.noun.removesuffix("s") if row.things_done == 1 and not of else row.noun
        parts.append(f"{row.things_done}{of} {noun}".rstrip())
    return ", ".join(parts)
