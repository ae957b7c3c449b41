"""What progress looks like, and what the tally behind it counts."""

from __future__ import annotations

import io
import threading

import pytest

from envbuild.cli.show.progress import Display, LiveScreen, NoScreen, PlainScreen
from envbuild.cli.show.report import stage_lines
from envbuild.cli.show.stages import StageRow, Tally
from envbuild.cli.show.text import printable, seconds_text, size_text, table
from tests.unit.cli.conftest import CommandLine, Terminal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timers_ran() -> None:
    """Returns when every timer that was running has done its work."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=10)


def test_plain_lines_tell_each_stage_once_and_never_return(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(PlainScreen(stream, delay=0), clock) as display:
        with display.stage("download"):
            timers_ran()
            for name in ("numpy", "scipy"):
                with display.task("download", name, total=5_000_000) as task:
                    timers_ran()
                    task.advance(5_000_000)
            clock.now += 2
        display.note("a\rb")
    assert stream.getvalue().splitlines() == [
        "download: started",
        "download: done in 2.0 s, 10.0 MB, 5.0 MB/s",
        "a\\x0db",
    ]


def test_work_without_a_timer_ends_with_the_display(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(PlainScreen(stream, delay=0), clock) as display:
        for name in ("numpy", "scipy"):
            with display.task("download", name, total=1000) as task:
                timers_ran()
                clock.now += 1
                task.advance(1000)
    assert stream.getvalue().splitlines() == [
        "download: started (numpy)",
        "download: done in 2.0 s, 2.0 kB, 1.0 kB/s",
    ]


def test_plain_lines_say_nothing_of_what_takes_no_time(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(PlainScreen(stream, delay=60), clock) as display:
        with display.stage("spec"):
            clock.now += 0.05
        with display.stage("compose"), display.task("compose", "packages", total=1, unit="packages") as task:
            clock.now += 0.5
            task.advance(1)
    assert stream.getvalue().splitlines() == ["compose: done in 0.50 s, 1 package"]
    timers_ran()


def test_failure_ends_no_stage_well(clock: Clock) -> None:
    stream = io.StringIO()

    def fail() -> None:
        with Display(PlainScreen(stream, delay=0), clock) as display, display.task("download", "numpy"):
            timers_ran()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert stream.getvalue().splitlines() == ["download: started (numpy)"]


def test_things_are_counted_by_their_noun(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(PlainScreen(stream), clock) as display, display.stage("compile"):
        with display.task("compile", "numpy", total=3, unit="files") as task:
            task.advance(3)
        clock.now += 1
    assert stream.getvalue().splitlines()[-1] == "compile: done in 1.0 s, 3 files"


def test_parallel_work_counts_wall_clock_once(clock: Clock) -> None:
    tally = Tally(clock)
    tally.open("compose")
    tally.open("compose")
    clock.now += 3
    tally.close("compose")
    clock.now += 1
    tally.close("compose")
    assert [(row.name, row.seconds, row.active) for row in tally.rows()] == [("compose", 4.0, 0)]


def test_tally_loses_nothing_between_threads(clock: Clock) -> None:
    display = Display(NoScreen(), clock)

    def work() -> None:
        with display.task("download", "x", total=1000) as task:
            for _ in range(1000):
                task.advance(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(row.done, row.total, row.active) for row in display.tally.rows()] == [(4000, 4000, 0)]


def test_stage_that_fails_is_closed(clock: Clock) -> None:
    display = Display(NoScreen(), clock)
    with pytest.raises(ValueError, match="no"), display.stage("resolve"):
        raise ValueError("no")
    assert not display.tally.busy()


def test_stage_table_has_seconds_of_each_and_of_all(clock: Clock) -> None:
    tally = Tally(clock)
    tally.open("resolve")
    clock.now += 1.5
    tally.close("resolve")
    clock.now += 0.25
    assert stage_lines(tally) == ["stage    seconds", "resolve     1.50", "total       1.75"]


def test_live_display_draws_bytes_and_leaves_the_terminal_clean(clock: Clock) -> None:
    stream = Terminal()
    screen = LiveScreen(stream, color=False, delay=0)
    with (
        Display(screen, clock) as display,
        display.stage("download"),
        display.task("download", "[bold]numpy\x1b[2J", total=10_000_000) as task,
    ):
        task.advance(4_000_000)
        clock.now += 2
        task.advance(1_000_000)
        timers_ran()
        display.note("chosen")
    drawn = stream.getvalue()
    assert "download" in drawn
    assert "5.0 MB of 10.0 MB, 2.5 MB/s" in drawn
    assert "[bold]numpy\\x1b[2J" in drawn
    assert "chosen" in drawn
    # The cursor, hidden while rich draws, is shown again, and the drawn lines are erased.
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    assert "\x1b[2K" in drawn[drawn.rindex("\x1b[?25h") :]


def test_live_display_of_short_work_draws_nothing(clock: Clock) -> None:
    stream = Terminal()
    with Display(LiveScreen(stream, color=False, delay=30), clock) as display, display.stage("compose"):
        pass
    assert stream.getvalue() == ""


def test_nothing_is_drawn_while_the_users_command_runs(clock: Clock) -> None:
    stream = Terminal()
    screen = LiveScreen(stream, color=False, delay=0)
    before = set(threading.enumerate())
    with Display(screen, clock) as display, display.stage("run"):
        assert set(threading.enumerate()) - before == set()
    assert stream.getvalue() == ""


def test_verbose_build_shows_the_table_of_stages(envbuild: CommandLine) -> None:
    def work(progress: object) -> None:
        from envbuild.progress import Progress

        assert isinstance(progress, Display)
        listener: Progress = progress
        with listener.stage("compose"), listener.task("compose", "numpy", total=7) as task:
            task.advance(7)

    envbuild.answers.work = work
    lines = envbuild("build", "-v", "--progress", "none").err.splitlines()
    assert lines[0].split() == ["stage", "seconds"]
    assert lines[1].split()[0] == "compose"
    assert "7 B" in lines[1]
    assert lines[2].split()[0] == "total"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (18_200_000, "18.2 MB"),
    ],
)
def test_sizes_are_decimal(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.031, "0.03 s"), (4.25, "4.2 s"), (59.96, "1 min 0 s"), (75.4, "1 min 15 s")]
)
def test_seconds_are_read_by_people(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_printable_keeps_letters_and_escapes_what_drives_terminals() -> None:
    assert printable("Größe 数 ✓") == "Größe 数 ✓"
    assert printable("a\nb\x9b31m\u2066\ud800") == "a\\x0ab\\x9b31m\\u2066\\ud800"
    assert printable("a\nb\t", lines=True) == "a\nb\\x09"


def test_table_aligns_columns() -> None:
    assert table([("a", "1"), ("bcd", "22")], right=[1], indent="> ") == ["> a     1", "> bcd  22"]
    assert table([]) == []


def test_row_starts_empty() -> None:
    assert StageRow(name="x") == StageRow(name="x", what="", seconds=0.0, active=0)
