"""pipenv's ``Pipfile``, and ``Pipfile.lock`` as it is, without a resolution.

``[packages]`` counts, in a lock ``default``; ``dev-packages`` and other categories where they are named
behind ``#`` (``Pipfile#dev-packages``). A package that names its index is looked for in all that are named,
which is told. What pipenv would clone or build becomes the line that pip has for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from envbuild.errors import SpecError, suggestion
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.git import GIT_PREFIX, git_address
from envbuild.specs.importers.pip.locked import index_address
from envbuild.specs.importers.pip.requirement import canonical_hash
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.model import PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import TOML_LIMIT, describe_value, key_line, parse_toml
from envbuild.specs.text.yaml import LOCK_LIMIT, parse_values

FORMAT = "6"
"""``pipfile-spec`` of the locks that are read: all that were ever written since 2018."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LOCKED = {"packages": "default", "dev-packages": "develop"}
"""What two categories are called in a lock."""
_TABLES = ("source", "requires", "pipenv", "scripts")
_MARKERS = (
    *("os_name", "sys_platform", "platform_machine", "platform_python_implementation", "platform_release"),
    *("platform_system", "platform_version", "python_version", "python_full_version"),
    *("implementation_name", "implementation_version"),
)
_SOURCES = ("git", "hg", "svn", "bzr", "path", "file")
_ENTRY = ("version", "extras", "markers", "index", "hashes", "editable", "ref", "subdirectory")


class PipfileImporter:
    """Reads ``Pipfile`` and ``Pipfile.lock``."""

    name = "pipfile"
    markers: tuple[str, ...] = ("Pipfile.lock", "Pipfile")
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name in self.markers

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        asked = tuple(part for part in file.fragment.split(",") if part)
        pipfile = read_pipfile(file, problems, file.path.parent, asked)
        problems.raise_if_any()
        return Spec(
            name=fields.default_name(file.path),
            source=file.path,
            python=pipfile.python,
            pip=pipfile.pip,
            left_out=pipfile.left_out,
            unrelated=pipfile.unrelated,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipfile:
    """What a ``Pipfile`` or its lock says."""

    python: str | None
    pip: PipSpec
    left_out: tuple[str, ...]
    unrelated: tuple[str, ...] = ()
    """Those lines of it that are no part of the environment."""


def read_pipfile(
    file: SourceFile,
    problems: Problems,
    root: Path,
    categories: Sequence[str] = (),
    *,
    development: bool = False,
) -> Pipfile:
    """What ``file`` says of its packages and of ``categories``; with ``development`` of those for it, too, if
    there are any. Relative paths become relative to ``root``."""
    locked = file.path.name.endswith(".lock")
    text = file.read(LOCK_LIMIT if locked else TOML_LIMIT)
    data = _locked_data(text, file) if locked else parse_toml(text, file.shown)
    more = ["dev-packages"] if development and "dev-packages" in data else []
    return _PipfileReader(file, root, problems, text, data, locked).read([*categories, *more])


def _locked_data(text: str, file: SourceFile) -> Mapping[str, Any]:
    """The lock in the form of a ``Pipfile``."""
    data: Any = parse_values(text, file.shown)
    meta = data.get("_meta") if isinstance(data, dict) else None
    if not isinstance(meta, dict):
        raise SpecError(f"{file.shown}: is no lock of pipenv: it has no '_meta'")
    if meta.get("pipfile-spec") != FORMAT:
        shown = str(meta.get("pipfile-spec"))[:40]
        raise SpecError(
            f"{file.shown}: has format version {shown}; version {FORMAT} is read",
            hint="lock again with a pipenv that writes it",
        )
    renamed = {locked: category for category, locked in _LOCKED.items()}
    categories = {renamed.get(key, key): value for key, value in data.items() if key != "_meta"}
    return {**categories, "source": meta.get("sources") or [], "requires": meta.get("requires") or {}}


@dataclass(slots=True)
class _PipfileReader:
    file: SourceFile
    root: Path
    problems: Problems
    text: str
    data: Mapping[str, Any]
    locked: bool
    left_out: list[str] = field(default_factory=list)
    unrelated: list[str] = field(default_factory=list)
    asked: dict[str, list[str]] = field(default_factory=dict)
    """Which packages name a source."""
    """Names of the indexes that packages name."""

    def read(self, asked: Sequence[str]) -> Pipfile:
        reader = RequirementsReader(self.root, self.problems)
        known = [key for key in self.data if key not in _TABLES]
        chosen = ["packages", *(self._category(name, known) for name in asked)]
        for category in dict.fromkeys(chosen):
            for name, entry in self._table(category).items():
                key = f"{_LOCKED.get(category, category) if self.locked else category}.{name}"
                try:
                    text = self._requirement(name, entry, key)
                    reader.read_text(text, self.file, line=key_line(self.text, name) or 1, key=key)
                except Refused as refused:
                    self._problem(key, refused.what, refused.remedy)
        for category in known:
            if category not in chosen and self._table(category):
                self._leave(f"{category}: choose it with #{category}", unrelated=True)
        for index, source in enumerate(self._sources()):
            try:
                option = self._option(index, source, reader)
                if option:
                    reader.read_text(option, self.file, line=1, key=f"source[{index}]")
            except Refused as refused:
                self._problem(f"source[{index}]", refused.what, refused.remedy)
        self._settings(reader)
        pip = reader.result()
        if self.locked and pip.requirements:
            pip = replace(pip, complete=True)
        return Pipfile(
            python=self._python(),
            pip=pip,
            left_out=tuple(dict.fromkeys(self.left_out)),
            unrelated=tuple(dict.fromkeys(self.unrelated)),
        )

    def _category(self, name: str, known: Sequence[str]) -> str:
        renamed = {"dev": "dev-packages", "develop": "dev-packages", "default": "packages"}
        category = name if name in known else renamed.get(name, name)
        if category not in known:
            remedy = suggestion(name, known, quoted=True) or f"it has: {', '.join(known) or 'none'}"
            self._problem(f"#{name}", f"no category of packages is called {name!r}", remedy)
        return category

    def _requirement(self, name: str, entry: object, key: str) -> str:
        """One package as pip's line, with the hashes a lock has of it."""
        if _NAME.fullmatch(name) is None:
            raise Refused(f"{redact(name)!r} is no name of a distribution")
        table = entry if isinstance(entry, dict) else {"version": entry}
        for word in table:
            if word not in (*_ENTRY, *_MARKERS, *_SOURCES):
                self._leave(f"{key}.{word}")
        if isinstance(index := table.get("index"), str):
            self.asked.setdefault(index, []).append(name)
        hashes = table.get("hashes", [])
        if not isinstance(hashes, list) or not all(isinstance(text, str) for text in hashes):
            raise Refused("hashes must be a list of texts")
        stated = "".join(f" --hash={canonical_hash(text)}" for text in hashes)
        # What extras bring is in a lock by itself.
        extras = "" if self.locked else _extras(table.get("extras", []))
        marker = _marker(table)
        source = next((kind for kind in _SOURCES if kind in table), None)
        if source is None:
            if self.locked and not hashes:
                raise Refused("has no hash", "lock again: the file is damaged")
            return _line(f"{name}{extras}{_version(table.get('version', '*'))}{marker}") + stated
        where = table[source]
        if not isinstance(where, str):
            raise Refused(f"{source} must be text, is {describe_value(where)}")
        if source == "path":
            path = where if where.startswith((".", "/")) else f"./{where}"
            line = f"{path}{extras}"
        elif source == "file" and "://" not in where:
            line = f"{name}{extras} @ file:{quote(where)}"
        else:
            ref, directory = table.get("ref"), table.get("subdirectory")
            scheme = "" if source == "file" else f"{source}+"
            revision = ref if scheme else None
            address = git_address(where.removeprefix(scheme), revision=revision, subdirectory=directory)
            line = f"{name}{extras} @ {scheme}{address.removeprefix(GIT_PREFIX)}"
        editable = source == "path" and table.get("editable") in (True, "true")
        return ("-e " if editable else "") + _line(f"{line}{' ' + marker if marker else ''}") + stated

    def _sources(self) -> Sequence[Mapping[str, Any]]:
        sources = self.data.get("source", [])
        if isinstance(sources, list) and all(isinstance(source, dict) for source in sources):
            return sources
        self._problem("source", "must be tables", "write [[source]]")
        return ()

    def _option(self, index: int, source: Mapping[str, Any], reader: RequirementsReader) -> str:
        """The option that names an index; none for the default one, whose address the machine's settings say,
        and for one that only the packages which name it come from: ``reader`` is told."""
        name, url = str(source.get("name", "")), source.get("url")
        if not isinstance(url, str):
            raise Refused("has no url")
        searched = self._table("pipenv").get("install_search_all_sources") is True
        if index and not searched and name not in self.asked:
            self._leave(f"source[{index}] ({name}): no package names it")
            return ""
        address = index_address(url)
        if source.get("verify_ssl") in (False, "false"):
            host = urlsplit(address).netloc.rpartition("@")[2]
            reader.read_text(f"--trusted-host {host}", self.file, line=1, key=f"source[{index}].verify_ssl")
        if index and name in self.asked:
            reader.read_index(address, self.asked[name], name)
        if index and not searched:
            return ""
        # As pipenv writes it into every file.
        if name == "pypi" and urlsplit(address).hostname == f"{name}.org":
            return ""
        return f"{'--extra-index-url' if index else '--index-url'} {address}"

    def _settings(self, reader: RequirementsReader) -> None:
        settings = self._table("pipenv")
        if settings.get("allow_prereleases") is True:
            reader.read_text("--pre", self.file, line=1, key="pipenv.allow_prereleases")
        silent = ("allow_prereleases", "install_search_all_sources", "sort_pipfile")
        for key in settings:
            if key not in silent:
                self._leave(f"pipenv.{key}")
        if self._table("scripts"):
            self._leave("scripts: commands aren't part of an environment", unrelated=True)

    def _python(self) -> str | None:
        requires = self._table("requires")
        for key in ("python_full_version", "python_version"):
            value = requires.get(key)
            if value in (None, "*"):
                continue
            try:
                return fields.python(str(value))
            except Refused as refused:
                self._problem(f"requires.{key}", refused.what, refused.remedy)
        return None

    def _table(self, key: str) -> Mapping[str, Any]:
        table = self.data.get(key, {})
        if isinstance(table, dict):
            return table
        self._problem(key, f"must be a table, is {describe_value(table)}")
        return {}

    def _leave(self, what: str, *, unrelated: bool = False) -> None:
        line = f"{self.file.path.name}: {what}"
        self.left_out.append(line)
        if unrelated:
            self.unrelated.append(line)

    def _problem(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(Place(file=self.file.shown, key=key), what, remedy)


def _version(text: object) -> str:
    """A version specifier: nothing for ``*``; a bare version is that one."""
    if not isinstance(text, str):
        raise Refused(f"must be a version or a table, is {describe_value(text)}")
    text = text.strip()
    if text in ("", "*"):
        return ""
    return f"=={text}" if text[0].isdigit() else text


def _extras(value: object) -> str:
    if not isinstance(value, list) or not all(isinstance(extra, str) for extra in value):
        raise Refused("extras must be a list of texts")
    return f"[{','.join(value)}]" if value else ""


def _marker(table: Mapping[str, Any]) -> str:
    """``markers`` and the markers that are keys of their own (``sys_platform = "== 'linux'"``)."""
    parts = []
    for key in ("markers", *_MARKERS):
        value = table.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise Refused(f"{key} must be text, is {describe_value(value)}")
        parts.append(value if key == "markers" else f"{key} {value}")
    if len(parts) == 1:
        return f"; {parts[0]}"
    return f"; {' and '.join(f'({part})' for part in parts)}" if parts else ""


def _line(text: str) -> str:
    """One line of a requirements file without an option and a comment."""
    if len(text.splitlines()) != 1 or re.search(r"\s[-#]|^-", text):
        raise Refused(f"{redact(text)[:200]!r} is no requirement")
    return text
