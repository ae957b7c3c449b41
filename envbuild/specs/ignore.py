"""What a build context leaves out: ``.dockerignore`` by Docker's rules, others by git's.

Docker's patterns are matched by our own code, because they differ from git's in what matters: each is
anchored at the context's root, and a ``!`` line brings back a file of a directory that is left out.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envbuild.errors import SpecError
from envbuild.lazy import lazy

if TYPE_CHECKING:
    import pathspec
    from pathspec import GitIgnoreSpec
else:
    pathspec = lazy("pathspec")

_log = logging.getLogger(__name__)

PATTERNS = 10_000
"""Lines that an ignore file may have."""
_WILD = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, slots=True)
class DockerPattern:
    """One line of a ``.dockerignore``, cleaned as Docker does it."""

    text: str
    keeps: bool
    """Whether it is a ``!`` line: what it matches is brought back."""
    regex: re.Pattern[str]

    @property
    def literal(self) -> tuple[str, ...]:
        """The leading parts of its path that have no wildcard."""
        parts = self.text.split("/")
        wild = next((index for index, part in enumerate(parts) if _WILD.search(part)), len(parts))
        return tuple(parts[:wild])


@dataclass(frozen=True, slots=True)
class DockerIgnore:
    """The patterns of a ``.dockerignore``; the last one that matches a path decides.

    A pattern matches all below a directory that it matches. Which ones matched a directory is handed down
    as one flag for each pattern, so that no path is looked at twice.
    """

    patterns: tuple[DockerPattern, ...] = ()

    def at(self, path: str, above: Sequence[bool]) -> tuple[bool, ...]:
        """Which patterns match ``path`` or a directory above it; ``above`` is this of its parent."""
        if not self.patterns:
            return ()
        return tuple(
            held or pair.regex.fullmatch(path) is not None
            for pair, held in zip(self.patterns, above, strict=True)
        )

    def leaves_out(self, matched: Sequence[bool]) -> bool:
        """Whether a path with this answer of :meth:`at` is left out."""
        for pair, held in zip(reversed(self.patterns), reversed(matched), strict=True):
            if held:
                return not pair.keeps
        return False

    @property
    def nothing(self) -> tuple[bool, ...]:
        """The answer of the root itself."""
        return (False,) * len(self.patterns)

    def may_keep_below(self, path: str) -> bool:
        """Whether a ``!`` line could bring back something below the directory ``path``."""
        parts = path.split("/")
        return any(
            all(mine == theirs for mine, theirs in zip(parts, pattern.literal, strict=False))
            for pattern in self.patterns
            if pattern.keeps
        )

    def keeps_name(self, name: str) -> bool:
        """Whether a ``!`` line has ``name`` as a part of its path."""
        return any(name in pattern.text.split("/") for pattern in self.patterns if pattern.keeps)


def docker_ignore(text: str, shown: str) -> DockerIgnore:
    """The rules of a ``.dockerignore``. ``shown`` is its name for messages. Raises ``SpecError``.

    As moby's ``ignorefile`` and ``patternmatcher`` packages read it: comments only at the very beginning of a
    line, outer spaces and outer slashes don't count, ``..`` is worked out."""
    patterns = []
    for number, line in enumerate(_lines(text, shown), start=1):
        pattern = "" if line.startswith("#") else line.strip()
        keeps = pattern.startswith("!")
        pattern = pattern[1:].strip() if keeps else pattern
        if keeps and not pattern:
            raise SpecError(f"{shown}:{number}: '!' names nothing to keep")
        if not pattern:
            continue
        pattern = "/" + posixpath.normpath(pattern).lstrip("/")
        pattern = pattern[1:] if len(pattern) > 1 else pattern
        if pattern in (".", "/"):
            continue  # Docker's rule, "for historical reasons".
        try:
            regex = re.compile(_expression(pattern))
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise SpecError(f"{shown}:{number}: the pattern {pattern!r} can't be read: {error}") from error
        patterns.append(DockerPattern(pattern, keeps, regex))
    return DockerIgnore(tuple(patterns))


def _expression(pattern: str) -> str:
    """A regular expression of whole paths, as moby's patternmatcher makes it; ``**x`` is ``**/x``, as Docker
    documents it, though some versions take it for any path that ends so."""
    if _WILD.search(pattern) is None:
        return re.escape(pattern)
    expression = ""
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "*" and pattern.startswith("*", at):
            at += 1
            at += pattern.startswith("/", at)
            expression += "(?:.*/)?" if at < len(pattern) else ".*"
        elif sign == "*":
            expression += "[^/]*"
        elif sign == "?":
            expression += "[^/]"
        elif sign == "[":
            content, at = _class(pattern, at)
            expression += content
        elif sign == "\\":
            if at == len(pattern):
                raise ValueError("it ends with '\\'")
            expression += re.escape(pattern[at])
            at += 1
        else:
            expression += re.escape(sign)
    return expression


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A character class that begins before ``at``, and where it ends (Go's ``path.Match``)."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (pattern.startswith("]", at) and ranges):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    escaped = pattern.startswith("\\", at)
    at += escaped
    if at >= len(pattern) or (not escaped and pattern[at] in "-]"):
        raise ValueError("its '[' has no end" if at >= len(pattern) else f"{pattern[at]!r} within '['")
    return pattern[at], at + 1


def git_ignore(text: str, shown: str) -> pathspec.GitIgnoreSpec:
    """The rules of a ``.gitignore`` or ``.amlignore``. A line that git couldn't use is left out and said."""
    lines = _lines(text, shown)
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError:
        pass
    good = []
    for number, line in enumerate(lines, start=1):
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except ValueError:
            _log.warning("%s:%d: no pattern, left out: %r", shown, number, line)
        else:
            good.append(line)
    return pathspec.GitIgnoreSpec.from_lines(good)


def git_leaves_out(rules: Mapping[str, GitIgnoreSpec], path: str, *, directory: bool) -> bool:
    """Whether ``path`` is left out by ``rules``, which are those of the directories above it (gitignore(5)).

    The deepest file that has an opinion decides; of a directory that is left out nothing comes back."""
    for place in sorted(rules, key=len, reverse=True):
        inner = path.removeprefix(f"{place}/") if place else path
        opinion = rules[place].check_file(f"{inner}/" if directory else inner).include
        if opinion is not None:
            return opinion
    return False


def _lines(text: str, shown: str) -> list[str]:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if len(lines) > PATTERNS:
        raise SpecError(f"{shown}: has more than {PATTERNS} lines")
    return lines
