"""What ``[tool.poetry]`` says a project depends on, as requirements (PEP 508) and PEP 621's words.

Main dependencies, extras and groups become what ``[project]`` and ``[dependency-groups]`` have. Where a
project has its dependencies under ``[project]``, as Poetry 2 does, the table only says where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

from envbuild.redact import redact
from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.locked import index_address
from envbuild.specs.importers.poetry.constraint import (
    platform_marker,
    python_marker,
    python_specifier,
    specifier,
)
from envbuild.specs.problems import Refused
from envbuild.specs.text.toml import describe_value

_SOURCES = ("git", "path", "file", "url")
_ENTRY = (
    *("version", "extras", "optional", "markers", "python", "platform", "source"),
    *("branch", "tag", "rev", "subdirectory", "develop", *_SOURCES),
)
_DEFAULT = "pypi"
"""What Poetry calls the default index: its address is a setting of the machine."""


class PoetryTool:
    """The table ``[tool.poetry]``. ``place`` leads each line of :meth:`left_out`; of extras and groups only
    those that are ``wanted``, by their normalised names, are more than names."""

    def __init__(self, table: object, place: str, wanted: frozenset[str]) -> None:
        if not isinstance(table, dict):
            raise Refused(f"must be a table, is {describe_value(table)}")
        self.table: Mapping[str, Any] = table
        self.place = place
        self._wanted = wanted
        self.has_dependencies = "dependencies" in table
        self._dependencies = self._table(table, "dependencies", "tool.poetry.dependencies")
        self._asked: dict[str, dict[str, None]] = {}
        """Of the sources that packages name: these, each perhaps with a marker."""
        self._lines: dict[str, None] = {}

    @property
    def python(self) -> str | None:
        """What it says of Python, as a spec says it. Raises :class:`Refused`."""
        value = next((value for key, value in self._dependencies.items() if key.lower() == "python"), None)
        if isinstance(value, dict):
            value = value.get("version")
        if value is None:
            return None
        if not isinstance(value, str):
            raise Refused(f"tool.poetry.dependencies.python: must be text, is {describe_value(value)}")
        python = python_specifier(value)
        return None if python == "*" else python

    def dependencies(self) -> list[str]:
        """The main dependencies that no extra is needed for. Raises :class:`Refused`."""
        return [
            text
            for name, entries in self._named(self._dependencies, "dependencies")
            for entry in entries
            if entry.get("optional") is not True
            for text in self._requirement(name, entry, "dependencies")
        ]

    def extras(self) -> dict[str, list[str]]:
        """The requirements that each extra brings. Raises :class:`Refused`."""
        by_name = {canonicalize_name(name): (name, entries) for name, entries in self._main()}
        extras: dict[str, list[str]] = {}
        for extra, names in self._table(self.table, "extras", "tool.poetry.extras").items():
            key = f"tool.poetry.extras.{extra}"
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise Refused(f"{key}: must be a list of names")
            extras[extra] = []
            for listed in names if canonicalize_name(extra) in self._wanted else ():
                plain = canonicalize_name(re.split(r"[\[ (]", listed)[0])
                if plain not in by_name:
                    raise Refused(
                        f"{key}: {listed!r} is no dependency", "add it under tool.poetry.dependencies"
                    )
                name, entries = by_name[plain]
                for entry in entries:
                    extras[extra] += self._requirement(name, entry, "dependencies")
        return extras

    def groups(self) -> dict[str, list[Any]]:
        """The requirements of each group, in the form of ``[dependency-groups]``. Raises :class:`Refused`."""
        groups: dict[str, list[Any]] = {}
        tables = self._table(self.table, "group", "tool.poetry.group")
        for group, table in tables.items():
            where = f"group.{group}"
            if not isinstance(table, dict):
                raise Refused(f"tool.poetry.{where}: must be a table, is {describe_value(table)}")
            included = table.get("include-groups", [])
            if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
                raise Refused(f"tool.poetry.{where}.include-groups: must be a list of names")
            groups[group] = [{"include-group": name} for name in included]
        wanted = self._included(groups)
        for group, table in tables.items():
            if canonicalize_name(group) in wanted:
                where = f"group.{group}.dependencies"
                groups[group] += self._texts(
                    self._table(table, "dependencies", f"tool.poetry.{where}"), where
                )
        older = self._table(self.table, "dev-dependencies", "tool.poetry.dev-dependencies")
        if older:
            texts = self._texts(older, "dev-dependencies") if "dev" in wanted else []
            groups["dev"] = [*groups.get("dev", []), *texts]
        return groups

    def _included(self, groups: Mapping[str, list[Any]]) -> set[str]:
        """The wanted names, and those of the groups that they include."""
        includes: dict[str, list[str]] = {
            canonicalize_name(group): [canonicalize_name(entry["include-group"]) for entry in entries]
            for group, entries in groups.items()
        }
        wanted: set[str] = set()
        todo = [*self._wanted]
        while todo:
            if (name := todo.pop()) not in wanted:
                wanted.add(name)
                todo += includes.get(name, [])
        return wanted

    def sourced(self, name: str) -> list[str]:
        """What replaces a requirement of ``[project]`` by that name: those with an address of their own.
        Raises :class:`Refused`."""
        texts: list[str] = []
        for key, entries in self._main():
            if canonicalize_name(key) == canonicalize_name(name):
                for entry in entries:
                    direct = any(kind in entry for kind in _SOURCES)
                    if direct or "source" in entry:
                        lines = list(self._requirement(key, entry, "dependencies"))
                        texts += lines if direct else []
        return texts

    def options(self) -> Iterator[str]:
        """The indexes as lines of a requirements file. Ask after every requirement. Raises
        :class:`Refused`."""
        sources = self.table.get("source", [])
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise Refused("tool.poetry.source: must be tables", "write [[tool.poetry.source]]")
        known = {str(source.get("name")) for source in sources}
        for name in self._asked:
            if name not in known and name.lower() != _DEFAULT:
                raise Refused(
                    f"tool.poetry: no source is called {name!r}", "add it under [[tool.poetry.source]]"
                )
        primary = [source for source in sources if _priority(source) in ("default", "primary")]
        listed = any(str(source.get("name")).lower() == _DEFAULT for source in primary)
        first = next(iter(primary), None) if not listed else None
        for source in sorted(sources, key=lambda source: source is not first):
            name, priority = str(source.get("name")), _priority(source)
            if name.lower() == _DEFAULT:
                continue
            if priority == "explicit":
                continue
            if not isinstance(url := source.get("url"), str):
                raise Refused(f"tool.poetry.source: {name} has no url")
            yield f"{'--index-url' if source is first else '--extra-index-url'} {index_address(url)}"

    def package_indexes(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """The address, the packages and the name of each source that packages name. Ask after
        :meth:`options`."""
        for source in self.table.get("source", []):
            name, url = str(source.get("name")), source.get("url")
            if name in self._asked and name.lower() != _DEFAULT:
                if not isinstance(url, str):
                    raise Refused(f"tool.poetry.source: {name} has no url")
                yield index_address(url), tuple(self._asked[name]), name

    def left_out(self) -> tuple[str, ...]:
        """What nothing here stands for. Ask after everything else."""
        return tuple(f"{self.place}: {line}" for line in self._lines)

    def _main(self) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
        return self._named(self._dependencies, "dependencies")

    def _texts(self, table: Mapping[str, Any], where: str) -> list[Any]:
        named = self._named(table, where)
        return [
            text
            for name, entries in named
            for entry in entries
            for text in self._requirement(name, entry, where)
        ]

    def _named(self, table: Mapping[str, Any], where: str) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
        """Each dependency with its constraints, of which a list has several."""
        for name, value in table.items():
            if name.lower() == "python":
                continue
            entries = value if isinstance(value, list) else [value]
            yield name, [entry if isinstance(entry, dict) else {"version": entry} for entry in entries]

    def _requirement(self, name: str, entry: Mapping[str, Any], where: str) -> Iterator[str]:
        key = f"tool.poetry.{where}.{name}"
        for word in entry:
            if word not in _ENTRY:
                self._lines.setdefault(f"{key}.{word}")
        extras = entry.get("extras", [])
        if not isinstance(extras, list) or not all(isinstance(extra, str) for extra in extras):
            raise Refused(f"{key}: extras must be a list of texts")
        try:
            marker = _marker(entry)
            if isinstance(source := entry.get("source"), str):
                self._asked.setdefault(source, {})[name + (f"; {marker}" if marker else "")] = None
            head = name + (f"[{','.join(extras)}]" if extras else "")
            kind = next((kind for kind in _SOURCES if kind in entry), None)
            if kind is None:
                version = _text(entry, "version") if "version" in entry else "*"
                yield f"{head}{specifier(version)}" + (f"; {marker}" if marker else "")
            else:
                yield f"{head} @ {_address(kind, entry)}" + (f" ; {marker}" if marker else "")
        except Refused as refused:
            raise Refused(f"{key}: {refused.what}", refused.remedy) from refused

    def _table(self, table: Mapping[str, Any], name: str, key: str) -> Mapping[str, Any]:
        value = table.get(name, {})
        if not isinstance(value, dict):
            raise Refused(f"{key}: must be a table, is {describe_value(value)}")
        return value


def _priority(source: Mapping[str, Any]) -> str:
    """Poetry 1's flags as the priorities that took their place."""
    if source.get("default") is True:
        return "default"
    return "supplemental" if source.get("secondary") is True else str(source.get("priority", "primary"))


def _marker(entry: Mapping[str, Any]) -> str:
    parts = []
    if "markers" in entry:
        parts.append(_text(entry, "markers"))
    if "python" in entry:
        parts.append(python_marker(_text(entry, "python")))
    if "platform" in entry:
        parts.append(platform_marker(_text(entry, "platform")))
    parts = [part for part in parts if part]
    return parts[0] if len(parts) == 1 else " and ".join(f"({part})" for part in parts)


def _address(kind: str, entry: Mapping[str, Any]) -> str:
    where = _text(entry, kind)
    directory = _text(entry, "subdirectory") if "subdirectory" in entry else ""
    if kind == "git":
        revision = next((_text(entry, key) for key in ("rev", "tag", "branch") if key in entry), "")
        return git_address(where, revision=revision, subdirectory=directory)
    if kind != "url":
        return f"file:{quote(where)}"
    return where + (f"#subdirectory={directory}" if directory else "")


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise Refused(f"{key} must be text, is {redact(describe_value(value))}")
    return value
