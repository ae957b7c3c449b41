"""``pyproject.toml``: what a project depends on (PEP 621), its extras, and its dependency groups (PEP 735);
or the same in Poetry's tables.

``pyproject.toml#plot,group:test`` asks for the extra ``plot`` and the group ``test``; without ``#`` neither
extras nor groups count. The project itself isn't installed: it would have to be built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuild.errors import SpecError, suggestion
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.importers.pip.version_file import python_beside
from envbuild.specs.importers.poetry.tool import PoetryTool
from envbuild.specs.importers.uv.tool import UvTool
from envbuild.specs.model import BuildDependencies, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import TOML_LIMIT, describe_value, key_line, line_of, parse_toml

_COUNT_LIMIT = 20_000
"""Requirements of a project, with every extra and group that includes others written out."""
_DEPTH_LIMIT = 50
_WAYS_LIMIT = 1000
"""Extras, counted once for each marker they are included under."""
_VERSION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
_FOREIGN = (
    ("pdm", "dev-dependencies"),
    ("hatch", "envs"),
    ("pixi", "dependencies"),
    ("pixi", "pypi-dependencies"),
    ("pixi", "feature"),
)
"""Tables of tools that hold dependencies of their own."""


class PyprojectImporter:
    """Reads ``pyproject.toml``."""

    name = "pyproject"
    markers: tuple[str, ...] = ("pyproject.toml",)
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "pyproject.toml"

    def load(self, file: SourceFile) -> Spec:
        text = file.read(TOML_LIMIT)
        return _PyprojectReader(file, text, parse_toml(text, file.shown)).spec()


class _PyprojectReader:
    def __init__(self, file: SourceFile, text: str, data: Mapping[str, Any]) -> None:
        self.file = file
        self.text = text
        self.problems = Problems()
        self.left_out: list[str] = []
        self.unrelated: list[str] = []
        self.tool = self._table(data, "tool", "tool")
        self.has_project = "project" in data
        self.project = self._table(data, "project", "project")
        groups = self._table(data, "dependency-groups", "dependency-groups")
        self.keys = {name: f"project.{name}" for name in ("dependencies", "optional-dependencies")}
        """Where what counts as the project's is written."""
        self.keys["groups"] = "dependency-groups"
        self.poetry = self._poetry()
        if self.poetry is not None:
            groups = self._with_poetry(self.poetry, groups)
        self.groups = self._named(groups, "group")
        self.extras = self._named(
            self._table(self.project, "optional-dependencies", self.keys["optional-dependencies"]), "extra"
        )
        self.uv = self._uv()
        self.lines: list[tuple[str, str, int | None]] = []
        """Requirements with their key paths and lines."""
        self.chosen: set[tuple[str, str]] = set()
        """``extra`` or ``group`` and a name, of all that were read."""
        self.seen: set[tuple[str, str]] = set()
        """Extras and the markers they were read under."""
        self.selected: frozenset[str] = frozenset()

    def spec(self) -> Spec:
        extras, groups = self._selection()
        self.selected = frozenset([*(f"extra:{extra}" for extra in extras), *(f"group:{g}" for g in groups)])
        self._check_kind(extras, groups)
        name = self._text("name")
        version = self._text("version")
        if version is not None and not _VERSION.fullmatch(version):
            self._leave(f"project.version {version!r}: no version of an environment", unrelated=True)
            version = None
        self._dependencies(self.project.get("dependencies", []), self.keys["dependencies"], None)
        for extra in extras:
            self._extra(extra, None, 0)
        for group in groups:
            self._group(group, ())
        pip = self._pip()
        python, lines = python_beside(self.file, self._python())
        self.left_out += lines
        self._leave_rest(name)
        self.problems.raise_if_any()
        chosen = [*extras, *groups]
        base = fields.fit_name(name) if name else fields.fit_name(self.file.path.parent.name)
        return Spec(
            name=fields.fit_name("-".join([base, *chosen])),
            named=bool(name),
            source=self.file.path,
            version=version,
            description=self._text("description"),
            python=python,
            pip=pip,
            as_of=self.uv.as_of() if self.uv is not None else None,
            left_out=tuple(dict.fromkeys(self.left_out)),
            unrelated=tuple(dict.fromkeys(self.unrelated)),
        )

    def _selection(self) -> tuple[list[str], list[str]]:
        """The extras and groups behind ``#``, normalised, in the order written."""
        extras: dict[str, None] = {}
        groups: dict[str, None] = {}
        for part in self.file.fragment.split(",") if self.file.fragment else ():
            kind, _, written = part.strip().rpartition(":")
            name = canonicalize_name(written)
            if kind not in ("", "extra", "group") or not name:
                what = f"'#{part.strip()}' is no part of a project"
                self._problem("", what, "write #EXTRA, #group:NAME, or several with commas")
                continue
            word, known, chosen = (
                ("group", self.groups, groups) if kind == "group" else ("extra", self.extras, extras)
            )
            if name not in known:
                listed = f"there are {', '.join(known)}" if known else f"it has no {word}s"
                if word == "extra" and name in self.groups:
                    listed = f"the group is group:{name}"
                self._problem("", f"no {word} {name!r}", suggestion(name, known, quoted=True) or listed)
                continue
            chosen[name] = None
        return list(extras), list(groups)

    def _check_kind(self, extras: list[str], groups: list[str]) -> None:
        """Refuses projects that say elsewhere what they depend on."""
        dynamic = self.project.get("dynamic", [])
        dynamic = dynamic if isinstance(dynamic, list) else []
        if "dependencies" in dynamic:
            remedy = "list them, or name the requirements file they come from"
            self._problem("project.dynamic", "its dependencies are made by its build", remedy)
        if extras and "optional-dependencies" in dynamic:
            self._problem("project.dynamic", "its extras are made by its build", "list them")
        if self.has_project or groups:
            return
        first = next(iter(self.groups), None)
        choice = f"name a group: {self.file.shown}#group:{first}" if first else "name the file that does"
        self._problem("", "has no [project], so it doesn't say what it depends on", choice)

    def _dependencies(self, value: object, key: str, marker: str | None, depth: int = 0) -> None:
        if not isinstance(value, list):
            self._problem(key, f"must be a list of texts, is {describe_value(value)}")
            return
        for index, item in enumerate(value):
            self._requirement(item, f"{key}[{index}]", marker, depth)

    def _requirement(self, item: object, key: str, marker: str | None, depth: int) -> None:
        if not isinstance(item, str):
            self._problem(key, f"must be text, is {describe_value(item)}")
            return
        line = line_of(self.text, item)
        try:
            requirement = plain_requirement(item, marker)
            if self._is_own(requirement):
                self._own(requirement, key, depth)
                return
            text = self.uv.sourced(requirement, self.selected) if self.uv else str(requirement)
            texts = [text]
            if self.poetry is not None and self.keys["dependencies"].startswith("project."):
                texts = self.poetry.sourced(requirement.name) or texts
        except Refused as refused:
            self._problem(key, refused.what, refused.remedy, line)
            return
        if len(self.lines) == _COUNT_LIMIT:
            self._problem(key, f"more than {_COUNT_LIMIT} requirements")
        if len(self.lines) <= _COUNT_LIMIT:
            line = line or (key_line(self.text, requirement.name) if self.poetry else None)
            self.lines += [(text, key, line) for text in texts]

    def _is_own(self, requirement: Requirement) -> bool:
        name = self.project.get("name")
        if not isinstance(name, str) or requirement.url is not None:
            return False
        return bool(canonicalize_name(requirement.name) == canonicalize_name(name))

    def _own(self, requirement: Requirement, key: str, depth: int) -> None:
        """A project's reference to its own extras: what they hold counts, the project doesn't."""
        marker = str(requirement.marker) if requirement.marker else None
        if not requirement.extras:
            self._leave(f"{key}: the project itself", unrelated=True)
        for extra in sorted({canonicalize_name(extra) for extra in requirement.extras}):
            if extra in self.extras:
                self._extra(extra, marker, depth + 1)
            else:
                self._problem(key, f"no extra {extra!r}")

    def _extra(self, name: str, marker: str | None, depth: int) -> None:
        mark = name, marker or ""
        if mark in self.seen or len(self.lines) > _COUNT_LIMIT:
            return
        self.seen.add(mark)
        self.chosen.add(("extra", name))
        if depth > _DEPTH_LIMIT or len(self.seen) > _WAYS_LIMIT:
            raise SpecError(
                f"{self.file.shown}: {self.keys['optional-dependencies']}: include each other too deeply"
            )
        written, value = self.extras[name]
        self._dependencies(value, f"{self.keys['optional-dependencies']}.{written}", marker, depth)

    def _group(self, name: str, trail: tuple[str, ...]) -> None:
        """PEP 735: requirements, and ``{include-group = …}`` in their places."""
        written, value = self.groups[name]
        key = f"{self.keys['groups']}.{written}"
        if ("group", name) in self.chosen:
            return
        self.chosen.add(("group", name))
        trail = (*trail, name)
        if len(trail) > _DEPTH_LIMIT:
            raise SpecError(f"{self.file.shown}: {self.keys['groups']}: include each other too deeply")
        if not isinstance(value, list):
            self._problem(key, f"must be a list, is {describe_value(value)}")
            return
        for index, item in enumerate(value):
            place = f"{key}[{index}]"
            if not isinstance(item, dict):
                self._requirement(item, place, None, 0)
                continue
            included = item.get("include-group")
            other: str = canonicalize_name(included) if isinstance(included, str) else ""
            if set(item) != {"include-group"} or not other:
                self._problem(place, "must be a requirement or {include-group = NAME}")
            elif other not in self.groups:
                self._problem(place, f"no group {included!r}")
            elif other in trail:
                cycle = " → ".join((*trail[trail.index(other) :], other))
                self._problem(place, f"the group includes itself ({cycle})")
            else:
                self._group(other, trail)

    def _pip(self) -> PipSpec:
        reader = RequirementsReader(self.file.path.parent, self.problems)
        for text, key, line in self.lines:
            reader.read_text(text, self.file, line=line or 1, key=key)
        if self.poetry is not None:
            try:
                for option in self.poetry.options():
                    reader.read_text(one_line(option), self.file, line=1, key="tool.poetry.source")
                for url, packages, name in self.poetry.package_indexes():
                    reader.read_index(url, packages, name)
            except Refused as refused:
                self._problem("", refused.what, refused.remedy)
        if self.uv is not None:
            try:
                for option in self.uv.options():
                    reader.read_text(one_line(option), self.file, line=1, key="tool.uv")
                for url, packages, name in self.uv.package_indexes():
                    reader.read_index(url, packages, name)
                for text in self.uv.constraints():
                    requirement = str(plain_requirement(text))
                    line = line_of(self.text, text)
                    key = "tool.uv.constraint-dependencies"
                    reader.read_text(requirement, self.file, line=line or 1, key=key, constraint=True)
                return replace(
                    reader.result(),
                    index_strategy=self.uv.index_strategy(),
                    build=uv_build_dependencies(self.uv, self.text, self.file, self.problems),
                )
            except Refused as refused:
                self._problem("", refused.what, refused.remedy)
        return reader.result()

    def _python(self) -> str | None:
        written = self._text("requires-python")
        if not written or not written.strip():
            return None
        try:
            return fields.python(written)
        except Refused as refused:
            self._problem(
                "project.requires-python", refused.what, refused.remedy, line_of(self.text, written)
            )
            return None

    def _leave_rest(self, name: str | None) -> None:
        if self.has_project:
            shown = f" ({name})" if name else ""
            what = f"the project itself{shown}: only what it depends on is installed"
            self._leave(what, unrelated=True)
        dynamic = self.project.get("dynamic", [])
        for key in ("requires-python", "optional-dependencies"):
            if isinstance(dynamic, list) and key in dynamic:
                self._leave(f"project.{key}: made by its build")
        taken = {name for kind, name in self.chosen if kind == "extra"}
        others = [extra for extra in self.extras if extra not in taken]
        if others:
            key = self.keys["optional-dependencies"]
            self._leave(f"{key}: {', '.join(others)}: choose them with #{others[0]}", unrelated=True)
        others = [group for group in self.groups if ("group", group) not in self.chosen]
        if others:
            what = f"{self.keys['groups']}: {', '.join(others)}: choose them with #group:{others[0]}"
            self._leave(what, unrelated=True)
        for tool, key in _FOREIGN:
            table = self.tool.get(tool)
            if isinstance(table, dict) and key in table:
                self._leave(f"tool.{tool}.{key}")
        for table in (self.uv, self.poetry):
            if table is not None:
                self.left_out += table.left_out()

    def _uv(self) -> UvTool | None:
        if "uv" not in self.tool:
            return None
        try:
            return UvTool(self.tool["uv"], self.file.path.name)
        except Refused as refused:
            self._problem("tool.uv", refused.what, refused.remedy)
            return None

    def _poetry(self) -> PoetryTool | None:
        if "poetry" not in self.tool:
            return None
        try:
            parts = self.file.fragment.split(",")
            wanted = frozenset(canonicalize_name(part.rpartition(":")[2].strip()) for part in parts)
            return PoetryTool(self.tool["poetry"], self.file.path.name, wanted)
        except Refused as refused:
            self._problem("tool.poetry", refused.what, refused.remedy)
            return None

    def _with_poetry(self, poetry: PoetryTool, groups: Mapping[str, Any]) -> Mapping[str, Any]:
        """The groups, with Poetry's. What ``[project]`` doesn't say is what Poetry's table says."""
        dynamic = self.project.get("dynamic", [])
        dynamic = dynamic if isinstance(dynamic, list) else []
        try:
            if poetry.has_dependencies and (not self.has_project or "dependencies" in dynamic):
                said = {
                    key: poetry.table[key]
                    for key in ("name", "version", "description")
                    if key in poetry.table
                }
                said |= {"dependencies": poetry.dependencies(), "optional-dependencies": poetry.extras()}
                if poetry.python is not None:
                    said["requires-python"] = poetry.python
                left = [key for key in dynamic if key not in said]
                self.project = {**said, **self.project, "dynamic": left}
                self.has_project = True
                self.keys = {
                    **self.keys,
                    "dependencies": "tool.poetry.dependencies",
                    "optional-dependencies": "tool.poetry.extras",
                }
            own = poetry.groups()
        except Refused as refused:
            self._problem("", refused.what, refused.remedy)
            self.has_project = True
            return groups
        if own and not groups:
            self.keys["groups"] = "tool.poetry.group"
        return {**groups, **{name: entries for name, entries in own.items() if name not in groups}}

    def _named(self, table: Mapping[str, Any], kind: str) -> dict[str, tuple[str, Any]]:
        """Entries by their normalised names; two that are equal then are a problem."""
        named: dict[str, tuple[str, Any]] = {}
        for key, value in table.items():
            name = canonicalize_name(key)
            if name in named:
                self._problem("", f"the {kind}s {named[name][0]!r} and {key!r} are one name")
            named[name] = key, value
        return named

    def _table(self, data: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
        table = data.get(key, {})
        if isinstance(table, dict):
            return table
        self._problem(path, f"must be a table, is {describe_value(table)}")
        return {}

    def _text(self, key: str) -> str | None:
        value = self.project.get(key)
        if value is None or isinstance(value, str):
            return value
        self._problem(f"project.{key}", f"must be text, is {describe_value(value)}")
        return None

    def _leave(self, what: str, *, unrelated: bool = False) -> None:
        line = f"{self.file.path.name}: {what}"
        self.left_out.append(line)
        if unrelated:
            self.unrelated.append(line)

    def _problem(self, key: str, what: str, remedy: str | None = None, line: int | None = None) -> None:
        self.problems.add(Place(file=self.file.shown, line=line, key=key), what, remedy)


def uv_build_dependencies(uv: UvTool, text: str, file: SourceFile, problems: Problems) -> BuildDependencies:
    """What ``[tool.uv]`` of ``file``, whose content is ``text``, says of builds. Raises :class:`Refused`."""
    reader = RequirementsReader(file.path.parent, problems)
    for constraint in uv.build_constraints():
        reader.read_text(
            str(plain_requirement(constraint)),
            file,
            line=line_of(text, constraint) or 1,
            key="tool.uv.build-constraint-dependencies",
            constraint=True,
        )
    return BuildDependencies(constraints=reader.result().constraints, extra=uv.extra_build_dependencies())


def plain_requirement(text: str, marker: str | None = None) -> Requirement:
    """PEP 508 and nothing else: no options, no paths, as requirements files may have."""
    try:
        requirement = Requirement(one_line(text))
        if marker is not None:
            own = f" and ({requirement.marker})" if requirement.marker else ""
            requirement.marker = Marker(f"({marker}){own}")
    except (InvalidRequirement, RecursionError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise Refused(f"{redact(text)!r} is no requirement ({redact(reason)})") from error
    return requirement


def one_line(text: str) -> str:
    if len(text.splitlines()) > 1:
        raise Refused(f"{redact(text)!r} has several lines")
    return text
