from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.targets.kubernetes.log import LogPosition

NOON = "2026-11-23T12:00:0"


def stamped(*lines: tuple[str, bytes]) -> bytes:
    return b"".join(stamp.encode() + b" " + line for stamp, line in lines)


LOG = stamped(
    (f"{NOON}0.000000001Z", b"one\n"),
    (f"{NOON}0.000000001Z", b"two\n"),
    (f"{NOON}0.5Z", b"\n"),
    (f"{NOON}1Z", b"three 2026-11-23T12:00:00Z four\n"),
    (f"{NOON}1Z", b"three 2026-11-23T12:00:00Z four\n"),
    (f"{NOON}1Z", b"no end"),
)
PLAIN = b"one\ntwo\n\n" + b"three 2026-11-23T12:00:00Z four\n" * 2 + b"no end"


@given(
    cuts=st.lists(st.integers(0, len(LOG)), max_size=6),
    size=st.integers(1, len(LOG)),
    since=st.sampled_from([0, LOG.index(b"2026-11-23T12:00:00.5Z")]),
)
def test_every_line_comes_once_wherever_connections_break(cuts: list[int], size: int, since: int) -> None:
    position, seen = LogPosition(), b""
    for number, cut in enumerate([*cuts, len(LOG)]):
        position.begin()
        # From the second connection on a log may begin in the middle, though never after what was seen, nor
        # between lines of one time: it is asked for by time.
        start = since if number and seen.startswith(b"one\ntwo\n\n") else 0
        data = LOG[start : max(cut, start)]
        for at in range(0, len(data), size):
            seen += position.take(data[at : at + size])
    assert seen + position.rest() == PLAIN


def test_lines_without_a_stamp_come_as_they_are() -> None:
    """What a node says in place of a log."""
    position = LogPosition()
    assert position.take(b"unable to retrieve container logs\n") == b"unable to retrieve container logs\n"
    assert position.time is None
    assert position.take(b"short") == b""
    assert position.rest() == b"short"
    assert position.rest() == b""


def test_an_impossible_time_is_none() -> None:
    position = LogPosition()
    line = b"2026-13-45T12:00:00Z text\n"
    assert position.take(line) == line
    assert position.time is None


def test_clock_that_is_set_back_hides_no_line() -> None:
    position = LogPosition()
    data = stamped((f"{NOON}5Z", b"a\n"), (f"{NOON}3Z", b"b\n"), (f"{NOON}4Z", b"c\n"))
    assert position.take(data) == b"a\nb\nc\n"


def test_a_foreign_line_between_leaves_the_position() -> None:
    position = LogPosition()
    assert position.take(stamped((f"{NOON}1Z", b"half"))) == b"half"
    position.begin()
    assert position.take(b"failed to watch a file, of which the node says much more than 64 bytes\n") != b""
    position.begin()
    assert position.take(stamped((f"{NOON}1Z", b"half and half\n"))) == b" and half\n"


@pytest.mark.parametrize(
    "stamp", [f"{NOON}9.25Z", "2026-11-23T14:00:09.25+02:00", "2026-11-23T06:30:09-05:30"]
)
def test_time_is_in_utc(stamp: str) -> None:
    position = LogPosition()
    position.take(stamped((stamp, b"x\n")))
    assert position.time == datetime(2026, 11, 23, 12, 0, 9, tzinfo=timezone.utc)
