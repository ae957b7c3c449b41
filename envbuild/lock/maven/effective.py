"""What a module is and needs at run time: its POM with its parents, properties and managed dependencies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from envbuild.errors import ResolveError
from envbuild.lock.maven.coordinate import Coordinate, Module, checked
from envbuild.lock.maven.pom import Pom, PomDependency

_PROPERTY = re.compile(r"\$\{([^${}]*)\}")
_DEEPEST = 20
"""Parents above parents, imports in imports, properties in properties."""
_LONGEST = 4096
_RUN_TIME = frozenset({"compile", "runtime"})
_JARS = {"jar": "", "bundle": "", "ejb": "", "maven-plugin": "", "eclipse-plugin": "", "test-jar": "tests"}
"""Types whose file is a jar, and the classifier each stands for."""

_Key = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A run-time dependency. ``classifier`` None: what it needs is wanted, but no jar of its own."""

    coordinate: Coordinate
    classifier: str | None = ""
    exclusions: frozenset[Module] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Effective:
    """A module's run-time needs in the order written. ``has_jar`` is False of a mere list of others."""

    coordinate: Coordinate
    has_jar: bool
    needs: tuple[Need, ...]


def effective(coordinate: Coordinate, load: Callable[[Coordinate], Pom]) -> Effective:
    """The module ``coordinate``, whose POM and those of its parents and imports come from ``load``.

    As Maven inherits: a child's word goes before its parents', an explicit entry of dependencyManagement
    before an imported one, the first import before a later one; managed entries fill what a dependency
    leaves out. They don't reach into the dependencies of dependencies, and profiles don't count. Raises
    ``ResolveError`` for a version that isn't exact, a property that isn't defined, a packaging that has no
    jar."""
    model = _PomModel(coordinate, load)
    lineage = model.lineage
    if lineage[0].relocation is not None:
        moved = lineage[0].relocation
        target = checked(
            model.filled(moved.group) or coordinate.module.group,
            model.filled(moved.artifact) or coordinate.module.artifact,
            model.filled(moved.version) or coordinate.version,
            f"the relocation of {coordinate}",
        )
        return Effective(coordinate=coordinate, has_jar=False, needs=(Need(coordinate=target),))
    packaging = model.filled(lineage[0].packaging)
    if packaging not in _JARS and packaging != "pom":
        raise ResolveError(f"{coordinate} is packaged as {packaging!r}, which is no jar")
    managed = model.managed((), {})
    dependencies = model.merged(level.dependencies for level in lineage)
    needs = [_need(coordinate, dependency, managed.get(key)) for key, dependency in dependencies.items()]
    return Effective(
        coordinate=coordinate,
        has_jar=packaging != "pom",
        needs=tuple(need for need in needs if need is not None),
    )


class _PomModel:
    """One POM with its parents."""

    def __init__(self, coordinate: Coordinate, load: Callable[[Coordinate], Pom]) -> None:
        self.coordinate = coordinate
        self.load = load
        self.lineage = self._lineage()
        self.properties = self._properties()

    def _lineage(self) -> list[Pom]:
        lineage, seen, here = [], {self.coordinate}, self.coordinate
        while True:
            pom = self.load(here)
            lineage.append(pom)
            if pom.parent is None:
                return lineage
            above = pom.parent
            here = checked(above.group, above.artifact, above.version, f"the parent of {here}")
            if here in seen or len(lineage) == _DEEPEST:
                raise ResolveError(f"{self.coordinate}: its parents are a circle, or too many")
            seen.add(here)

    def _properties(self) -> dict[str, str]:
        properties: dict[str, str] = {}
        for pom in reversed(self.lineage):
            properties |= {name: value for name, value in pom.properties.items() if len(value) <= _LONGEST}
        module = self.coordinate.module
        built_in = {
            "groupId": module.group,
            "artifactId": module.artifact,
            "version": self.coordinate.version,
        }
        parent = self.lineage[0].parent
        if parent is not None:
            built_in |= {
                "parent.groupId": parent.group,
                "parent.artifactId": parent.artifact,
                "parent.version": parent.version,
            }
        built_in["packaging"] = self.lineage[0].packaging
        for name, value in built_in.items():
            properties |= {f"project.{name}": value, f"pom.{name}": value}
        for name in ("groupId", "artifactId", "version"):
            properties.setdefault(name, built_in[name])
        return properties

    def filled(self, text: str) -> str:
        """``text`` with its properties replaced; one that isn't defined stays, for who uses it to refuse."""
        for _ in range(_DEEPEST):
            if len(text) > _LONGEST:
                break
            text_filled = _PROPERTY.sub(lambda match: self.properties.get(match[1].strip(), match[0]), text)
            if text_filled == text:
                return text_filled
            text = text_filled
        raise ResolveError(f"{self.coordinate}: its properties refer to one another without an end")

    def merged(self, levels: Iterable[tuple[PomDependency, ...]]) -> dict[_Key, PomDependency]:
        """Dependencies by what they are, filled; the nearest level's counts, and within it the last."""
        merged: dict[_Key, PomDependency] = {}
        for level in levels:
            entries = {_dependency_key(dependency): dependency for dependency in map(self._fill, level)}
            merged |= {key: entry for key, entry in entries.items() if key not in merged}
        return merged

    def managed(
        self, inside: tuple[Coordinate, ...], known: dict[Coordinate, dict[_Key, PomDependency]]
    ) -> dict[_Key, PomDependency]:
        """dependencyManagement of all levels, with what it imports behind it. ``known``: imports so far."""
        entries = self.merged(level.managed for level in self.lineage)
        imports = [entry for entry in entries.values() if entry.scope == "import"]
        managed = {key: entry for key, entry in entries.items() if entry.scope != "import"}
        for bill in imports:
            where = f"{self.coordinate} imports"
            other = checked(bill.group, bill.artifact, bill.version, where)
            if other in (*inside, self.coordinate) or len(inside) == _DEEPEST:
                raise ResolveError(f"{where} {other}, which leads back to itself")
            if other not in known:
                known[other] = _PomModel(other, self.load).managed((*inside, self.coordinate), known)
            managed = {**known[other], **managed}
        return managed

    def _fill(self, dependency: PomDependency) -> PomDependency:
        return replace(
            dependency,
            group=self.filled(dependency.group),
            artifact=self.filled(dependency.artifact),
            version=self.filled(dependency.version),
            scope=self.filled(dependency.scope),
            type=self.filled(dependency.type),
            classifier=self.filled(dependency.classifier),
            optional=self.filled(dependency.optional),
            exclusions=tuple(
                (self.filled(group), self.filled(name)) for group, name in dependency.exclusions
            ),
        )


def _dependency_key(dependency: PomDependency) -> _Key:
    kind = dependency.type or "jar"
    return dependency.group, dependency.artifact, kind, dependency.classifier or _JARS.get(kind, "")


def _need(owner: Coordinate, dependency: PomDependency, managed: PomDependency | None) -> Need | None:
    """The dependency as it counts at run time, or None where it doesn't."""
    filler = managed or PomDependency(group=dependency.group, artifact=dependency.artifact)
    scope = dependency.scope or filler.scope or "compile"
    if scope not in _RUN_TIME or (dependency.optional or filler.optional).lower() == "true":
        return None
    version = dependency.version or filler.version
    where = f"{owner} needs"
    if not version:
        raise ResolveError(
            f"{where} {dependency.group}:{dependency.artifact}, and nothing says which version"
        )
    kind = dependency.type or "jar"
    if kind not in _JARS and kind != "pom":
        raise ResolveError(
            f"{where} {dependency.group}:{dependency.artifact}:{version} of type {kind!r}, which is no jar"
        )
    classifier = _dependency_key(dependency)[3]
    if classifier:
        # It becomes part of a file's name, and has the same form as an artifact's.
        checked(dependency.group, classifier, version, where)
    return Need(
        coordinate=checked(dependency.group, dependency.artifact, version, where),
        classifier=None if kind == "pom" else classifier,
        exclusions=frozenset(
            Module(group=group or "*", artifact=name or "*")
            for group, name in (dependency.exclusions or filler.exclusions)
        ),
    )


def excluded(module: Module, exclusions: Iterable[Module]) -> bool:
    """Whether one of ``exclusions`` names ``module``."""
    return any(exclusion.excludes(module) for exclusion in exclusions)
