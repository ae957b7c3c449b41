"""What a resolver is. One file each, and a line of ``envbuild.lock.resolvers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from envbuild.lock.model import Base, CondaPin, Lock, MavenPin, PipPin, PlatformLock, PythonPin
from envbuild.platforms import Platform
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import BaseSpec, CondaSpec, PipSpec, SparkSpec, Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """Which pins a resolver may leave behind: all, or those of the named packages, or none."""

    everything: bool = False
    packages: frozenset[str] = frozenset()

    def allows(self, name: str) -> bool:
        return self.everything or name in self.packages


KEEP = Upgrade()


@dataclass(frozen=True, kw_only=True, slots=True)
class PipTarget:
    """What distribution files must fit."""

    platform: Platform
    python: str
    """Full version, ``3.13.5``."""
    glibc: str
    """Of the base, ``2.41``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaTarget:
    """One platform to solve for, with conda's virtual packages (name to version; ``__glibc``: ``2.41``)."""

    platform: Platform
    virtual_packages: Mapping[str, str]


class PipResolver(Protocol):
    """Turns requirements into one file per distribution."""

    name: str
    remembers: bool
    """Whether what was asked of an index once is answered offline afterwards, from a cache."""

    def version(self) -> str: ...

    def resolve(
        self,
        spec: PipSpec,
        target: PipTarget,
        *,
        preferred: Sequence[PipPin] = (),
        upgrade: Upgrade = KEEP,
        provided: Mapping[str, str] | None = None,
        as_of: date | None = None,
        offline: bool = False,
    ) -> tuple[PipPin, ...]:
        """Pins sorted by name. ``preferred`` pins are kept where the spec allows it. ``provided`` are
        distributions (normalised name to version) that conda already installs: they constrain the
        result and are left out of it. Raises ``ResolveError`` with the resolver's own reason."""


class SdistBuilder(Protocol):
    """Turns source distributions into wheels, in isolation."""

    host: Platform
    """The platform whose programs this machine runs."""

    def wheel(
        self,
        pin: PipPin,
        target: PipTarget,
        *,
        interpreter: PlatformLock,
        preferred: PipPin | None = None,
        as_of: date | None = None,
        offline: bool = False,
    ) -> PipPin:
        """The pin of the wheel that the sdist ``pin`` builds, with ``sdist`` set; ``preferred`` where that
        was built from the same file. ``interpreter`` is a lock whose python the build runs with, on this
        machine if any can; ``as_of`` bounds what the build requires. Raises ``ResolveError``: not pure
        Python, a build that fails (with the end of its output)."""


class MavenResolver(Protocol):
    """Turns Maven coordinates into jars, with all that these need at run time."""

    name: str

    def version(self) -> str: ...

    def resolve(
        self,
        spec: SparkSpec,
        *,
        preferred: Sequence[MavenPin] = (),
        upgrade: Upgrade = KEEP,
        offline: bool = False,
    ) -> tuple[MavenPin, ...]:
        """Pins sorted by name. Raises ``ResolveError``: unknown coordinates, no repository that answers."""


class CondaResolver(Protocol):
    """Turns match specs into packages, for several platforms at once."""

    name: str

    def version(self) -> str: ...

    def resolve(
        self,
        spec: CondaSpec,
        targets: Sequence[CondaTarget],
        *,
        preferred: Mapping[Platform, Sequence[CondaPin]] | None = None,
        upgrade: Upgrade = KEEP,
        as_of: date | None = None,
        offline: bool = False,
    ) -> dict[Platform, tuple[CondaPin, ...]]:
        """Pins sorted by name. Raises ``ResolveError``: unsatisfiable (with the solver's reason),
        unknown channel, unknown package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedBase:
    """A base and the python it brings, if any."""

    base: Base
    python: PythonPin | None
    prefix: tuple[str, ...] = ()
    """The first paths of what it has in the prefix, as far as it was looked into."""


class BaseResolver(Protocol):
    """Turns a base as described into a base by digest or by hashes."""

    name: str

    def accepts(self, spec: BaseSpec) -> bool: ...

    def resolve(
        self,
        spec: BaseSpec,
        platform: Platform,
        *,
        with_python: bool,
        preferred: Base | None = None,
        upgrade: Upgrade = KEEP,
        as_of: date | None = None,
        offline: bool = False,
    ) -> ResolvedBase:
        """``with_python``: the base must bring a python (no conda does). ``preferred`` is what the
        present lock says: it is kept as it is where it answers ``spec`` and ``upgrade`` doesn't
        name it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRequest:
    """What ``envbuild lock`` was asked."""

    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    as_of: date | None = None
    bytecode: bool | None = None
    """None: what the present lock says, else on."""
    dry_run: bool = False

    @property
    def resolver_upgrade(self) -> Upgrade:
        return Upgrade(everything=self.upgrade, packages=frozenset(self.upgrade_packages))


def what_stays(spec: Spec) -> tuple[str, ...]:
    """What an upgrade can't move, a sentence each: pins that the spec takes from another lock."""
    kinds = [
        *(["conda packages"] if spec.conda is not None and spec.conda.explicit else []),
        *(["Python distributions"] if spec.pip.complete else []),
    ]
    return tuple(
        f"{spec.source.name}: its {kind} are pinned there and stay; upgrade that file, then lock again"
        for kind in kinds
    )


def answers(lock: Lock, spec: Spec, request: LockRequest) -> bool:
    """Whether ``lock`` can stay exactly as it is."""
    return (
        lock.definition == definition_digest(spec)
        and not request.upgrade
        and not request.upgrade_packages
        and (request.bytecode is None or request.bytecode == lock.bytecode)
        and (request.as_of is None or request.as_of.isoformat() == lock.as_of)
    )
