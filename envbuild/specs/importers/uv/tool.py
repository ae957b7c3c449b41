"""What ``[tool.uv]`` of a pyproject or a script says about where its requirements come from.

Indexes become options, or those of single packages. A
requirement whose source is an archive is that archive; one that would have to be cloned or built is refused,
since by its name alone another package could come in its place.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from typing import Any
from urllib.parse import quote

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.requirement import BUILD_REMEDY, extra_build_dependencies
from envbuild.specs.model import INDEX_STRATEGIES
from envbuild.specs.problems import Refused
from envbuild.specs.text.toml import describe_value

_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
_VARIABLES = re.compile(r"'[^']*'|\"[^\"]*\"|\b(and|or|not|in)\b|([a-z][a-z_.]*)")
_CARRIED = {
    "sources",
    "index",
    "index-url",
    "extra-index-url",
    "find-links",
    "allow-insecure-host",
    "no-index",
    "constraint-dependencies",
    "build-constraint-dependencies",
    "extra-build-dependencies",
    "index-strategy",
    "no-binary",
    "no-binary-package",
    "no-build",
    "no-build-package",
}
_FORMATS = {"no-binary": "--no-binary", "no-build": "--only-binary"}
"""Which files of a distribution are taken: uv's keys, for all or as a list, and pip's options."""
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WITHOUT_EFFECT = {"package", "managed", "workspace", "required-version", "cache-keys", "build-backend"}
"""About the project itself, which isn't installed, or about uv."""


class UvTool:
    """The table ``[tool.uv]``. ``place`` leads each line of :meth:`left_out`."""

    def __init__(self, table: object, place: str) -> None:
        if not isinstance(table, dict):
            raise Refused(f"must be a table, is {describe_value(table)}")
        self.table: Mapping[str, Any] = table
        self.place = place
        self._asked: dict[str, dict[str, None]] = {}
        """Of the indexes that single packages come from, by name: these, each perhaps with a marker."""

    def sourced(self, requirement: Requirement, selected: frozenset[str]) -> str:
        """``requirement`` as text, with the address that ``sources`` gives it. ``selected`` are the chosen
        ``extra:NAME`` and ``group:NAME``. Raises :class:`Refused`."""
        sources = self._table("sources")
        name = canonicalize_name(requirement.name)
        source = next((value for key, value in sources.items() if canonicalize_name(key) == name), None)
        entries = source if isinstance(source, list) else [] if source is None else [source]
        entries = [entry for entry in entries if _applies(entry, selected)]
        if not entries or requirement.url is not None:
            return str(requirement)
        if len(entries) > 1 and not all("index" in entry and "marker" in entry for entry in entries):
            raise Refused(f"tool.uv.sources: several sources of {name} may apply", "leave one of them")
        texts = [self._from(entry, requirement, name) for entry in entries]
        return texts[0]

    def _from(self, entry: Mapping[str, Any], requirement: Requirement, name: str) -> str:
        key = f"tool.uv.sources.{name}"
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        marker = f" ; {requirement.marker}" if requirement.marker else ""
        index, url, path = entry.get("index"), entry.get("url"), entry.get("path")
        if isinstance(index, str):
            if not any(entry.get("name") == index for entry in self._indexes()):
                raise Refused(f"{key}: no index is called {index!r}", "add it under [[tool.uv.index]]")
            condition = f"; {entry['marker']}" if "marker" in entry else ""
            self._asked.setdefault(index, {})[f"{name}{condition}"] = None
            return str(requirement)
        if "marker" in entry:
            raise Refused(f"{key}: its source depends on a marker", "leave the marker out")
        if isinstance(url, str) and "subdirectory" not in entry:
            return f"{requirement.name}{extras} @ {url}{marker}"
        if isinstance(path, str):
            return f"{requirement.name}{extras} @ file:{quote(path)}{marker}"
        if isinstance(git := entry.get("git"), str):
            revision = next((entry[key] for key in ("rev", "tag", "branch") if key in entry), None)
            address = git_address(git, revision=revision, subdirectory=entry.get("subdirectory"))
            return f"{requirement.name}{extras} @ {address}{marker}"
        kind = next((name for name in ("workspace", "url") if name in entry), "it")
        raise Refused(f"{key}: {kind} is no archive: it would have to be built", BUILD_REMEDY)

    def options(self) -> Iterator[str]:
        """The indexes of all packages as lines of a requirements file, the main one first, the others in uv's
        order."""
        yield from sorted(self._options(), key=lambda option: not option.startswith("--index-url"))

    def _options(self) -> Iterator[str]:
        main, more = self.table.get("index-url"), self.table.get("extra-index-url", [])
        links = self.table.get("find-links", [])
        for entry in self._indexes():
            url = entry.get("url")
            if not isinstance(url, str):
                raise Refused("tool.uv.index: an index has no url")
            if entry.get("explicit") is True:
                continue
            flat = entry.get("format") == "flat"
            option = "--find-links" if flat else "--index-url" if entry.get("default") is True else ""
            yield f"{option or '--extra-index-url'} {shlex.quote(url)}"
        if isinstance(main, str):
            yield f"--index-url {shlex.quote(main)}"
        for text in _texts(more, "tool.uv.extra-index-url"):
            yield f"--extra-index-url {shlex.quote(text)}"
        for text in _texts(links, "tool.uv.find-links"):
            yield f"--find-links {shlex.quote(text)}"
        for text in _texts(self.table.get("allow-insecure-host", []), "tool.uv.allow-insecure-host"):
            yield f"--trusted-host {shlex.quote(text)}"
        if self.table.get("no-index") is True:
            yield "--no-index"
        if self.table.get("prerelease") == "allow":
            yield "--pre"
        for key, option in _FORMATS.items():
            if self.table.get(key) is True:
                yield f"{option} :all:"
            for name in _texts(self.table.get(f"{key}-package", []), f"tool.uv.{key}-package"):
                yield f"{option} {shlex.quote(name)}"

    def package_indexes(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """The address, the packages and the name of each index that has a name, or that single packages come
        from. Ask after every requirement."""
        for entry in self._indexes():
            name = str(entry.get("name", ""))
            packages = self._asked.get(name, {})
            flat = entry.get("format") == "flat"
            if not packages and (flat or not name or entry.get("explicit") is True):
                continue
            if flat:
                raise Refused(
                    f"tool.uv.index: {name!r} is a list of files, and single packages come from it",
                    "name it under find-links, for all packages",
                )
            yield str(entry.get("url")), tuple(packages), name

    def constraints(self) -> tuple[str, ...]:
        """``constraint-dependencies``. Raises :class:`Refused`."""
        return _texts(self.table.get("constraint-dependencies", []), "tool.uv.constraint-dependencies")

    def build_constraints(self) -> tuple[str, ...]:
        """``build-constraint-dependencies``. Raises :class:`Refused`."""
        key = "build-constraint-dependencies"
        return _texts(self.table.get(key, []), f"tool.uv.{key}")

    def extra_build_dependencies(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """``extra-build-dependencies``. Raises :class:`Refused`: ``match-runtime`` has no like here."""
        try:
            return extra_build_dependencies(self._table("extra-build-dependencies"))
        except Refused as refused:
            raise Refused(f"tool.uv.extra-build-dependencies: {refused.what}", refused.remedy) from refused

    def index_strategy(self) -> str | None:
        """``index-strategy``; without it uv's own where indexes are named, as it is for uv that they are.
        Raises :class:`Refused`."""
        if not self.table.keys() & {"index", "index-url", "extra-index-url", "index-strategy"}:
            return None
        strategy = self.table.get("index-strategy", "first-index")
        if strategy not in INDEX_STRATEGIES:
            raise Refused(
                f"tool.uv.index-strategy: {str(strategy)[:40]!r} isn't supported",
                f"write {' or '.join(INDEX_STRATEGIES)}",
            )
        return str(strategy)

    def as_of(self) -> date | None:
        """The last day that ``exclude-newer`` takes files of, where it names one exactly: a date, which uv
        takes to its end, or a midnight of UTC. None for any other moment and for spans of time."""
        written = str(self.table.get("exclude-newer", ""))
        try:
            if _DATE.fullmatch(written):
                return date.fromisoformat(written)
            moment = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", written))
            if moment.tzinfo is None:
                return None
            before = moment.astimezone(timezone.utc) - timedelta(days=1)
        except (ValueError, OverflowError):
            return None
        return before.date() if before.time() == time() else None

    def left_out(self) -> tuple[str, ...]:
        """The keys that nothing here stands for. Ask after everything else."""
        keys = [key for key in self.table if key not in _CARRIED | _WITHOUT_EFFECT]
        if self.as_of() is not None:
            keys.remove("exclude-newer")
        if self.table.get("prerelease") == "allow":
            keys.remove("prerelease")
        remedy = {"exclude-newer": " (as_of in a spec of envbuild's own)"}
        return (*(f"{self.place}: tool.uv.{key}{remedy.get(key, '')}" for key in keys),)

    def _indexes(self) -> list[Mapping[str, Any]]:
        index = self.table.get("index", [])
        if not isinstance(index, list) or not all(isinstance(name, dict) for name in index):
            raise Refused("tool.uv.index: must be tables", "write [[tool.uv.index]]")
        return index

    def _table(self, key: str) -> Mapping[str, Any]:
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise Refused(f"tool.uv.{key}: must be a table, is {describe_value(value)}")
        return value


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Refused(f"{key}: must be a list of texts")
    return tuple(value)


def _applies(entry: object, selected: frozenset[str]) -> bool:
    """Whether a source may count on Linux with these extras and groups."""
    if not isinstance(entry, dict):
        raise Refused(f"tool.uv.sources: must be tables, one is {describe_value(entry)}")
    for kind in ("extra", "group"):
        if kind in entry and f"{kind}:{canonicalize_name(str(entry[kind]))}" not in selected:
            return False
    text = entry.get("marker")
    if text is None:
        return True
    if not isinstance(text, str):
        raise Refused(f"tool.uv.sources: a marker must be text, is {describe_value(text)}")
    try:
        marker = Marker(text)
        named = {match[2] for match in _VARIABLES.finditer(text) if match[2]}
        applies = not named <= set(_LINUX) or marker.evaluate(dict(_LINUX))
    except (InvalidMarker, UndefinedEnvironmentName, RecursionError) as error:
        raise Refused(f"tool.uv.sources: {text!r} is no marker") from error
    if applies and named <= set(_LINUX):
        # Decided: it is the source on every platform an image is made for.
        entry.pop("marker")
    return applies
