"""Maven coordinates, where their files stand in a repository, and which of two versions is the later."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

from envbuild.errors import ResolveError

_GROUP = re.compile(r"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*")
_NAME = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]*")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-]*")
_NEWEST = frozenset({"LATEST", "RELEASE"})
_LONGEST = 128
_SPECIAL = {"dev": -1, "rc": 1, "final": 2}


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Module:
    """A module of any version; exclusions may have ``*`` for either part."""

    group: str
    artifact: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}"

    def excludes(self, other: Module) -> bool:
        return self.group in ("*", other.group) and self.artifact in ("*", other.artifact)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Coordinate:
    """One version of a module."""

    module: Module
    version: str

    def __str__(self) -> str:
        return f"{self.module}:{self.version}"

    def file(self, extension: str, classifier: str = "") -> str:
        """Its path below a repository's root, in the layout of Maven 2."""
        artifact, version = self.module.artifact, self.version
        end = f"-{classifier}" if classifier else ""
        folder = f"{self.module.group.replace('.', '/')}/{artifact}/{version}"
        return f"{folder}/{artifact}-{version}{end}.{extension}"


def checked(group: str, artifact: str, version: str, where: str) -> Coordinate:
    """The coordinate; raises ``ResolveError`` that says ``where`` it was written unless it is one exact,
    released version with nothing in it that isn't a name."""
    shown = f"{group}:{artifact}:{version}"[: 4 * _LONGEST]
    exact = version[1:-1] if re.fullmatch(r"\[[^\[\](),]*\]", version) else version
    if version in _NEWEST or (exact == version and re.search(r"[\[\](),]|^latest\.|\+$", version)):
        raise ResolveError(
            f"{where}: {shown!r} is no exact version, and what it stands for changes",
            hint="name one version in spark.packages",
        )
    if exact.upper().endswith("-SNAPSHOT"):
        raise ResolveError(
            f"{where}: {shown!r} is a snapshot, which is replaced as its authors go on",
            hint="name a released version in spark.packages",
        )
    parts = ((_GROUP, group), (_NAME, artifact), (_VERSION, exact))
    if any(len(part) > _LONGEST or not pattern.fullmatch(part) for pattern, part in parts):
        raise ResolveError(f"{where}: {shown!r} is no Maven coordinate")
    return Coordinate(module=Module(group=group, artifact=artifact), version=exact)


def later(one: str, other: str) -> bool:
    """Whether version ``one`` comes after ``other``, as Ivy's ``latest-revision`` strategy compares them:
    parts divided at ``._-+`` and between letters and digits; numbers by value and after words; ``dev``
    before other words, ``rc`` and ``final`` after them; a further part makes a version later if it is a
    number, else earlier. Versions that compare equal go by their text, so that there is one answer."""
    for part, other_part in zip_longest(_parts(one), _parts(other)):
        if part == other_part:
            continue
        if part is None or other_part is None:
            longer = other_part if part is None else part
            return longer.isdigit() is (other_part is None)
        if part.isdigit() and other_part.isdigit():
            if int(part) == int(other_part):
                continue
            return int(part) > int(other_part)
        if part.isdigit() or other_part.isdigit():
            return part.isdigit()
        return (_SPECIAL.get(part.lower(), 0), part) > (_SPECIAL.get(other_part.lower(), 0), other_part)
    return one > other


def _parts(version: str) -> list[str]:
    split = re.sub(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])", ".", version)
    return re.split(r"[._\-+]", split)
