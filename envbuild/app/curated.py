"""The curated environments: what they are, what they hold, and what a newer lock of them would change."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.errors import EnvbuildError, LockError, WorkspaceError, nearest
from envbuild.lock.diff import PinChange
from envbuild.lock.files import read_lock
from envbuild.lock.model import Lock, PlatformLock
from envbuild.platforms import Platform
from envbuild.resources import curated_names, curated_spec
from envbuild.specs.load import NAMES, load_spec, markers
from envbuild.specs.model import BuildContextSpec
from envbuild.specs.plugins import other_importers

_SPEC_NAMES = ("envbuild.yaml", "envbuild.yml")
_LOCK_NAME = "envbuild.lock"
_NO_SPECS = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Directories of what was installed or made."""
_MAY_BE_NONE = frozenset(
    {"Containerfile", "Dockerfile", "MLmodel", "inferenceconfig.json", "pyproject.toml", "uv.lock"}
)
"""Files that a directory can be locked by, and that mostly are there for something else."""
_MAY_HOLD_NONE = frozenset({"doc", "docs", "fixtures", "test", "testdata", "tests"})
"""Directories whose specs mostly are for the project's own use, or examples of specs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CuratedEnvironment:
    """One curated environment and its lock."""

    name: str
    description: str
    spec: Path
    python: str
    """The interpreter's full version, of the first platform."""
    lock: Lock

    @property
    def platforms(self) -> tuple[Platform, ...]:
        return tuple(pins.platform for pins in self.lock.platforms)


def curated_environments() -> tuple[CuratedEnvironment, ...]:
    """All of them, sorted by name. Raises ``LockError`` where one's lock is damaged."""
    return tuple(curated_environment(name) for name in curated_names())


def curated_environment(name: str) -> CuratedEnvironment:
    """The one of that name. Raises ``WorkspaceError`` with the nearest names where there is none."""

    path = curated_spec(name)
    if path is None:
        names = curated_names()
        near = nearest(name, names, most=3) or names
        raise WorkspaceError(f"no curated environment {name!r}", hint=f"there are {', '.join(near)}")
    spec = load_spec(path)
    lock = read_lock(path.parent)
    if lock is None:
        raise LockError(f"{path.parent}: the lock is missing", hint="install envbuild again")
    python = lock.platforms[0].python
    return CuratedEnvironment(
        name=spec.name,
        description=spec.description or "",
        spec=path,
        python=python.version if python else "",
        lock=lock,
    )


def pins_size(pins: PlatformLock) -> int:
    """The bytes of all files that the lock of one platform pins, as they are downloaded."""
    return sum(size for _, size in _sizes(pins))


def moved_bytes(before: Lock | None, after: Lock) -> int:
    """The bytes of ``after``'s files that ``before`` doesn't pin, each counted once: what an upgrade makes
    every machine download."""
    known = {sha256 for platform in (before.platforms if before else ()) for sha256, _ in _sizes(platform)}
    new = {sha256: size for platform in after.platforms for sha256, size in _sizes(platform)}
    return sum(size for sha256, size in new.items() if sha256 not in known)


def _sizes(pins: PlatformLock) -> Iterable[tuple[str, int]]:
    for pin in pins.files:
        yield pin.sha256, pin.size


@dataclass(frozen=True, kw_only=True, slots=True)
class LockUpgrade:
    """What a newer lock of one environment would change."""

    spec: Path
    name: str
    changes: Sequence[PinChange]
    moved: int
    """Bytes that would have to be downloaded."""
    error: str | None = None
    """Why it could not be resolved."""


def locked_specs(directory: Path) -> tuple[Path, ...]:
    """The specs below ``directory`` that have a lock, sorted: those of a ``lockfiles`` directory that hold
    their own (curated ones), and those with a ``lockfiles`` directory beside them. What is installed in an
    environment is none of them."""
    specs = set()
    for here, entries in _walk(directory, hidden=True):
        if _LOCK_NAME not in entries:
            continue
        own = [here / name for name in _SPEC_NAMES if name in entries]
        if own:
            specs.add(own[0])
        elif here.parent.name == "lockfiles":
            specs.add(here.parent.parent)
    return tuple(sorted(specs))


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlockedSpecs:
    """What below a directory has no lock beside it, sorted."""

    specs: tuple[Path, ...]
    """The directories of specs."""
    doubtful: tuple[Path, ...]
    """Files that may be specs: they are of a format of specs, and often are no environment to be locked."""


def unlocked_specs(directory: Path, locked: Sequence[Path]) -> UnlockedSpecs:
    """The specs below ``directory`` that aren't among the ``locked`` ones: what :func:`load_spec` would take
    in each directory. Installed environments, hidden directories, locks, and files that belong to another
    spec (a file it names, its build context) are none."""
    known = {path if path.is_dir() else path.parent for path in locked}
    names = (*NAMES, *markers(tuple(other_importers())))
    candidates = [candidate for candidate in _candidates(directory, names) if candidate.parent not in known]
    if not candidates:
        return UnlockedSpecs(specs=(), doubtful=())
    sure = {path for path in candidates if not _is_doubtful(path, directory)}
    parts = _Parts()
    for place in (*locked, *sorted(path.parent for path in sure)):
        parts.learn(place)
    own = [path for path in candidates if path.name in _SPEC_NAMES or not parts.has(path)]
    return UnlockedSpecs(
        specs=tuple(sorted(path.parent for path in own if path in sure)),
        doubtful=tuple(sorted(path for path in own if path not in sure)),
    )


def _candidates(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """The marker of each directory at and below ``directory`` that has one of ``names``."""
    for here, entries in _walk(directory, hidden=False):
        # A lock directory has files of other formats, which say what is locked.
        of_locks = here.parent.name == "lockfiles" or _LOCK_NAME in entries
        marker = next((name for name in (_SPEC_NAMES if of_locks else names) if name in entries), None)
        if marker is not None:
            yield here / marker


def _walk(directory: Path, *, hidden: bool) -> Iterator[tuple[Path, frozenset[str]]]:
    """``directory`` and those below it but installed environments, each with the names of what it has; a
    directory's name ends with a slash."""
    for place, directories, files in os.walk(directory):
        entries = frozenset((*files, *(f"{name}/" for name in directories)))
        if not entries.isdisjoint({"pyvenv.cfg", "conda-meta/"}):
            directories.clear()
            continue
        directories[:] = sorted(
            name for name in directories if name not in _NO_SPECS and (hidden or not name.startswith("."))
        )
        yield Path(place), entries


def _is_doubtful(marker: Path, directory: Path) -> bool:
    above = marker.relative_to(directory).parts[:-1]
    return marker.name in _MAY_BE_NONE or not _MAY_HOLD_NONE.isdisjoint(above)


@dataclass(slots=True)
class _Parts:
    """The files that specs are made of, each with the directories of the specs that read it."""

    _files: dict[Path, set[Path]] = field(default_factory=dict)
    _contexts: list[tuple[Path, Path]] = field(default_factory=list)

    def learn(self, place: Path) -> None:
        """Looks at the spec at ``place``; one that can't be read has no parts."""
        reads: dict[Path, str] = {}
        here = _plain(place if place.is_dir() else place.parent)
        try:
            spec = load_spec(place, reads=reads)
        except EnvbuildError:
            spec = None
        for file in reads:
            self._files.setdefault(file, set()).add(here)
        if spec is not None and isinstance(spec.base, BuildContextSpec):
            self._contexts.append((_plain(spec.directory / spec.base.path), here))

    def has(self, marker: Path) -> bool:
        """Whether the file is a part of a spec in another directory."""
        file, here = _plain(marker), _plain(marker.parent)
        inside = any(file.is_relative_to(context) and here != spec for context, spec in self._contexts)
        others: Collection[Path] = self._files.get(file, set()) - {here}
        return inside or bool(others)


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))
