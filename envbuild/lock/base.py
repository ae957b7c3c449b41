"""What a resolver is. One file each, and a line of ``envbuild.lock.resolvers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from typing import Literal, Protocol

from envbuild.lock.model import Base, CondaPin, Lock, MavenPin, PipPin, PlatformLock, PythonPin
from envbuild.platforms import Platform
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import BaseSpec, BuildDependencies, CondaSpec, PipSpec, SparkSpec, Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """Which pins a resolver may leave behind: all, or those of the named packages, or none."""

    everything: bool = False
    packages: frozenset[str] = frozenset()

    def allows(self, name: str) -> bool:
        return self.everything or name in self.packages


KEEP = Upgrade()


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolveRequest:
    """What every resolver is asked besides its own: what it may change, and where it may look."""

    upgrade: Upgrade = KEEP
    as_of: date | None = None
    """Nothing newer than this day is taken."""
    offline: bool = False


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PipRequest(ResolveRequest):
    """The distributions wanted for one target. ``preferred`` pins are kept where the spec allows it.

    ``provided`` are distributions (name to version) that conda already installs: they constrain the result
    and are left out of it."""

    spec: PipSpec
    target: PipTarget
    preferred: Sequence[PipPin] = ()
    provided: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> list[PipPin]:
        """The preferred pins that no upgrade names."""
        return [pin for pin in self.preferred if not self.upgrade.allows(pin.name)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SdistRequest(ResolveRequest):
    """The wheel wanted of the sdist ``pin``; ``as_of`` bounds what its build requires."""

    pin: PipPin
    target: PipTarget
    interpreter: PlatformLock
    """A lock whose python the build runs with, on this machine if any can."""
    preferred: PipPin | None = None
    build: BuildDependencies = field(default_factory=BuildDependencies)


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaRequest(ResolveRequest):
    """The packages wanted for several platforms at once, and the pins to prefer of each."""

    spec: CondaSpec
    targets: Sequence[CondaTarget]
    preferred: Mapping[Platform, Sequence[CondaPin]] = field(default_factory=dict)

    @property
    def before(self) -> datetime | None:
        """The last moment of ``as_of`` (UTC), by which a package must have been made."""
        if self.as_of is None:
            return None
        midnight = datetime.combine(self.as_of + timedelta(days=1), time.min, tzinfo=timezone.utc)
        return midnight - timedelta(milliseconds=1)

    def kept(self, platform: Platform) -> list[CondaPin]:
        """The preferred pins that no upgrade names and that ``as_of`` still allows."""
        limit = self.before.timestamp() * 1000 if self.before is not None else None
        return [
            pin
            for pin in self.preferred.get(platform, ())
            if not self.upgrade.allows(pin.name)
            and (limit is None or (pin.timestamp is not None and pin.timestamp <= limit))
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class MavenRequest(ResolveRequest):
    """The jars wanted. Versions are exact, so there is nothing for ``as_of`` to leave out."""

    spec: SparkSpec
    preferred: Sequence[MavenPin] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseRequest(ResolveRequest):
    """The base wanted for one platform.

    ``with_python``: it must bring a python (no conda does). ``preferred`` is what the present lock says: it
    is kept as it is where it answers ``spec`` and ``upgrade`` doesn't name it."""

    spec: BaseSpec
    platform: Platform
    with_python: bool
    python_optional: bool = False
    """A base without a python will do: another is put on it."""
    preferred: Base | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonRequest(ResolveRequest):
    """The standalone python wanted, of one version for all platforms, and the pins to prefer."""

    wanted: str | None
    """As a spec has it; None: any."""
    platforms: Sequence[Platform]
    preferred: Mapping[Platform, PythonPin] = field(default_factory=dict)


class PipResolver(Protocol):
    """Turns requirements into one file per distribution."""

    name: str
    remembers: bool
    """Whether what was asked of an index once is answered offline afterwards, from a cache."""

    def version(self) -> str: ...

    def resolve(self, request: PipRequest) -> tuple[PipPin, ...]:
        """Pins sorted by name. Raises ``ResolveError`` with the resolver's own reason."""


class SdistBuilder(Protocol):
    """Turns source distributions into wheels, in isolation."""

    host: Platform
    """The platform whose programs this machine runs."""

    def wheel(self, request: SdistRequest) -> PipPin:
        """The pin of the wheel that the sdist builds, with ``sdist`` set; ``preferred`` where that was built
        from the same file. Raises ``ResolveError``: not pure Python, a build that fails (with the end of its
        output)."""


class MavenResolver(Protocol):
    """Turns Maven coordinates into jars, with all that these need at run time."""

    name: str

    def version(self) -> str: ...

    def resolve(self, request: MavenRequest) -> tuple[MavenPin, ...]:
        """Pins sorted by name. Raises ``ResolveError``: unknown coordinates, no repository that answers."""


class CondaResolver(Protocol):
    """Turns match specs into packages, for several platforms at once."""

    name: str

    def version(self) -> str: ...

    def channels(self, spec: CondaSpec) -> tuple[str, ...]:
        """The addresses of the channels that ``spec`` is resolved from, in order of priority."""

    def resolve(self, request: CondaRequest) -> dict[Platform, tuple[CondaPin, ...]]:
        """Pins sorted by name. Raises ``ResolveError``: unsatisfiable (with the solver's reason),
        unknown channel, unknown package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedBase:
    """A base and the python it brings, if any."""

    base: Base
    python: PythonPin | None
    prefix: tuple[str, ...] = ()
    """The first paths of what it has in the prefix, as far as it was looked into."""


class PythonResolver(Protocol):
    """Turns the python that a spec asks for into a build that stands on no system."""

    name: str

    def resolve(self, request: PythonRequest) -> dict[Platform, PythonPin]:
        """Raises ``ResolveError``: no such python, a list that can't be read, an archive that isn't there."""


class BaseResolver(Protocol):
    """Turns a base as described into a base by digest or by hashes."""

    name: str

    def accepts(self, spec: BaseSpec) -> bool: ...

    def resolve(self, request: BaseRequest) -> ResolvedBase:
        """Raises ``ResolveError``: no such base, none for the platform, none with the python wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRequest:
    """What ``envbuild lock`` was asked."""

    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    as_of: date | Literal["none"] | None = None
    """None: what an earlier request said, else the spec; ``none`` takes an earlier one back."""
    bytecode: bool | None = None
    """None: what the present lock says, else on."""
    dry_run: bool = False

    @property
    def resolver_upgrade(self) -> Upgrade:
        return Upgrade(everything=self.upgrade, packages=frozenset(self.upgrade_packages))

    def bound(self, spec: Spec, present: Lock | None) -> tuple[date | None, bool]:
        """The day that bounds a resolution, and whether it was asked for beside the spec."""
        if isinstance(self.as_of, date):
            return self.as_of, True
        if self.as_of is None and present is not None and present.as_of_kept and present.as_of:
            return date.fromisoformat(present.as_of), True
        return spec.as_of, False


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
        and (request.as_of is None or _is_bound(lock, request.bound(spec, lock)))
    )


def _is_bound(lock: Lock, bound: tuple[date | None, bool]) -> bool:
    day, kept = bound
    return (lock.as_of, lock.as_of_kept) == (day.isoformat() if day else None, kept)
