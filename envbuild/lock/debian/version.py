"""Debian's order of versions (Debian Policy §5.6.12, deb-version(7))."""

from __future__ import annotations

import re
from functools import total_ordering
from itertools import zip_longest

_PART = re.compile(r"([^0-9]*)([0-9]*)")
_Part = tuple[int, ...]
_NOTHING: _Part = (0,)

_OPERATORS = {
    "<<": (-1,),
    "<=": (-1, 0),
    "=": (0,),
    ">=": (0, 1),
    ">>": (1,),
    # Obsolete spellings that mean the inclusive ones (Policy §7.1).
    "<": (-1, 0),
    ">": (0, 1),
}
_UPSTREAM = re.compile(r"\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?")


@total_ordering
class DebianVersion:
    """A version as dpkg compares it: ``[epoch:]upstream[-revision]``."""

    __slots__ = ("_key", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._key = _key(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DebianVersion) and self._key == other._key

    def __lt__(self, other: DebianVersion) -> bool:
        key, other_key = self._key, other._key
        if key[0] != other_key[0]:
            return key[0] < other_key[0]
        return (_compare(key[1], other_key[1]) or _compare(key[2], other_key[2])) < 0

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"DebianVersion({self.text!r})"

    def satisfies(self, operator: str, other: DebianVersion) -> bool:
        """Whether ``operator other`` of a dependency field holds (``<<``, ``<=``, ``=``, ``>=``, ``>>``)."""
        order = (self > other) - (self < other)
        return order in _OPERATORS[operator]


def upstream(text: str) -> str:
    """The release number that leads the upstream version: ``3.13.5`` of ``1:3.13.5-2+deb13u1``."""
    match = _UPSTREAM.match(text.partition(":")[2] or text)
    return match.group() if match else text


def _key(text: str) -> tuple[int, tuple[_Part, ...], tuple[_Part, ...]]:
    epoch, colon, rest = text.partition(":")
    if not colon or not (epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", text
    main, dash, revision = rest.rpartition("-")
    if not dash:
        main, revision = rest, ""
    return int(epoch), _parts(main), _parts(revision)


def _parts(text: str) -> tuple[_Part, ...]:
    """Alternating non-digit and digit parts as tuples that compare as dpkg does.

    A ``~`` sorts before the end of a part, letters before all other characters."""
    parts: list[_Part] = []
    for letters, digits in _PART.findall(text):
        if not letters and not digits:
            break
        order = tuple(_rank(char) for char in letters)
        parts.append((*order, 0))
        parts.append((int(digits or "0"),))
    # What is missing counts as nothing or zero, so it makes no difference at the end.
    while parts and parts[-1] == _NOTHING:
        parts.pop()
    return tuple(parts)


def _compare(version: tuple[_Part, ...], other: tuple[_Part, ...]) -> int:
    for a, b in zip_longest(version, other, fillvalue=_NOTHING):
        if a != b:
            return -1 if a < b else 1
    return 0


def _rank(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
