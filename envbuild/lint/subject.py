"""What rules look at: a spec, its lock where there is one, the day, and the requirements taken apart once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import cached_property

from packaging.utils import canonicalize_name

from envbuild.lint.places import Places
from envbuild.lock.model import CondaPin, Lock, PipPin, PlatformLock
from envbuild.specs.match import MatchSpecText, split_match
from envbuild.specs.model import EnvironmentType, PipRequirement, Spec
from envbuild.specs.problems import Place, Refused

# The text is canonical already: name, extras, then a specifier or an address, then a marker.
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*"
    r"(?:@\s*(?P<url>\S+)|(?P<specifier>[^;@]*))\s*(?:;\s*(?P<marker>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class WantedPackage:
    """One requirement of pip, taken apart. ``specifier`` is empty where any version will do."""

    name: str
    specifier: str
    url: str | None
    marker: str
    item: PipRequirement


@dataclass(frozen=True, slots=True)
class Dependency:
    """One dependency of conda, taken apart, with its text."""

    match: MatchSpecText
    text: str


class Subject:
    """One spec as rules see it. ``lock`` is what stands beside it; None: nothing is locked yet. ``offered``
    are the names that several indexes have, with these; None: no index was asked."""

    def __init__(
        self,
        spec: Spec,
        *,
        today: date,
        lock: Lock | None = None,
        lock_problem: str | None = None,
        offered: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.offered = offered
        self.spec = spec
        self.lock = lock
        self.lock_problem = lock_problem
        self.today = today
        self.places = Places(spec)

    @property
    def installs(self) -> bool:
        """Whether envbuild decides what is installed."""
        return self.spec.type is not EnvironmentType.USER_MANAGED

    @cached_property
    def pip(self) -> tuple[WantedPackage, ...]:
        return _wanted(self.spec.pip.requirements)

    @cached_property
    def constraints(self) -> dict[str, list[WantedPackage]]:
        """By name, those that hold everywhere."""
        return _by_name(package for package in _wanted(self.spec.pip.constraints) if not package.marker)

    @cached_property
    def pip_by_name(self) -> dict[str, list[WantedPackage]]:
        return _by_name(self.pip)

    @cached_property
    def conda(self) -> tuple[Dependency, ...]:
        dependencies = []
        for text in self.spec.conda.dependencies if self.spec.conda else ():
            try:
                dependencies.append(Dependency(split_match(text), text))
            except Refused:
                # Only a spec made by a program can hold it; resolving says what is wrong with it.
                continue
        return tuple(dependencies)

    @cached_property
    def conda_by_name(self) -> dict[str, list[Dependency]]:
        by_name: dict[str, list[Dependency]] = {}
        for dependency in self.conda:
            by_name.setdefault(dependency.match.name, []).append(dependency)
        return by_name

    @cached_property
    def locked(self) -> tuple[PlatformLock, ...]:
        """The pins of every platform of the spec; empty where one of them isn't locked."""
        platform_locks = [
            self.lock.platform(platform) if self.lock else None for platform in self.spec.platforms
        ]
        pins = tuple(lock for lock in platform_locks if lock is not None)
        return pins if len(pins) == len(platform_locks) else ()

    @cached_property
    def pinned(self) -> frozenset[str]:
        """Distributions and conda packages that all platforms pin, under normalised names."""
        names = [set(_names(pins)) for pins in self.locked]
        return frozenset(set.intersection(*names)) if names else frozenset()

    @cached_property
    def versions(self) -> dict[str, frozenset[str]]:
        """The locked versions of each package over all platforms, under normalised names."""
        by_name: dict[str, set[str]] = {}
        for pins in self.locked:
            for pin in _pins(pins):
                by_name.setdefault(canonicalize_name(pin.name), set()).add(pin.version)
        return {name: frozenset(versions) for name, versions in by_name.items()}

    def at(self, wanted: WantedPackage) -> Place:
        return self.places.origin(wanted.item.origin)


def _pins(pins: PlatformLock) -> Iterator[CondaPin | PipPin]:
    yield from pins.conda
    yield from pins.pip


def _names(pins: PlatformLock) -> Iterator[str]:
    return (canonicalize_name(pin.name) for pin in _pins(pins))


def _wanted(items: Iterable[PipRequirement]) -> tuple[WantedPackage, ...]:
    wanted_packages = []
    for item in items:
        parts = _REQUIREMENT.fullmatch(item.text)
        if parts is not None:
            specifier = (parts["specifier"] or "").strip().strip("()")
            name = canonicalize_name(parts["name"])
            wanted_packages.append(
                WantedPackage(name, specifier, parts["url"], (parts["marker"] or "").strip(), item)
            )
    return tuple(wanted_packages)


def _by_name(items: Iterable[WantedPackage]) -> dict[str, list[WantedPackage]]:
    by_name: dict[str, list[WantedPackage]] = {}
    for item in items:
        by_name.setdefault(item.name, []).append(item)
    return by_name


class Severity(str, Enum):
    """How sure it is that something is wrong, and how much it costs."""

    ERROR = "error"
    """Surely wrong: it can't be resolved, or it gives something away."""
    WARNING = "warning"
    """Works today, and is likely to hurt."""
    INFO = "info"
    """Good to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """What one rule has to say. No value of a credential is ever in it."""

    message: str
    where: Place
    """Its file is relative to the spec's directory."""
    hint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A doubt with the code and the severity of the rule that had it."""

    code: str
    severity: Severity
    message: str
    where: Place
    hint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One check under a code that never gets another meaning (``docs/lint.md`` has a section on each)."""

    code: str
    severity: Severity
    title: str
    check: Callable[[Subject], Iterable[Doubt]]
