"""The curated environments: what they are, what they hold, and what a newer lock of them would change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuild.lock.diff import PinChange
from envbuild.lock.model import CondaPin, DebianBase, DebianPin, Lock, MavenPin, PipPin, PlatformLock
from envbuild.platforms import Platform

_SPEC_NAMES = ("envbuild.yaml", "envbuild.yml")


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
        return tuple(each.platform for each in self.lock.platforms)


def curated_environments() -> tuple[CuratedEnvironment, ...]:
    """All of them, sorted by name. Raises ``LockError`` where one's lock is damaged."""
    from envbuild.spec.catalogue import curated_names

    return tuple(curated_environment(name) for name in curated_names())


def curated_environment(name: str) -> CuratedEnvironment:
    """The one of that name. Raises ``WorkspaceError`` with the nearest names where there is none."""
    from difflib import get_close_matches

    from envbuild.errors import LockError, WorkspaceError
    from envbuild.lock.files import read_lock
    from envbuild.spec.catalogue import curated_names, curated_spec
    from envbuild.spec.load import load_spec

    path = curated_spec(name)
    if path is None:
        names = curated_names()
        near = get_close_matches(name, names, n=3) or names
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
    known = {sha256 for each in (before.platforms if before else ()) for sha256, _ in _sizes(each)}
    new = {sha256: size for each in after.platforms for sha256, size in _sizes(each)}
    return sum(size for sha256, size in new.items() if sha256 not in known)


def _sizes(pins: PlatformLock) -> Iterable[tuple[str, int]]:
    debian = pins.base.packages if isinstance(pins.base, DebianBase) else ()
    kinds: tuple[Iterable[DebianPin | CondaPin | PipPin | MavenPin], ...] = (
        *(debian, pins.conda, pins.pip, pins.maven),
    )
    for kind in kinds:
        for each in kind:
            yield each.sha256, each.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
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
    their own (curated ones), and those with a ``lockfiles`` directory beside them."""
    found = set()
    for lock in directory.rglob("envbuild.lock"):
        own = [lock.parent / name for name in _SPEC_NAMES if (lock.parent / name).is_file()]
        if own:
            found.add(own[0])
        elif lock.parent.parent.name == "lockfiles":
            found.add(lock.parent.parent.parent)
    return tuple(sorted(found))
