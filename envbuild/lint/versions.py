"""Which versions a constraint lets through, as far as that is sure: ranges of plain releases.

Only clauses over releases (``1.2``, ``1.2.*``) are judged. Anything else (pre-releases, local versions,
alternatives) lets everything through, so that two constraints are only said to exclude each other where no
version at all could be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Release = tuple[int, ...]
"""Without zeros at its end, as 1.2 and 1.2.0 are one version."""

_CLAUSE = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>|=)?\s*([0-9]{1,9}(?:\.[0-9]{1,9}){0,9})(\.?\*)?\s*")
_UPPER = re.compile(r"(?:^|,)\s*(?:<|~=|=)|(?:^|,)\s*[0-9]")

# A version more that is left out can only make a range emptier than it is said to be.
_MOST_LEFT_OUT = 64


@dataclass(frozen=True, slots=True)
class Range:
    """Releases from ``low`` to ``high``; None: without an end there. ``never`` are single ones left out."""

    low: Release | None = None
    low_in: bool = True
    high: Release | None = None
    high_in: bool = False
    never: frozenset[Release] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether no release fits. Left-out ones count where only one release is left."""
        if self.low is None or self.high is None:
            # Nothing comes before version 0.
            return self.high == () and not self.high_in
        if self.low == self.high:
            return not (self.low_in and self.high_in) or self.low in self.never
        return self.low > self.high

    def meet(self, other: Range) -> Range:
        """What both let through."""
        low, low_in = self.low, self.low_in
        if other.low is not None and (low is None or (other.low, not other.low_in) > (low, not low_in)):
            low, low_in = other.low, other.low_in
        high, high_in = self.high, self.high_in
        if other.high is not None and (high is None or (other.high, other.high_in) < (high, high_in)):
            high, high_in = other.high, other.high_in
        never = self.never
        if other.never and len(never) < _MOST_LEFT_OUT:
            never = never | other.never
        return Range(low, low_in, high, high_in, never)


ANY = Range()


def release(text: str) -> Release | None:
    """The release that ``text`` writes out; None where it is anything more."""
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,9}", text) is None:
        return None
    return _bare([int(part) for part in text.split(".")])


def pip_range(specifier: str) -> Range:
    """What the clauses of PEP 440 in ``specifier`` let through."""
    if not specifier:
        return ANY
    return _meet(_clause(part, "==") for part in specifier.split(",") if part.strip())


def conda_range(version: str | None) -> Range:
    """What the version of a match spec lets through; ``=1.2`` and a bare ``1.2`` count as ``1.2.*``."""
    if version is None or "|" in version or version.strip() == "*":
        return ANY
    return _meet(_clause(part, "=") for part in version.split(",") if part.strip())


def series(text: str) -> Range:
    """All releases that begin with ``text``, as a name claims them: ``1.3`` is every 1.3."""
    return _clause(text, "=")


def bounded(specifier: str) -> bool:
    """Whether a specifier says where it ends."""
    return _UPPER.search(specifier) is not None


def _meet(ranges: Iterable[Range]) -> Range:
    whole = ANY
    for range_ in ranges:
        whole = whole.meet(range_)
    return whole


def _clause(text: str, default: str) -> Range:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        return ANY
    operator, wild = match[1] or default, match[3] is not None
    parts = [int(part) for part in match[2].split(".")]
    exact = _bare(parts)
    if operator == "!=":
        return ANY if wild else Range(never=frozenset({exact}))
    if operator == "=" or (operator == "==" and wild):
        return Range(exact, True, _after(parts))
    if operator in ("==", "==="):
        return Range(exact, True, exact, True)
    if operator == "~=":
        return Range(exact, True, _after(parts[:-1])) if len(parts) > 1 else ANY
    if operator in (">=", ">"):
        # conda takes >=1.2.* as >=1.2; what >1.2.* means differs between tools.
        return ANY if wild and operator == ">" else Range(exact, operator == ">=")
    # <=1.2.* lets every 1.2 through.
    return (
        Range(high=_after(parts))
        if wild and operator == "<="
        else Range(high=exact, high_in=operator == "<=")
    )


def _after(parts: list[int]) -> Release:
    return _bare([*parts[:-1], parts[-1] + 1])


def _bare(parts: list[int]) -> Release:
    end = len(parts)
    while end and parts[end - 1] == 0:
        end -= 1
    return tuple(parts[:end])
