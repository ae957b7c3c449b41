"""Poetry's version constraints as PEP 440's specifiers and as markers.

``^1.2`` is everything up to the next change of the first number that isn't zero, ``~1.2`` up to that of the
second; a bare version is that one; ``||`` parts alternatives, which a requirement can say only where they are
one range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from envbuild.redact import redact
from envbuild.specs.problems import Refused

_PART = re.compile(r"\s*(\^|~=|~|===|==|!=|<=|>=|=|<|>)?\s*([^\s,<>=!~^|]+)\s*,?")
_LIMIT = 50
"""Parts of one constraint."""

Bound = tuple[str, str]
"""An operator of PEP 440 and a version."""


def specifier(text: str) -> str:
    """The specifier set that ``text`` is; empty for any version. Raises :class:`Refused`: no constraint, or
    alternatives that aren't one range."""
    alternatives = _parse(text)
    if len(alternatives) > 1:
        return _union(text, [_Range.of(text, bounds) for bounds in alternatives])
    return ",".join(f"{operator}{version}" for operator, version in alternatives[0])


def python_specifier(text: str) -> str:
    """What ``text`` says of Python, with ``|`` between alternatives; ``*`` for any."""
    texts = [
        ",".join(f"{operator}{version}" for operator, version in bounds) or "*" for bounds in _parse(text)
    ]
    return "*" if "*" in texts else "|".join(texts)


def python_marker(text: str) -> str:
    """The marker that holds for the Pythons of ``text``; empty for any."""
    return _marker("python_full_version", _parse(text))


def platform_marker(text: str) -> str:
    """The marker of ``platform = "linux"``, with ``!=`` and ``||`` as Poetry takes them."""
    alternatives = []
    for part in text.split("||"):
        match = re.fullmatch(r"\s*(!=|==)?\s*([A-Za-z0-9_]+)\s*", part)
        if match is None:
            raise Refused(f"{text[:80]!r} is no platform of Poetry's")
        alternatives.append([(match[1] or "==", match[2])])
    return _marker("sys_platform", alternatives)


def _marker(variable: str, alternatives: list[list[Bound]]) -> str:
    if not all(alternatives):
        return ""
    groups = [
        " and ".join(f'{variable} {operator} "{version}"' for operator, version in bounds)
        for bounds in alternatives
    ]
    return groups[0] if len(groups) == 1 else " or ".join(f"({group})" for group in groups)


def _parse(text: str) -> list[list[Bound]]:
    """The alternatives of a constraint, each as bounds that all hold."""
    refused = Refused(f"{redact(text)[:80]!r} is no version constraint of Poetry's")
    alternatives = []
    for alternative in re.split(r"\|\|?", text):
        bounds: list[Bound] = []
        at = parts = 0
        while at < len(alternative.rstrip()):
            match = _PART.match(alternative, at)
            parts += 1
            if match is None or parts > _LIMIT:
                raise refused
            at = match.end()
            try:
                bounds += _bounds(match[1] or "", match[2])
            except (InvalidVersion, ValueError) as error:
                raise refused from error
        if not parts:
            raise refused
        alternatives.append(bounds)
    return alternatives


def _bounds(operator: str, written: str) -> list[Bound]:
    if written in ("*", "x", "X"):
        if operator not in ("", "=", "=="):
            raise ValueError(written)
        return []
    wildcard = re.fullmatch(r"(.+?)(?:\.[*xX])+", written)
    version = Version(wildcard[1] if wildcard else written)
    if wildcard and operator in ("", "=", "==", "!="):
        return [("!=" if operator == "!=" else "==", f"{version}.*")]
    if operator in ("^", "~"):
        return [(">=", f"{version}"), ("<", _next(version, operator))]
    return [("==" if operator in ("", "=") else operator, f"{version}")]


def _next(version: Version, operator: str) -> str:
    """The version that ends the range of a caret or a tilde."""
    release = version.release
    significant = next((place for place, number in enumerate(release) if number), len(release) - 1)
    place = significant if operator == "^" else min(1, len(release) - 1)
    bumped = [*release[:place], release[place] + 1, *(0 for _ in release[place + 1 :])]
    epoch = f"{version.epoch}!" if version.epoch else ""
    return epoch + ".".join(map(str, bumped))


@dataclass(frozen=True, slots=True)
class _Range:
    """All versions from ``low`` on, which counts itself, to before ``high``; None where there is no end."""

    low: Version | None
    high: Version | None

    @classmethod
    def of(cls, text: str, bounds: list[Bound]) -> _Range:
        low: Version | None = None
        high: Version | None = None
        for operator, version in bounds:
            if operator == ">=":
                low = max(low or Version(version), Version(version))
            elif operator == "<":
                high = min(high or Version(version), Version(version))
            elif operator == "==" and version.endswith(".*"):
                low = Version(version[:-2])
                high = Version(".".join(map(str, (*low.release[:-1], low.release[-1] + 1))))
            else:
                raise _no_range(text)
        return cls(low, high)


def _union(text: str, ranges: list[_Range]) -> str:
    ordered = sorted(ranges, key=lambda entry: entry.low or Version("0.dev0"))
    low, high = ordered[0].low, ordered[0].high
    for entry in ordered[1:]:
        if high is not None and (entry.low is not None and entry.low > high):
            raise _no_range(text)
        high = None if high is None or entry.high is None else max(high, entry.high)
    parts = [*([f">={low}"] if low is not None else []), *([f"<{high}"] if high is not None else [])]
    return ",".join(parts)


def _no_range(text: str) -> Refused:
    return Refused(
        f"the alternatives of {redact(text)[:80]!r} aren't one range, which is all a requirement can say",
        "write one of them, or one range with != for what it leaves out",
    )
