"""The dependency closure of a set of packages: one version of each, every relation satisfied.

Depends and Pre-Depends are followed, Recommends and Suggests are not. The choice is a function of the
indexes, the roots and the pins alone: roots by name, dependencies breadth first in the order of their
fields; of alternatives what is chosen already, then what is pinned, then the first that can be had, where a
virtual package's providers go by priority and name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from envbuild.errors import ResolveError, did_you_mean
from envbuild.lock.debian.control import DebianPackage, DebianRelation
from envbuild.lock.debian.index import DebianPackages
from envbuild.lock.debian.selection import LEFT_OUT
from envbuild.lock.debian.version import DebianVersion
from envbuild.lock.model import DebianPin

_PRIORITIES = {"required": 0, "important": 1, "standard": 2, "optional": 3}


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class RequestedPackage:
    """A package that was asked for; ``version`` is exact where the spec gives one."""

    name: str
    version: str = ""
    by_spec: bool = False

    def __str__(self) -> str:
        return f"{self.name}={self.version}" if self.version else self.name


def closure(
    packages: DebianPackages,
    roots: Iterable[RequestedPackage],
    *,
    pins: Mapping[str, DebianPin],
    unpinned: Iterable[str],
    suite: str,
) -> tuple[DebianPackage, ...]:
    """The closure of ``roots``, sorted by name.

    ``pins`` stay at their versions, also where the index has moved on, but for those named ``unpinned``
    and those that a relation can't be satisfied with; packages of one source are unpinned together, since
    they depend on each other by exact version. Raises ``ResolveError`` with every relation that nothing
    satisfies, each with the chain that leads to it."""
    ordered = sorted(set(roots))
    given_up = {sibling for name in unpinned for sibling in _siblings(packages, pins, name)}
    # Each round gives up at least one more pin, so this ends.
    while True:
        attempt = _Attempt(packages, ordered, pins, frozenset(given_up), suite)
        try:
            return attempt.run()
        except _PinCannotStay as conflict:
            given_up |= _siblings(packages, pins, conflict.name)


def _siblings(packages: DebianPackages, pins: Mapping[str, DebianPin], name: str) -> set[str]:
    """``name``, and the pinned packages that are built from the same source."""
    sources = {package.source for package in packages.versions(name)}
    return {name} | {
        pin for pin in pins if any(package.source in sources for package in packages.versions(pin))
    }


class _PinCannotStay(Exception):
    """A pin that can't stay."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Attempt:
    """One walk with a fixed set of pins."""

    def __init__(
        self,
        packages: DebianPackages,
        roots: list[RequestedPackage],
        pins: Mapping[str, DebianPin],
        given_up: frozenset[str],
        suite: str,
    ) -> None:
        self._packages = packages
        self._roots = roots
        self._pins = {name: pin for name, pin in pins.items() if name not in given_up}
        self._suite = suite
        self._requested = {root.name for root in roots}
        self._chosen: dict[str, DebianPackage] = {}
        self._parents: dict[str, str | None] = {}
        self._queue: deque[DebianPackage] = deque()
        self._problems: list[str] = []
        self._candidates: dict[str, tuple[DebianPackage, ...]] = {}

    def run(self) -> tuple[DebianPackage, ...]:
        for root in self._roots:
            self._add_root(root)
        while self._queue:
            package = self._queue.popleft()
            for group in package.depends:
                if not self._left_out(group):
                    self._depend(package, group)
        if not self._problems:
            self._check_conflicts()
        if self._problems:
            raise ResolveError(
                "\n".join(self._problems),
                hint="change base.packages of the spec, or its suite" if self._requested else None,
            )
        return tuple(self._chosen[name] for name in sorted(self._chosen))

    def _add_root(self, root: RequestedPackage) -> None:
        relation = DebianRelation(name=root.name, operator="=" if root.version else "", version=root.version)
        debian_package = self._find((relation,))
        if debian_package is not None:
            self._choose(debian_package, None)
            return
        candidates = self._packages.versions(root.name)
        if candidates:
            versions = ", ".join(dict.fromkeys(package.version for package in candidates))
            self._problems.append(f"{root} is not in Debian {self._suite}, which has {versions}")
            return
        also = did_you_mean(root.name, self._packages.close_names(root.name), most=3)
        self._problems.append(f"Debian {self._suite} has no package {root.name}{also}")

    def _depend(self, package: DebianPackage, group: tuple[DebianRelation, ...]) -> None:
        debian_package = self._find(group)
        if debian_package is not None:
            self._choose(debian_package, package.name)
            return
        alternatives = " | ".join(str(relation) for relation in group)
        has = [
            f"{relation.name} {candidate.version}"
            for relation in group
            for candidate in (self._chosen.get(relation.name), *self._packages.versions(relation.name)[:1])
            if candidate is not None
        ]
        there = f"there is {', '.join(dict.fromkeys(has))}" if has else "nothing provides it"
        self._problems.append(f"{self._chain(package.name)} needs {alternatives}, but {there}")

    def _choose(self, package: DebianPackage, parent: str | None) -> None:
        if package.name not in self._chosen:
            self._chosen[package.name] = package
            self._parents[package.name] = parent
            self._queue.append(package)

    def _find(self, group: tuple[DebianRelation, ...]) -> DebianPackage | None:
        """What satisfies one of the alternatives, best first; may give up a pin."""
        for relation in group:
            for package in self._ranked(relation):
                if package.name in self._chosen and _satisfies(self._chosen[package.name], relation):
                    return self._chosen[package.name]
        for pinned_only in (True, False):
            for relation in group:
                for package in self._ranked(relation):
                    if pinned_only and package.name not in self._pins:
                        continue
                    if package.name not in self._chosen and _satisfies(package, relation):
                        return package
        for relation in group:
            self._give_up_pin(relation)
        return None

    def _give_up_pin(self, relation: DebianRelation) -> None:
        """Raises ``_PinCannotStay`` where another version of a pinned package would do."""
        for name in (relation.name, *self._packages.providers(relation.name)):
            if name in self._pins and any(
                _satisfies(package, relation) for package in self._packages.versions(name)
            ):
                raise _PinCannotStay(name)

    def _ranked(self, relation: DebianRelation) -> Iterator[DebianPackage]:
        """What may satisfy ``relation``: the package of that name, then those that provide it."""
        yield from self._versions(relation.name)
        providers = [
            package
            for name in self._packages.providers(relation.name)
            if name != relation.name
            for package in self._versions(name)
        ]
        yield from sorted(
            providers, key=lambda provider: (_PRIORITIES.get(provider.priority, 4), provider.name)
        )

    def _versions(self, name: str) -> tuple[DebianPackage, ...]:
        """The versions of ``name`` to choose from: the pinned one alone, else all, the newest first."""
        if name not in self._candidates:
            packages = self._packages.versions(name)
            pin = self._pins.get(name)
            if pin is not None:
                self._candidates[name] = (self._pinned(pin, packages),)
            else:
                newest = sorted(packages, key=lambda package: DebianVersion(package.version), reverse=True)
                self._candidates[name] = tuple(newest)
        return self._candidates[name]

    def _pinned(self, pin: DebianPin, packages: tuple[DebianPackage, ...]) -> DebianPackage:
        for package in packages:
            if package.sha256 == pin.sha256:
                return package
        # The index has moved on. What the newer version depends on stands in for what this one does, by
        # name only and as far as the pins go: a stable suite doesn't change dependencies, but versions.
        model = packages[0] if packages else None
        depends = tuple(
            tuple(_unversioned(relation) for relation in group)
            for group in (model.depends if model else ())
            if any(
                name in self._pins
                for relation in group
                for name in (relation.name, *self._packages.providers(relation.name))
            )
        )
        return DebianPackage(
            name=pin.name,
            version=pin.version,
            architecture=pin.architecture,
            source=model.source if model else pin.name,
            archive=pin.archive,
            file=pin.file,
            size=pin.size,
            sha256=pin.sha256,
            depends=depends,
            provides=model.provides if model else (),
        )

    def _left_out(self, group: tuple[DebianRelation, ...]) -> bool:
        return any(relation.name in LEFT_OUT and relation.name not in self._requested for relation in group)

    def _check_conflicts(self) -> None:
        for package in [self._chosen[name] for name in sorted(self._chosen)]:
            for group in package.conflicts:
                for relation in group:
                    for other in self._chosen.values():
                        if other.name != package.name and _satisfies(other, relation):
                            self._conflict(package, other, relation)

    def _conflict(self, package: DebianPackage, other: DebianPackage, relation: DebianRelation) -> None:
        for name in (other.name, package.name):
            if name in self._pins and any(
                version.sha256 != self._pins[name].sha256 for version in self._packages.versions(name)
            ):
                raise _PinCannotStay(name)
        self._problems.append(
            f"{self._chain(package.name)} can't be installed beside {self._chain(other.name)}: "
            f"it conflicts with {relation}"
        )

    def _chain(self, name: str) -> str:
        """How ``name`` came in: ``curl (asked for) → libcurl4t64 → libnghttp2-14``."""
        chain = [name]
        while (parent := self._parents.get(chain[-1])) is not None:
            chain.append(parent)
        chain.reverse()
        by_spec = any(root.by_spec and root.name == chain[0] for root in self._roots)
        chain[0] += " (asked for)" if by_spec else " (in every base)"
        return " → ".join(chain)


def _satisfies(package: DebianPackage, relation: DebianRelation) -> bool:
    if relation.architecture not in ("", "any", "native", package.architecture):
        return False
    if package.name == relation.name and relation.allows(package.version):
        return True
    return package.provided(relation)


def _unversioned(relation: DebianRelation) -> DebianRelation:
    return replace(relation, operator="", version="")
