"""``poetry.lock``: what a project's lock pins, as it is, without a resolution.

Since Poetry 2 a lock says of each package which groups and markers need it. Before, the ``pyproject.toml``
beside it says where its graph begins. Extras and groups count where they are named behind ``#``
(``poetry.lock#plot,group:dev``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from envbuild.errors import SpecError
from envbuild.specs import fields
from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.locked import (
    all_there_is,
    direct,
    image_platforms,
    index_address,
    pinned,
)
from envbuild.specs.importers.pip.marker_range import Case, Cases, reachable
from envbuild.specs.importers.pip.pylock import python_wanted, selected
from envbuild.specs.importers.pip.pyproject import PyprojectImporter
from envbuild.specs.importers.poetry.constraint import python_specifier, specifier
from envbuild.specs.model import Origin, PipRequirement, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import parse_toml
from envbuild.specs.text.yaml import LOCK_LIMIT

_FORMATS = ("1", "2")
_DAMAGED = "lock again: the file is damaged"
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']*)["']""")
_DEFAULT = "the default index"


class PoetryLockImporter:
    """Reads ``poetry.lock``."""

    name = "poetry-lock"
    markers: tuple[str, ...] = ("poetry.lock",)
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "poetry.lock"

    def load(self, file: SourceFile) -> Spec:
        data = parse_toml(file.read(LOCK_LIMIT), file.shown)
        metadata = data.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        version = metadata.get("lock-version", "1.0")
        if not isinstance(version, str) or version.partition(".")[0] not in _FORMATS:
            raise SpecError(
                f"{file.shown}: has format version {str(version)[:40]}; read are 1 and 2",
                hint="lock again with a Poetry that writes one of these",
            )
        problems = Problems()
        try:
            spec = _PoetryLockReader(file, problems, data, metadata).spec()
        except Refused as refused:
            problems.add(Place(file=file.shown), refused.what, refused.remedy)
            problems.raise_if_any()
            raise
        problems.raise_if_any()
        return spec


@dataclass(frozen=True, slots=True)
class _LockedPackage:
    """One ``[[package]]`` and its place in the list."""

    index: int
    name: str
    version: str
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"package[{self.index}]: {self.name}"


@dataclass(slots=True)
class _PoetryLockReader:
    file: SourceFile
    problems: Problems
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    packages: list[_LockedPackage] = field(default_factory=list)
    registries: dict[str, bool] = field(default_factory=dict)

    def spec(self) -> Spec:
        entries = self.data.get("package", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Refused("package must be a list of tables", _DAMAGED)
        self.packages = [self._entry(index, entry) for index, entry in enumerate(entries)]
        project = self._project()
        extras, groups = selected(self.file.fragment)
        requires, python = self._python()
        if all("groups" in package.data for package in self.packages) and self.packages:
            known = {group for package in self.packages for group in _texts(package.data, "groups")}
            missing = sorted(groups - {canonicalize_name(group) for group in known})
            if missing and project is None:
                raise Refused(f"#group:{missing[0]}: no package is of that group", f"it has: {_list(known)}")
            chosen = {"main", *groups}
            markers = {package.index: list(_conditions(package, chosen)) for package in self.packages}
            cases = Cases(
                requires, [text for texts in markers.values() for text in texts], active=sorted(extras)
            )
            reached = {
                index: {case for case in cases.all for text in texts if cases.holds(text, case)}
                for index, texts in markers.items()
            }
        else:
            reached, cases = self._walk(project, requires)
        requirements: list[PipRequirement] = []
        for index, held in sorted(reached.items()):
            if held:
                try:
                    requirements.append(self._requirement(self.packages[index], cases.marker(held)))
                except Refused as refused:
                    key = self.packages[index].key
                    self.problems.add(Place(file=self.file.shown, key=key), refused.what, refused.remedy)
        place = self.file.path.name
        told = [line for line in (project.left_out if project else ()) if "choose them with" in line]
        left_out = (*told, f"{place}: the project itself")
        return Spec(
            name=project.name if project else fields.fit_name(self.file.path.parent.name),
            source=self.file.path,
            platforms=image_platforms(cases.platforms),
            python=python,
            pip=all_there_is(requirements, self.registries, ()),
            left_out=left_out,
            unrelated=left_out,
        )

    def _entry(self, index: int, table: Mapping[str, Any]) -> _LockedPackage:
        name, version = table.get("name"), table.get("version")
        if not isinstance(name, str) or not isinstance(version, str):
            raise Refused(f"package[{index}]: has no name or no version", _DAMAGED)
        return _LockedPackage(index, canonicalize_name(name), version, table)

    def _project(self) -> Spec | None:
        """The project whose lock it is, with the same parts chosen; None where there is none beside it."""
        beside = self.file.beside("pyproject.toml")
        if not beside.is_there():
            return None
        file = SourceFile(beside.path, beside.shown, beside.reads, self.file.fragment)
        return PyprojectImporter().load(file)

    def _python(self) -> tuple[str | None, str | None]:
        """``requires-python`` as a specifier, where it is one range, and what a spec asks for."""
        written = self.metadata.get("python-versions")
        if not isinstance(written, str):
            return None, None
        try:
            requires: str | None = specifier(written)
        except Refused:
            requires = None
        return requires, python_wanted(requires or python_specifier(written).replace("*", "") or None)

    def _walk(self, project: Spec | None, requires: str | None) -> tuple[dict[int, set[Case]], Cases]:
        """The packages that the project's requirements lead to, each with the images that need it."""
        if project is None:
            raise Refused(
                "doesn't say what its packages are for, and there is no pyproject.toml beside it that does",
                "put the project's pyproject.toml beside it, or lock again with Poetry 2",
            )
        by_name: dict[str, list[_LockedPackage]] = {}
        for package in self.packages:
            by_name.setdefault(package.name, []).append(package)
        graph: dict[str, list[tuple[str, str | None]]] = {}
        for package in self.packages:
            for extra, name, entry in _dependencies(package):
                node = f"{package.index}[{extra}]" if extra else f"{package.index}"
                version = str(entry.get("version", "*"))
                targets = self._targets(package.key, name, version, by_name, optional=bool(extra))
                marker = entry.get("markers")
                condition = _without_extra(marker, extra) if isinstance(marker, str) else None
                for target in targets:
                    edges = graph.setdefault(node, [])
                    edges.append((f"{target.index}", condition))
                    edges += [
                        (f"{target.index}[{canonicalize_name(wanted)}]", condition)
                        for wanted in _texts(entry, "extras")
                    ]
        roots: list[tuple[str, str | None]] = []
        for line in project.pip.requirements:
            requirement = Requirement(line.text)
            condition = str(requirement.marker) if requirement.marker else None
            targets = self._targets(
                "the project", requirement.name, str(requirement.specifier) or "*", by_name, optional=False
            )
            for target in targets:
                roots.append((f"{target.index}", condition))
                roots += [
                    (f"{target.index}[{canonicalize_name(extra)}]", condition) for extra in requirement.extras
                ]
        graph["root"] = roots
        markers = [text for edges in graph.values() for _, text in edges if text]
        cases = Cases(requires, markers)
        reached: dict[int, set[Case]] = {}
        for node, held in reachable(["root"], lambda node: graph.get(node, ()), cases).items():
            if node != "root":
                reached.setdefault(int(node.partition("[")[0]), set()).update(held)
        return reached, cases

    def _targets(
        self,
        key: str,
        name: str,
        constraint: str,
        by_name: Mapping[str, list[_LockedPackage]],
        *,
        optional: bool,
    ) -> list[_LockedPackage]:
        """The package that a dependency means: by name, and by its constraint where there are several."""
        candidates = by_name.get(canonicalize_name(name), [])
        if len(candidates) > 1:
            allowed = SpecifierSet(specifier(constraint))
            candidates = [entry for entry in candidates if allowed.contains(entry.version, prereleases=True)]
        if len(candidates) != 1 and not (optional and not candidates):
            raise Refused(
                f"{key}: {len(candidates)} packages answer its dependency {name[:80]!r}",
                "lock again: the lock isn't that of this project",
            )
        return candidates

    def _requirement(self, package: _LockedPackage, marker: str) -> PipRequirement:
        origin = Origin(file=self.file.path.name, where=package.key)
        hashes = list(self._hashes(package))
        source = package.data.get("source", {})
        if not isinstance(source, dict):
            raise Refused("source must be a table", _DAMAGED)
        kind, url = source.get("type", "legacy"), source.get("url")
        if kind == "legacy":
            if not hashes:
                raise Refused("has no file with a hash", _DAMAGED)
            index = index_address(url) if isinstance(url, str) else _DEFAULT
            self.registries.setdefault(index, index == _DEFAULT)
            return pinned(package.name, package.version, hashes, origin, marker=marker)
        if not isinstance(url, str):
            raise Refused("its source has no url", _DAMAGED)
        directory = source.get("subdirectory")
        directory = directory if isinstance(directory, str) else ""
        if kind == "git":
            revision = source.get("resolved_reference") or source.get("reference")
            address = git_address(url, revision=revision, subdirectory=directory)
        elif kind not in ("url", "file", "directory"):
            raise Refused(f"its source {str(kind)[:80]!r} isn't known", "known: url, file, directory, git")
        else:
            address = url + (f"#subdirectory={directory}" if directory else "")
        where = self.file.path.parent
        return direct(package.name, address, hashes, origin, where, marker=marker)

    def _hashes(self, package: _LockedPackage) -> Iterator[str]:
        """``sha256:<hex>`` of its files; locks of Poetry before 1.3 have them in one place at the end."""
        files = package.data.get("files")
        if files is None:
            listed = self.metadata.get("files")
            files = listed.get(package.data["name"], []) if isinstance(listed, dict) else []
        for file in files if isinstance(files, list) else ():
            if isinstance(file, dict) and isinstance(digest := file.get("hash"), str):
                yield digest


def _conditions(package: _LockedPackage, chosen: Iterable[str]) -> Iterator[str]:
    """A marker for each chosen group that the package is of; empty where it is always needed."""
    markers = package.data.get("markers", "")
    for group in _texts(package.data, "groups"):
        if canonicalize_name(group) in chosen:
            marker = markers.get(group, "") if isinstance(markers, dict) else markers
            yield str(marker)


def _dependencies(package: _LockedPackage) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Its dependencies: the extra each is for (empty: none), the name, and what is said of it."""
    extras = package.data.get("extras", {})
    table = package.data.get("dependencies", {})
    if not isinstance(extras, dict) or not isinstance(table, dict):
        raise Refused(f"{package.key}: dependencies and extras must be tables", _DAMAGED)
    for name, value in table.items():
        for item in value if isinstance(value, list) else [value]:
            entry = item if isinstance(item, dict) else {"version": item}
            if entry.get("optional") is not True:
                yield "", name, entry
                continue
            for extra in extras:
                listed = (re.split(r"[\[ (;<>=!~]", text)[0] for text in _texts(extras, extra))
                if canonicalize_name(name) in map(canonicalize_name, listed):
                    yield canonicalize_name(extra), name, entry


def _without_extra(marker: str, extra: str) -> str:
    """A marker whose conditions on extras are decided for the one that is asked for."""

    def decided(match: re.Match[str]) -> str:
        holds = canonicalize_name(match[1]) == extra
        return "os_name == 'posix'" if holds else "os_name != 'posix'"

    return _EXTRA.sub(decided, marker)


def _texts(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Refused(f"{key} must be a list of texts", _DAMAGED)
    return tuple(value)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
