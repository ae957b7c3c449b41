"""``uv.lock``: what a project's lock pins, as it is, without a resolution.

Taken are the packages that the project leads to on any Linux image, each with the marker of the images that
need it. The project itself isn't installed. Extras and groups count where they are named behind ``#``
(``uv.lock#plot,group:dev``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from packaging.utils import canonicalize_name

from envbuild.errors import SpecError
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.locked import (
    all_there_is,
    direct,
    image_platforms,
    index_address,
    is_public,
    links_option,
    pinned,
    with_marker,
)
from envbuild.specs.importers.pip.marker_range import Case, Cases, reachable
from envbuild.specs.importers.pip.pylock import python_wanted, selected
from envbuild.specs.importers.pip.requirement import BUILD_REMEDY
from envbuild.specs.importers.pip.version_file import python_beside
from envbuild.specs.model import Origin, PackageIndex, PipRequirement, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import parse_toml
from envbuild.specs.text.yaml import LOCK_LIMIT

VERSION = 1
_MEMBER = "a member of the workspace"
_PROJECTS = ("editable", "virtual")
_SOURCES = ("registry", "url", "path", "git", "directory", *_PROJECTS)


SCRIPT_LOCK = ".py.lock"
"""The end of the name of a script's lock, which ``uv lock --script`` writes beside it."""


class UvLockImporter:
    """Reads ``uv.lock``, and the ``NAME.py.lock`` of a script."""

    name = "uv-lock"
    markers: tuple[str, ...] = ("uv.lock",)
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "uv.lock" or file.path.name.lower().endswith(SCRIPT_LOCK)

    def load(self, file: SourceFile) -> Spec:
        data = parse_toml(file.read(LOCK_LIMIT), file.shown)
        version = data.get("version")
        if version != VERSION or isinstance(version, bool):
            raise SpecError(
                f"{file.shown}: has format version {str(version)[:40]}; version {VERSION} is read",
                hint="lock again with a uv that writes it",
            )
        problems = Problems()
        try:
            spec = _UvLockReader(file, problems, data).spec()
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
    version: str | None
    source: str
    """Which of ``_SOURCES`` it is."""
    address: str
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"package[{self.index}]: {self.name}"


@dataclass(slots=True)
class _UvLockReader:
    file: SourceFile
    problems: Problems
    data: Mapping[str, Any]
    packages: list[_LockedPackage] = field(default_factory=list)
    options: dict[str, None] = field(default_factory=dict)
    registries: dict[str, bool] = field(default_factory=dict)
    """Whether all files of an index are public."""
    indexes: dict[str, list[str]] = field(default_factory=dict)
    """What must come from an index of its own, as no hash says which file it is."""
    left_out: list[str] = field(default_factory=list)

    def spec(self) -> Spec:
        self.packages = [
            self._entry(index, table) for index, table in enumerate(_tables(self.data, "package"))
        ]
        if self.file.path.name.lower().endswith(SCRIPT_LOCK):
            self.packages.append(self._script())
        extras, groups = selected(self.file.fragment)
        roots = self._roots()
        self._check_selection(roots, extras, groups)
        requires = self.data.get("requires-python")
        requires = requires if isinstance(requires, str) else None
        cases = Cases(
            requires,
            [*self._all_markers()],
            supported=[
                text for key in ("supported-markers", "environments") for text in _texts(self.data, key)
            ],
            active=[
                f"{kind}-{len(root.name)}-{root.name}-{name}"
                for root in roots
                for kind, chosen in (("extra", extras), ("group", groups))
                for name in chosen
            ],
        )
        starts = [f"{root.index}" for root in roots]
        starts += [f"{root.index}[{extra}]" for root in roots for extra in extras]
        starts += [f"{root.index}:{group}" for root in roots for group in groups]
        reached: dict[int, set[Case]] = {}
        for node, holding in reachable(starts, self._edges(), cases).items():
            reached.setdefault(int(node.split("[")[0].split(":")[0]), set()).update(holding)
        requirements: list[PipRequirement] = []
        for index, held in sorted(reached.items()):
            package = self.packages[index]
            try:
                requirements += self._requirements(package, cases.marker(held))
            except Refused as refused:
                self.problems.add(Place(file=self.file.shown, key=package.key), refused.what, refused.remedy)
        python, lines = python_beside(self.file, python_wanted(requires))
        self.left_out += lines
        return Spec(
            name=fields.fit_name(roots[0].name)
            if len(roots) == 1
            else fields.fit_name(self.file.path.parent.name),
            named=len(roots) == 1,
            source=self.file.path,
            platforms=image_platforms(cases.platforms),
            python=python,
            pip=replace(
                all_there_is(requirements, self.registries, self.options),
                indexes=tuple(
                    PackageIndex(url=url, packages=tuple(sorted(set(names))))
                    for url, names in sorted(self.indexes.items())
                ),
            ),
            left_out=(left_out := tuple(dict.fromkeys(self.left_out))),
            unrelated=tuple(line for line in left_out if not line.endswith(_MEMBER)),
        )

    def _entry(self, index: int, table: Mapping[str, Any]) -> _LockedPackage:
        name, version, source = table.get("name"), table.get("version"), table.get("source")
        if not isinstance(name, str) or not isinstance(version, (str, type(None))):
            raise Refused(f"package[{index}]: has no name", "lock again: the file is damaged")
        kind = next((kind for kind in _SOURCES if isinstance(source, dict) and kind in source), None)
        if kind is None or not isinstance(source, dict) or not isinstance(source[kind], str):
            raise Refused(
                f"package[{index}]: {name}: its source isn't known", f"known: {', '.join(_SOURCES)}"
            )
        return _LockedPackage(index, canonicalize_name(name), version, kind, source[kind], table)

    def _script(self) -> _LockedPackage:
        """The script of a lock of its own, as a project: its requirements stand in the manifest."""
        # One that no Python of the lock needs stands there, too.
        locked = {package.name for package in self.packages}
        dependencies = [
            {"name": table.get("name"), "extra": table.get("extras", []), "marker": table.get("marker")}
            for table in _tables(_table(self.data, "manifest"), "requirements")
            if canonicalize_name(str(table.get("name"))) in locked
        ]
        name = fields.fit_name(self.file.path.name[: -len(SCRIPT_LOCK)])
        return _LockedPackage(len(self.packages), name, None, "virtual", ".", {"dependencies": dependencies})

    def _roots(self) -> list[_LockedPackage]:
        """The project of the lock's own directory; all members where there is none (a virtual workspace)."""
        projects = [package for package in self.packages if package.source in _PROJECTS]
        own = [project for project in projects if project.address == "."]
        if own:
            return own
        manifest = self.data.get("manifest")
        members = _texts(manifest, "members") if isinstance(manifest, dict) else ()
        named = {canonicalize_name(member) for member in members}
        locked_packages = [project for project in projects if project.name in named]
        if not locked_packages:
            raise Refused("names no project: there is nothing that its packages are for")
        return locked_packages

    def _check_selection(
        self, roots: Iterable[_LockedPackage], extras: frozenset[str], groups: frozenset[str]
    ) -> None:
        for kind, key, chosen in (
            ("extra", "optional-dependencies", extras),
            ("group", "dev-dependencies", groups),
        ):
            known = {canonicalize_name(name): root for root in roots for name in _table(root.data, key)}
            for name in sorted(chosen - set(known)):
                shown = ", ".join(sorted(known)) or "none"
                place = Place(file=self.file.shown, key=f"#{name}")
                self.problems.add(place, f"the project has no {kind} {name!r}", f"it has: {shown}")
            for name, root in sorted(known.items()):
                if name not in chosen:
                    self.left_out.append(f"{self.file.path.name}: {root.name}: {key}.{name}")

    def _all_markers(self) -> Iterator[str]:
        for package in self.packages:
            for _, dependency in _dependencies(package.data):
                if isinstance(marker := dependency.get("marker"), str):
                    yield marker

    def _edges(self) -> Any:
        """A function from a node to its neighbours. A node is a package's index, with an extra in brackets
        or a group behind a colon."""
        by_name: dict[str, list[_LockedPackage]] = {}
        for locked in self.packages:
            by_name.setdefault(locked.name, []).append(locked)
        graph: dict[str, list[tuple[str, str | None]]] = {}
        for package in self.packages:
            for suffix, dependency in _dependencies(package.data):
                node = f"{package.index}{suffix}"
                edges = graph.setdefault(node, [])
                marker = dependency.get("marker")
                condition = marker if isinstance(marker, str) else None
                target = self._target(package, dependency, by_name)
                edges.append((f"{target.index}", condition))
                for extra in _texts(dependency, "extra"):
                    edges.append((f"{target.index}[{canonicalize_name(extra)}]", condition))
        return lambda node: graph.get(node, ())

    def _target(
        self,
        package: _LockedPackage,
        dependency: Mapping[str, Any],
        by_name: Mapping[str, list[_LockedPackage]],
    ) -> _LockedPackage:
        name = canonicalize_name(str(dependency.get("name")))
        version, source = dependency.get("version"), dependency.get("source")
        matching = [
            package
            for package in by_name.get(name, ())
            if version in (None, package.version) and (source is None or source == package.data.get("source"))
        ]
        if len(matching) != 1:
            raise Refused(
                f"{package.key}: {len(matching)} packages answer its dependency {name[:80]!r}",
                "lock again: the file is damaged",
            )
        return matching[0]

    def _requirements(self, package: _LockedPackage, marker: str) -> Iterator[PipRequirement]:
        where = self.file.path.parent
        origin = Origin(file=self.file.path.name, where=package.key)
        files = [*_tables(package.data, "wheels")]
        if isinstance(sdist := package.data.get("sdist"), dict):
            files.append(sdist)
        hashes = [file["hash"] for file in files if isinstance(file.get("hash"), str)]
        match package.source:
            case "registry":
                if package.version is None or not files:
                    raise Refused("has no version or no file", "lock again: the file is damaged")
                if "://" in package.address:
                    index = index_address(package.address)
                    public = all(is_public(str(file.get("url"))) for file in files)
                    self.registries[index] = self.registries.get(index, True) and public
                    if not hashes and not public:
                        self.indexes.setdefault(index, []).append(with_marker(package.name, marker))
                else:
                    self.options.setdefault(links_option(package.address, where))
                yield pinned(package.name, package.version, hashes, origin, marker=marker)
            case "url" | "path":
                yield direct(package.name, package.address, hashes, origin, where, marker=marker)
            case "editable" | "virtual":
                what = "the project itself" if package.address == "." else _MEMBER
                self.left_out.append(f"{self.file.path.name}: {package.name}: {what}")
            case "git":
                yield direct(package.name, _repository(package.address), (), origin, where, marker=marker)
            case kind:
                remedy = BUILD_REMEDY
                raise Refused(
                    f"its source is {kind} {redact(package.address)!r}: it would have to be built", remedy
                )


def _repository(address: str) -> str:
    """The address of ``https://…/repository.git?subdirectory=…&rev=main#<commit>``, at the commit."""
    try:
        parts = urlsplit(address)
        asked = dict(parse_qsl(parts.query))
    except ValueError as error:
        raise Refused(f"{redact(address)!r} is no address") from error
    if not re.fullmatch("[0-9a-f]{40}", parts.fragment):
        raise Refused(f"{redact(address)!r} names no commit", "lock again: the file is damaged")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return git_address(url, revision=parts.fragment, subdirectory=asked.get("subdirectory"))


def _dependencies(package: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dependency of a package, with what makes its node: nothing, ``[extra]`` or ``:group``."""
    yield from (("", table) for table in _tables(package, "dependencies"))
    for key, form in (("optional-dependencies", "[{}]"), ("dev-dependencies", ":{}")):
        tables = _table(package, key)
        for name in tables:
            yield from ((form.format(canonicalize_name(name)), table) for table in _tables(tables, name))


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise Refused(f"{key} must be a table", "lock again: the file is damaged")
    return value


def _tables(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Refused(f"{key} must be a list of tables", "lock again: the file is damaged")
    return value


def _texts(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Refused(f"{key} must be a list of texts", "lock again: the file is damaged")
    return tuple(value)
