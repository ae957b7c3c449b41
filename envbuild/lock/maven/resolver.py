"""Spark's packages as jars: the closure of coordinates over the POMs of Maven repositories.

The answer is what Spark's own ``--packages`` would bring: it uses Ivy, follows compile and runtime
dependencies that aren't optional, leaves out what is excluded on every way to it, and of several versions
takes the latest (``latest-revision``, Ivy's default conflict manager: ant.apache.org/ivy, settings,
"conflict-managers"); a direct dependency has no precedence. It differs in three ways. Only exact, released
versions are taken, because a lock is of one. What Spark itself ships isn't left out unless a POM's scope
says so: well-made POMs say ``provided``, and a jar of the same name and bytes is one file in the image.
And dependencyManagement doesn't reach into the dependencies of dependencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from envbuild.errors import ResolveError
from envbuild.http.base import Fetcher
from envbuild.lock.base import MavenRequest
from envbuild.lock.maven.coordinate import Coordinate, Module, checked, later
from envbuild.lock.maven.effective import Effective, Need, effective, excluded
from envbuild.lock.maven.repository import Jar, Repositories
from envbuild.lock.model import MavenPin
from envbuild.store.content import Store

_ROUNDS = 100
_PARALLEL = 8


class PomResolver:
    """A :class:`envbuild.lock.base.MavenResolver` that reads POMs itself: no Java, no Maven, no Ivy.

    ``repository`` is asked after those of the spec. A version is exact, so what is asked for decides the
    pins; a pin of the same file keeps its hash, and its jar isn't read again, unless it is to be upgraded."""

    name = "maven"

    def __init__(self, fetcher: Fetcher, store: Store, repository: str) -> None:
        self._fetcher = fetcher
        self._store = store
        self._repository = repository

    def version(self) -> str:
        return "1"

    def resolve(self, request: MavenRequest) -> tuple[MavenPin, ...]:
        """See the protocol. ``offline`` answers from the POMs that were read before, and from the store."""
        roots = [
            checked(package.group, package.artifact, package.version, "spark.packages")
            for package in request.spec.packages
        ]
        addresses = (*request.spec.repositories, self._repository)
        repositories = Repositories(self._fetcher, self._store, addresses, offline=request.offline)
        jars = _Closure(repositories).jars(roots)
        _refuse_shared_names(jars)
        kept = {
            pin.file: pin
            for pin in request.preferred
            if not request.upgrade.allows(pin.name) and not request.upgrade.allows(pin.artifact)
        }
        fetched = repositories.jars([jar for jar in jars if jar.file not in kept])
        pins = [kept[jar.file] for jar in jars if jar.file in kept]
        pins += [
            MavenPin(
                group=jar.coordinate.module.group,
                artifact=jar.coordinate.module.artifact,
                version=jar.coordinate.version,
                file=jar.file,
                size=size,
                sha256=sha256,
            )
            for jar, (sha256, size) in fetched.items()
        ]
        return tuple(sorted(pins))


@dataclass(kw_only=True)
class _Walk:
    """What one walk over the modules met."""

    requested: dict[Module, set[str]] = field(default_factory=dict)
    wanted: dict[Coordinate, set[str]] = field(default_factory=dict)
    """Classifiers of the jars wanted of each module."""
    visited: dict[Coordinate, list[frozenset[Module]]] = field(default_factory=dict)
    """The exclusions each was visited under."""

    def enters(self, coordinate: Coordinate, exclusions: frozenset[Module]) -> bool:
        """Whether a visit under ``exclusions`` may find more than those before."""
        before = self.visited.setdefault(coordinate, [])
        if any(earlier <= exclusions for earlier in before):
            return False
        before.append(exclusions)
        return True


class _Closure:
    """Walks from the roots until the versions chosen are the latest of those that the chosen ones ask for."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._known: dict[Coordinate, Effective] = {}
        self._came: dict[Coordinate, Coordinate] = {}

    def jars(self, roots: Sequence[Coordinate]) -> list[Jar]:
        """The jars of the closure, sorted."""
        chosen: dict[Module, str] = {}
        before: list[dict[Module, str]] = []
        rising = False
        for _ in range(_ROUNDS):
            walk = self._walk(roots, chosen)
            jars = {module: _latest(versions) for module, versions in walk.requested.items()}
            if jars == chosen:
                return sorted(self._jars(walk))
            # Two choices that rule each other out: from here on versions only rise, so this ends.
            rising = rising or jars in before
            if rising:
                jars = {
                    module: _latest({version, chosen.get(module, version)})
                    for module, version in {**chosen, **jars}.items()
                }
                if jars == chosen:
                    return sorted(self._jars(walk))
            before.append(jars)
            chosen = jars
        raise ResolveError("the versions that Spark's packages ask for have no stable choice")

    def _walk(self, roots: Iterable[Coordinate], chosen: Mapping[Module, str]) -> _Walk:
        """Breadth first, one level's POMs side by side. A module without a choice is walked in every version
        that is asked for, so that no order matters."""
        walk = _Walk()
        level: list[tuple[Coordinate | None, Need, frozenset[Module]]] = [
            (None, Need(coordinate=root), frozenset()) for root in sorted(set(roots))
        ]
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="maven") as pool:
            while level:
                entered: list[tuple[Coordinate, frozenset[Module]]] = []
                for owner, need, exclusions in level:
                    asked = need.coordinate
                    walk.requested.setdefault(asked.module, set()).add(asked.version)
                    selected = Coordinate(
                        module=asked.module, version=chosen.get(asked.module, asked.version)
                    )
                    wanted = walk.wanted.setdefault(selected, set())
                    if need.classifier is not None:
                        wanted.add(need.classifier)
                    if owner is not None:
                        self._came.setdefault(selected, owner)
                    below = exclusions | need.exclusions
                    if walk.enters(selected, below):
                        entered.append((selected, below))
                self._load(pool, {coordinate for coordinate, _ in entered})
                level = [
                    (coordinate, need, below)
                    for coordinate, below in entered
                    for need in self._known[coordinate].needs
                    if not excluded(need.coordinate.module, below)
                ]
        return walk

    def _load(self, pool: ThreadPoolExecutor, coordinates: Iterable[Coordinate]) -> None:
        missing = sorted(coordinate for coordinate in set(coordinates) if coordinate not in self._known)
        jobs = {
            coordinate: pool.submit(effective, coordinate, self._repositories.pom) for coordinate in missing
        }
        for coordinate, job in jobs.items():
            try:
                self._known[coordinate] = job.result()
            except ResolveError as error:
                for other in jobs.values():
                    other.cancel()
                chain = self._chain(coordinate)
                raise ResolveError(f"{error.message}{chain}", hint=error.hint) from error

    def _chain(self, coordinate: Coordinate) -> str:
        """How a module came in, where nobody asked for it."""
        chain = [coordinate]
        while chain[-1] in self._came and self._came[chain[-1]] not in chain:
            chain.append(self._came[chain[-1]])
        if len(chain) == 1:
            return ""
        return f"\n(it came in by {' → '.join(map(str, reversed(chain)))})"

    def _jars(self, walk: _Walk) -> Iterable[Jar]:
        for coordinate, classifiers in walk.wanted.items():
            for classifier in classifiers:
                if classifier or self._known[coordinate].has_jar:
                    yield Jar(coordinate=coordinate, file=coordinate.file("jar", classifier))


def _latest(versions: Iterable[str]) -> str:
    ordered = sorted(versions)
    best = ordered[0]
    for version in ordered[1:]:
        if later(version, best):
            best = version
    return best


def _refuse_shared_names(jars: Sequence[Jar]) -> None:
    """All jars stand in one directory of the image."""
    names: dict[str, Jar] = {}
    for jar in jars:
        other = names.setdefault(jar.file.rpartition("/")[2], jar)
        if other is not jar:
            raise ResolveError(
                f"{other.coordinate} and {jar.coordinate} have jars of one name, "
                f"{jar.file.rpartition('/')[2]}, and Spark keeps its jars in one directory",
                hint="leave one of the packages that need them out",
            )
