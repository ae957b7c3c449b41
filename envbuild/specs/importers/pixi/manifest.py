"""``pixi.toml``, and ``[tool.pixi]`` of a ``pyproject.toml``: the default environment of a pixi workspace.

Its lock, ``pixi.lock``, is read by ``envbuild.specs.importers.pixi.lock`` and goes first in a directory.
Features and environments that are built from them are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.utils import InvalidName, canonicalize_name

from envbuild.errors import SpecError, UsageError
from envbuild.platforms import LINUX_AMD64, Platform
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.fields import refuse_credential
from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.requirement import Directories, canonical_requirement
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.match import canonical_match
from envbuild.specs.model import (
    INDEX_STRATEGIES,
    SYSTEM_REQUIREMENTS,
    CondaSpec,
    Origin,
    PipRequirement,
    PipSpec,
    Spec,
    SystemRequirement,
)
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import TOML_LIMIT, describe_value, parse_toml

_KINDS = ("dependencies", "host-dependencies", "build-dependencies")
"""pixi puts all three into the environment."""
_LINUX = ("linux", "unix")
_READ = frozenset(
    {
        *(*_KINDS, "pypi-dependencies", "workspace", "project", "target", "activation", "pypi-options"),
        "system-requirements",
    }
)
_WORKSPACE = frozenset({"name", "version", "description", "channels", "platforms"})
_ABOUT = frozenset(
    {
        "authors",
        "license",
        "license-file",
        "readme",
        "homepage",
        "repository",
        "documentation",
        "requires-pixi",
    }
)
"""Says nothing about an environment."""


class PixiImporter:
    """Reads ``pixi.toml``, and a ``pyproject.toml`` that describes a pixi workspace."""

    name = "pixi"
    markers: tuple[str, ...] = ("pixi.toml",)

    def recognises(self, file: SourceFile) -> bool:
        if file.path.name == "pixi.toml":
            return True
        if file.path.name != "pyproject.toml" or file.fragment:
            return False
        try:
            tables = _tool(parse_toml(file.read(TOML_LIMIT), file.shown))
        except SpecError:
            return False  # Whoever reads such files says what is wrong with it.
        return "workspace" in tables or "project" in tables

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        data = parse_toml(file.read(TOML_LIMIT), file.shown)
        inside = file.path.name == "pyproject.toml"
        reader = _PixiReader(file, problems, _tool(data) if inside else data, "tool.pixi." if inside else "")
        if inside:
            project = data.get("project")
            reader.project = project if isinstance(project, dict) else {}
        spec = reader.spec()
        problems.raise_if_any()
        return spec


def _tool(data: Mapping[str, Any]) -> Mapping[str, Any]:
    tool = data.get("tool")
    pixi = tool.get("pixi") if isinstance(tool, dict) else None
    return pixi if isinstance(pixi, dict) else {}


class _PixiReader:
    def __init__(self, file: SourceFile, problems: Problems, data: Mapping[str, Any], prefix: str) -> None:
        self.file = file
        self.problems = problems
        self.data = data
        self.prefix = prefix
        self.project: Mapping[str, Any] = {}
        """``[project]`` of a pyproject: its dependencies are the workspace's too."""
        self.left_out: list[str] = []
        self.indexes = RequirementsReader(file.path.parent, problems)
        """Of single packages."""

    def spec(self) -> Spec:
        key = "workspace" if "workspace" in self.data else "project"
        workspace = self._table(self.data, key)
        for unread in self.data:
            if unread not in _READ:
                self._leave(unread)
        for unread in workspace:
            if unread not in _WORKSPACE | _ABOUT:
                self._leave(f"{key}.{unread}")
        platforms = self._platforms(workspace.get("platforms"), f"{key}.platforms")
        conda, pip = self._dependencies(platforms)
        channels = tuple(self._channels(workspace.get("channels", []), f"{key}.channels"))
        if conda and not channels:
            self._problem(f"{key}.channels", "names no channel")
        name = workspace.get("name", self.project.get("name"))
        return Spec(
            name=fields.fit_name(name) if isinstance(name, str) else fields.default_name(self.file.path),
            named=isinstance(name, str),
            source=self.file.path,
            description=_text_or_none(workspace.get("description", self.project.get("description"))),
            platforms=platforms,
            # pixi itself leaves pip out.
            conda=CondaSpec(channels=channels, dependencies=tuple(conda.values()), add_pip=False)
            if conda
            else None,
            pip=PipSpec(
                requirements=tuple(pip.values()),
                options=tuple(self._options()),
                indexes=self.indexes.result().indexes,
                index_strategy=self._index_strategy(),
            ),
            environment_variables=self._variables(),
            system_requirements=tuple(self._system_requirements()),
            left_out=tuple(self.left_out),
        )

    def _platforms(self, value: object, key: str) -> tuple[Platform, ...]:
        platforms: list[Platform] = []
        for entry in self._list(value if value is not None else [], key):
            try:
                platform = Platform.parse(str(entry))
            except UsageError:
                self._leave(f"{key}: {entry!s:.80}")
                continue
            if platform not in platforms:
                platforms.append(platform)
        if not platforms and self.left_out and value:
            self._problem(key, "names no platform that there are images of")
        return tuple(platforms) or (LINUX_AMD64,)

    def _dependencies(
        self, platforms: tuple[Platform, ...]
    ) -> tuple[dict[str, str], dict[str, PipRequirement]]:
        """Match specs and requirements by name; what ``target`` says of Linux goes before the rest."""
        conda: dict[str, str] = {}
        pip: dict[str, PipRequirement] = {}
        self._project(conda, pip)
        tables = [("", self.data)]
        for selector, table in self._table(self.data, "target").items():
            key = f"target.{selector}"
            if not isinstance(table, dict):
                self._problem(key, f"must be a table, is {describe_value(table)}")
            elif self._selected(selector, key, platforms):
                tables.append((f"{key}.", table))
                for entry in table:
                    if entry not in (*_KINDS, "pypi-dependencies", "activation"):
                        self._leave(f"{key}.{entry}")
        for at, table in tables:
            for kind in _KINDS:
                for name, value in self._table(table, kind, at).items():
                    self._add(conda, name, value, f"{at}{kind}.{name}", self._match)
            for name, value in self._table(table, "pypi-dependencies", at).items():
                self._add(pip, name, value, f"{at}pypi-dependencies.{name}", self._requirement)
        return conda, pip

    def _add(self, into: dict[str, Any], name: str, value: object, key: str, read: Any) -> None:
        try:
            match = read(name, value, key)
        except Refused as refused:
            self._problem(key, refused.what, refused.remedy)
            return
        if match is not None:
            into[str(canonicalize_name(name))] = match

    def _selected(self, selector: str, key: str, platforms: tuple[Platform, ...]) -> bool:
        if selector in _LINUX:
            return True
        try:
            platform = Platform.parse(selector)
        except UsageError:
            self._leave(key)
            return False
        if platforms == (platform,):
            return True
        if platform in platforms:
            remedy = "platforms of one spec share their dependencies: lock with pixi, and use its pixi.lock"
            self._problem(key, "holds for some of the platforms only", remedy)
        else:
            self._leave(key)
        return False

    def _project(self, conda: dict[str, str], pip: dict[str, PipRequirement]) -> None:
        """What pixi takes from ``[project]``: a python, and the dependencies."""
        requires = self.project.get("requires-python")
        if isinstance(requires, str):
            self._add(conda, "python", requires, "project.requires-python", self._match)
        for index, line in enumerate(
            self._list(self.project.get("dependencies", []), "project.dependencies")
        ):
            key = f"project.dependencies[{index}]"
            try:
                pip_requirement = self._line(str(line), key)
            except Refused as refused:
                self._problem(key, refused.what, refused.remedy)
                continue
            pip[pip_requirement.text] = pip_requirement
        for name in self._table(self.project, "optional-dependencies", "project."):
            self.left_out.append(f"{self.file.path.name}: project.optional-dependencies.{name}")

    def _match(self, name: str, value: object, key: str) -> str:
        """A conda match spec."""
        table = {"version": value} if isinstance(value, str) else value
        if not isinstance(table, dict):
            raise Refused(f"must be a version or a table, is {describe_value(value)}")
        others = sorted(set(table) - {"version", "build", "channel"})
        if others:
            raise Refused(f"{', '.join(others)} can't be carried", "lock with pixi, and use its pixi.lock")
        version, build, channel = (_plain(table.get(name), name) for name in ("version", "build", "channel"))
        text = f"{channel}::{name}" if channel else name
        if build:
            text += f" {version or '*'} {build}"
        elif version and version != "*":
            text += f" {version}"
        return canonical_match(text)

    def _requirement(self, name: str, value: object, key: str) -> PipRequirement | None:
        """A requirement of pip; None for the project itself."""
        table = {"version": value} if isinstance(value, str) else value
        if not isinstance(table, dict):
            raise Refused(f"must be a version or a table, is {describe_value(value)}")
        extras = [_plain(entry, "extras") for entry in self._list(table.get("extras", []), f"{key}.extras")]
        try:
            text = str(canonicalize_name(name, validate=True))
        except InvalidName as error:
            raise Refused(f"{name!r} is no name of a distribution") from error
        text += f"[{','.join(extras)}]" if extras else ""
        version, url, path = (_plain(table.get(name), name) for name in ("version", "url", "path"))
        marker = _plain(table.get("env-markers"), "env-markers")
        if path in (".", "./"):
            self._leave(f"pypi-dependencies.{name}: the project itself")
            return None
        if "git" in table:
            revision = next((_plain(table[at], at) for at in ("rev", "tag", "branch") if at in table), None)
            subdirectory = _plain(table.get("subdirectory"), "subdirectory")
            address = git_address(_plain(table["git"], "git"), revision=revision, subdirectory=subdirectory)
            return self._line(f"{text} @ {address}" + (f" ; {marker}" if marker else ""), key)
        if "index" in table:
            package = text.partition("[")[0] + (f"; {marker}" if marker else "")
            self.indexes.read_index(_plain(table["index"], "index"), [package])
        if url or path:
            text += f" @ {url or path} "
        elif version and version != "*":
            text += version
        return self._line(text + (f"; {marker}" if marker else ""), key)

    def _line(self, text: str, key: str) -> PipRequirement:
        root = self.file.path.parent
        canonical, hashes = canonical_requirement(text, Directories(root, root))
        return PipRequirement(
            text=canonical, hashes=hashes, origin=Origin(file=self.file.path.name, where=self._path(key))
        )

    def _channels(self, value: object, key: str) -> Iterator[str]:
        for index, entry in enumerate(self._list(value, key)):
            written = entry.get("channel") if isinstance(entry, dict) else entry
            try:
                channel = _plain(written, "a channel")
                refuse_credential(channel)
                if not re.fullmatch(r"(?:[a-z][a-z0-9+]*://)?[^\s\0]+", channel):
                    raise Refused(f"{redact(channel)!r} is no channel")
            except Refused as refused:
                self._problem(f"{key}[{index}]", refused.what, refused.remedy)
                continue
            yield channel.rstrip("/")

    def _options(self) -> Iterator[str]:
        options = self._table(self.data, "pypi-options")
        for key, value in options.items():
            where = f"pypi-options.{key}"
            if key == "index-strategy":
                continue
            if key not in ("index-url", "extra-index-urls"):
                self._leave(where)
                continue
            for text in [value] if key == "index-url" else self._list(value, where):
                try:
                    address = _plain(text, "an address")
                    refuse_credential(address)
                    if not re.fullmatch(r"https?://\S+", address):
                        raise Refused(f"{redact(address)!r} is no address of an index")
                except Refused as refused:
                    self._problem(where, refused.what, refused.remedy)
                    continue
                yield f"--{'index-url' if key == 'index-url' else 'extra-index-url'} {address}"

    def _index_strategy(self) -> str | None:
        """``index-strategy``; without it pixi's own, which is uv's, where indexes are named."""
        options = self._table(self.data, "pypi-options")
        if not options.keys() & {"index-url", "extra-index-urls", "index-strategy"}:
            return None
        strategy = str(options.get("index-strategy", INDEX_STRATEGIES[0]))
        if strategy not in INDEX_STRATEGIES:
            what = f"{strategy[:40]!r} isn't supported"
            self._problem("pypi-options.index-strategy", what, f"write {' or '.join(INDEX_STRATEGIES)}")
        return strategy

    def _system_requirements(self) -> Iterator[SystemRequirement]:
        """What pixi is told of the machines, sorted by our names."""
        requirements = dict(self._table(self.data, "system-requirements"))
        libc = requirements.pop("libc", None)
        if isinstance(libc, dict) and libc.get("family", "glibc") == "glibc":
            libc = libc.get("version")
        if libc is not None:
            requirements["glibc"] = libc
        for name in sorted(requirements):
            key = f"system-requirements.{'libc' if name == 'glibc' else name}"
            if name not in SYSTEM_REQUIREMENTS:
                self._leave(key)
                continue
            try:
                yield SystemRequirement(name=name, version=_plain(requirements[name], "a version"))
            except Refused as refused:
                self._problem(key, refused.what, refused.remedy)

    def _variables(self) -> tuple[tuple[str, str], ...]:
        activation = self._table(self.data, "activation")
        for entry in activation:
            if entry != "env":
                self._leave(f"activation.{entry}")
        variables = {}
        for name, value in self._table(activation, "env", "activation.").items():
            key = f"activation.env.{name}"
            try:
                text = _plain(value, "a variable")
                if "$" in text:
                    raise Refused("is computed from other variables", "write its value out")
                variables[fields.variable_name(name)] = text
            except Refused as refused:
                self._problem(key, refused.what, refused.remedy)
        return tuple(sorted(variables.items()))

    def _table(self, table: Mapping[str, Any], key: str, at: str = "") -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            self._problem(f"{at}{key}", f"must be a table, is {describe_value(value)}")
            return {}
        return value

    def _list(self, value: object, key: str) -> list[Any]:
        if not isinstance(value, list):
            self._problem(key, f"must be a list, is {describe_value(value)}")
            return []
        return value

    def _path(self, key: str) -> str:
        own = key.startswith(("project.dependencies", "project.requires-python", "project.optional"))
        return key if own else self.prefix + key

    def _leave(self, key: str) -> None:
        self.left_out.append(f"{self.file.path.name}: {self.prefix}{key}")

    def _problem(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(Place(file=self.file.shown, key=self._path(key)), what, remedy)


def _plain(value: object, what: str) -> str:
    """A text of one line; empty where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"{what} must be text, is {describe_value(value)}")
    if not value.isprintable():
        raise Refused(f"{what} holds a character that isn't printable")
    return value.strip()


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
