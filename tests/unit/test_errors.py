"""What led to an error."""

from __future__ import annotations

from envbuild.errors import causes
from envbuild.http.connection import broken


def test_causes_come_before_contexts_and_the_innermost_is_last() -> None:
    first, second, third, aside = (ValueError(name) for name in ("first", "second", "third", "aside"))
    first.__cause__, first.__context__ = second, aside
    second.__context__ = third
    assert list(causes(first)) == [first, second, third]
    assert list(causes(third)) == [third]


def test_a_circle_of_causes_ends() -> None:
    """As it was met: a push that hung for as long as one waited."""
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert list(causes(one)) == [one, other]
    assert str(broken(one, (1.0, 1.0))) == "the connection broke: one"
