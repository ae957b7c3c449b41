"""Debian's order of versions (Debian Policy §5.6.12, deb-version(7))."""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering

_PART = re.compile(r"([^0-9]*)([0-9]*)")
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
class Version:
    """A version as dpkg compares it: ``[epoch:]upstream[-revision]``."""

    __slots__ = ("_key", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._key = _key(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Version({self.text!r})"

    def satisfies(self, operator: str, other: Version) -> bool:
        """Whether ``operator other`` of a dependency field holds (``<<``, ``<=``, ``=``, ``>=``, ``>>``)."""
        order = (self > other) - (self < other)
        return order in _OPERATORS[operator]


def upstream(text: str) -> str:
    """The release number that leads the upstream version: ``3.13.5`` of ``1:3.13.5-2+deb13u1``."""
    found = _UPSTREAM.match(text.partition(":")[2] or text)
    return found.group() if found else text


@lru_cache(maxsize=4096)
def _key(text: str) -> tuple[int, tuple[tuple[object, ...], ...], tuple[tuple[object, ...], ...]]:
    epoch, colon, rest = text.partition(":")
    if not colon or not epoch.isdigit():
        epoch, rest = "0", text
    main, dash, revision = rest.rpartition("-")
    if not dash:
        main, revision = rest, ""
    return int(epoch), _parts(main), _parts(revision)


def _parts(text: str) -> tuple[tuple[object, ...], ...]:
    """Alternating non-digit and digit parts as tuples that compare as dpkg does.

    A ``~`` sorts before the end of a part, letters before all other characters."""
    parts: list[tuple[object, ...]] = []
    for letters, digits in _PART.findall(text):
        if not letters and not digits:
            break
        order = tuple(_rank(char) for char in letters)
        parts.append((*order, 0))
        parts.append((int(digits or "0"),))
    # A missing number counts as zero, so trailing zeros are cut; one "nothing more" ends every list, above
    # which all characters sort but the tilde.
    while parts and parts[-1] == (0,):
        parts.pop()
    return (*parts, (0,))


def _rank(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
