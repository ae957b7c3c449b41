"""Conda's ``environment.yml``, as a file of its own or as ``conda_file`` of a spec.

No channels: conda's own ``defaults``, as conda would take, with a note. ``nodefaults`` is dropped, since
nothing is ever added to the channels a file names. ``prefix`` and ``category`` say nothing about an image.
The platform selectors of conda-lock (``# [linux64]``) count. What conda only warns of, an unknown key, is
warned of here, too; inside a spec it is a mistake.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import UsageError, suggestion
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.fields import refuse_credential
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.match import canonical_match, explicit_package, split_match
from envbuild.specs.model import CondaSpec, ExplicitPackage, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Scalar,
    Sequence,
    describe,
    is_null,
    unnamed_mapping,
    yaml_document,
)
from envbuild.specs.text.source import SourceFile

_log = logging.getLogger(__name__)

DEFAULT_CHANNEL = "defaults"
KEYS = ("name", "channels", "dependencies", "variables", "platforms", "prefix", "category")

_SELECTOR = re.compile(r"\s#.*?\[\s*([a-z0-9_-]+)\s*\]")
_MEANT = suggestion("dependecies", ("dependencies",), quoted=True)
"""Conda would make an empty environment of such a file."""
_OTHER_PLATFORM = re.compile(
    r"(?:osx|win|freebsd|zos|emscripten|wasi)-[a-z0-9]+|linux-(?:32|ppc64|ppc64le|s390x|armv6l|armv7l|riscv32|riscv64)"
    r"|noarch"
)
"""Those of conda that there are no images of."""
_LINUX = frozenset({LINUX_AMD64, LINUX_ARM64})
_SELECTORS: dict[str, frozenset[Platform]] = {
    "linux": _LINUX,
    "unix": _LINUX,
    "linux64": frozenset({LINUX_AMD64}),
    "linux-64": frozenset({LINUX_AMD64}),
    "aarch64": frozenset({LINUX_ARM64}),
    "linux-aarch64": frozenset({LINUX_ARM64}),
} | dict.fromkeys(
    ("osx", "osx64", "arm64", "osx-64", "osx-arm64", "win", "win64", "win-64", "ppc64le"), frozenset()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaFile:
    """What an ``environment.yml`` says. ``platforms`` is None where it names none."""

    name: str | None
    conda: CondaSpec | None
    pip: PipSpec
    variables: tuple[tuple[str, str], ...]
    platforms: tuple[Platform, ...] | None


class CondaImporter:
    """Reads conda's ``environment.yml``."""

    name = "conda"
    markers: tuple[str, ...] = ("environment.yaml", "environment.yml", "conda.yaml", "conda.yml")

    def recognises(self, file: SourceFile) -> bool:
        yaml = file.path.suffix.lower() in (".yaml", ".yml")
        root = yaml_document(file).root if yaml else unnamed_mapping(file)
        return isinstance(root, Mapping) and is_conda(root)

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        document = yaml_document(file)
        conda_file = read_conda(document, file, file.path.parent, problems)
        problems.raise_if_any()
        given = conda_file.name
        if given is not None and fields.fit_name(given) != given:
            _log.warning("%s: the name %r becomes %r", file.shown, given, fields.fit_name(given))
        return Spec(
            name=fields.default_name(file.path) if given is None else fields.fit_name(given),
            named=given is not None,
            source=file.path,
            platforms=conda_file.platforms or (LINUX_AMD64,),
            conda=conda_file.conda,
            pip=conda_file.pip,
            environment_variables=conda_file.variables,
        )


def is_conda(root: Mapping) -> bool:
    """Whether a mapping has conda's top-level keys and none that only a spec has."""
    keys = {key.text for key, _ in root.entries}
    native = {"image", "base", "build", "conda_file", "requirements", "python", "type", "runtime", "as_of"}
    return bool(keys & {"channels", "dependencies"}) and not keys & native


def conda_python(spec: Spec) -> str | None:
    """What the conda dependencies say about python, as written; None where they don't name it.

    ``3.11`` for ``python=3.11``, ``3.8.*``, ``>=3.10,<3.13``, ``==3.11.4``; ``*`` for a bare ``python``.
    Several are joined by commas.
    """
    if spec.conda is None:
        return None
    matches = [split_match(dependency) for dependency in spec.conda.dependencies]
    versions = [match.version for match in matches if match.name == "python"]
    if not versions:
        return None
    return ",".join(version for version in versions if version) or "*"


def read_conda(
    document: Document,
    file: SourceFile,
    root: Path,
    problems: Problems,
    *,
    key: str = "",
    platforms: tuple[Platform, ...] | None = None,
    default_channel: str | None = None,
) -> CondaFile:
    """What ``document`` says; problems are added to ``problems``. Relative paths become relative to ``root``.

    ``key`` is the key path it stands under; ``platforms`` are the spec's, which win over the file's own.
    ``default_channel`` is what a file without channels gets, where its reader has one set up.
    Inside a spec ``explicit`` may stand in place of ``dependencies``: exact packages for each platform.
    """
    return _CondaFileReader(document, file, root, problems, key, platforms).read(default_channel)


class _CondaFileReader:
    def __init__(
        self,
        document: Document,
        file: SourceFile,
        root: Path,
        problems: Problems,
        key: str,
        platforms: tuple[Platform, ...] | None,
    ) -> None:
        self.document = document
        self.file = file
        self.root = root
        self.problems = problems
        self.key = key
        self.platforms = platforms
        self.pip = RequirementsReader(root, problems)

    def read(self, default_channel: str | None) -> CondaFile:
        top = self.document.root
        if not isinstance(top, Mapping):
            what = "is empty" if top is None else f"must be a mapping, is {describe(top)}"
            self._problem(top, "", what, "give channels and dependencies")
            top = Mapping((), 1)
        keys = (*KEYS, "explicit") if self.key else KEYS
        for key, _ in top.entries:
            if key.text not in keys:
                remedy = suggestion(key.text, keys, quoted=True) or f"known keys: {', '.join(keys)}"
                if self.key or (top.get("dependencies") is None and remedy == _MEANT):
                    self._problem(key, key.text, "unknown key", remedy)
                else:
                    _log.warning(
                        "%s: unknown key, ignored as conda does; %s", self._place(key, key.text), remedy
                    )
            elif key.text in ("prefix", "category"):
                _log.info("%s: %s is ignored", self._place(key, key.text), key.text)
        explicit = self._explicit(top.get("explicit")) if self.key else ()
        own = self._platforms(top.get("platforms"))
        if own is None and explicit:
            own = tuple(dict.fromkeys(package.platform for package in explicit))
        effective = self.platforms or own or (LINUX_AMD64,)
        name = top.get("name")
        channels = self._channels(top.get("channels"))
        dependencies = self._dependencies(top.get("dependencies"), effective)
        variables = self._variables(top.get("variables"))
        conda = None
        if explicit:
            self._check_explicit(top, explicit, dependencies, effective)
            conda = CondaSpec(channels=channels or (), dependencies=(), explicit=explicit)
        elif dependencies:
            if channels is None and default_channel is not None:
                channels = (default_channel,)
            elif channels is None:
                channels = (DEFAULT_CHANNEL,)
                _log.warning(
                    "%s: no channels, so conda's own (%s) are taken; name them, e.g. channels: [conda-forge]",
                    self._place(None, "channels"),
                    DEFAULT_CHANNEL,
                )
            conda = CondaSpec(channels=channels, dependencies=dependencies)
        return CondaFile(
            name=None if is_null(name) else self._text(name, "name"),
            conda=conda,
            pip=self.pip.result(),
            variables=variables,
            platforms=own,
        )

    def _channels(self, node: Node | None) -> tuple[str, ...] | None:
        if is_null(node):
            return None
        if isinstance(node, Sequence) and not node.items and not self.key:
            return None  # Of conda's own file; inside a spec an empty list is what was meant.
        channels: list[str] = []
        for index, item in enumerate(self._items(node, "channels")):
            key = f"channels[{index}]"
            text = self._text(item, key)
            if text is None or text == "nodefaults":
                continue
            try:
                channel = _channel(text, self.file, self.root)
            except Refused as refused:
                self._problem(item, key, refused.what, refused.remedy)
                continue
            if channel not in channels:
                channels.append(channel)
        return tuple(channels)

    def _dependencies(self, node: Node | None, platforms: tuple[Platform, ...]) -> tuple[str, ...]:
        dependencies: dict[str, None] = {}
        for index, item in enumerate(self._items(node, "dependencies")):
            key = f"dependencies[{index}]"
            if isinstance(item, Mapping):
                self._pip(item, key, platforms)
            elif is_null(item):
                self._problem(item, key, "is empty")
            elif self._selected(item, key, platforms) and (text := self._text(item, key)) is not None:
                try:
                    dependencies.setdefault(canonical_match(text))
                except Refused as refused:
                    self._problem(item, key, refused.what, refused.remedy)
        return tuple(dependencies)

    def _explicit(self, node: Node | None) -> tuple[ExplicitPackage, ...]:
        if is_null(node):
            return ()
        if not isinstance(node, Mapping):
            self._problem(node, "explicit", "must be a mapping of platforms to lists of addresses")
            return ()
        packages: dict[tuple[Platform, str], ExplicitPackage] = {}
        for name, value in node.entries:
            key = f"explicit.{name.text}"
            try:
                platform = Platform.parse(name.text)
            except UsageError as error:
                self._problem(name, key, error.message, error.hint)
                continue
            for index, item in enumerate(self._items(value, key)):
                place = f"{key}[{index}]"
                text = self._text(item, place)
                try:
                    if text is not None:
                        package = explicit_package(text, platform)
                        if packages.setdefault((platform, package.url), package) != package:
                            raise Refused(f"{package.url!r} is there twice, with two hashes")
                except Refused as refused:
                    self._problem(item, place, refused.what, refused.remedy)
        return tuple(packages[place] for place in sorted(packages))

    def _check_explicit(
        self,
        top: Mapping,
        explicit: tuple[ExplicitPackage, ...],
        dependencies: tuple[str, ...],
        platforms: tuple[Platform, ...],
    ) -> None:
        if dependencies:
            remedy = "exact packages are all there is: leave one of the two out"
            self._problem(top.get("dependencies"), "dependencies", "excludes 'explicit'", remedy)
        for platform in platforms:
            if not any(package.platform == platform for package in explicit):
                self._problem(top.get("explicit"), "explicit", f"names no package for {platform}")

    def _pip(self, node: Mapping, key: str, platforms: tuple[Platform, ...]) -> None:
        for name, value in node.entries:
            if name.text != "pip":
                remedy = "write 'name=version' as one text; only 'pip:' is a mapping here"
                self._problem(name, f"{key}.{name.text}", "unknown kind of dependency", remedy)
                continue
            for index, item in enumerate(self._items(value, f"{key}.pip")):
                place = f"{key}.pip[{index}]"
                text = self._text(item, place)
                if text is not None and self._selected(item, place, platforms):
                    self.pip.read_text(text, self.file, line=item.line, key=self._path(place))

    def _selected(self, node: Node, key: str, platforms: tuple[Platform, ...]) -> bool:
        """Whether conda-lock's selector in the comment of a line, if any, lets it count."""
        if not isinstance(node, Scalar) or not 0 < node.line <= len(self.document.lines):
            return True
        match = _SELECTOR.search(self.document.lines[node.line - 1])
        chosen = _SELECTORS.get(match[1]) if match is not None else None
        if match is None or chosen is None or chosen >= set(platforms):
            return True
        if chosen & set(platforms):
            remedy = "platforms of one spec share their dependencies: write a spec for each"
            self._problem(
                node, key, f"the selector [{match[1]}] holds for some of the platforms only", remedy
            )
        else:
            _log.info("%s: left out, its selector is [%s]", self._place(node, key), match[1])
        return False

    def _variables(self, node: Node | None) -> tuple[tuple[str, str], ...]:
        if is_null(node):
            return ()
        if not isinstance(node, Mapping):
            self._problem(node, "variables", "must be a mapping of names to values")
            return ()
        pairs = {}
        for name, value in node.entries:
            key = f"variables.{name.text}"
            text = self._text(value, key)
            try:
                fields.variable_name(name.text)
            except Refused as refused:
                self._problem(name, key, refused.what, refused.remedy)
            if text is not None:
                pairs[name.text] = text
        return tuple(sorted(pairs.items()))

    def _platforms(self, node: Node | None) -> tuple[Platform, ...] | None:
        if is_null(node):
            return None
        texts = []
        others = []
        for index, item in enumerate(self._items(node, "platforms")):
            text = self._text(item, f"platforms[{index}]")
            if text is not None and _OTHER_PLATFORM.fullmatch(text):
                _log.info("%s: %s has no images, it is left out", self._place(item, "platforms"), text)
                others.append(text)
            elif text is not None:
                texts.append(text)
        if others and not texts:
            shown = ", ".join(others)
            _log.warning("%s: no images for %s: linux-64 is taken", self._place(node, "platforms"), shown)
            return None
        try:
            return fields.platforms(texts)
        except Refused as refused:
            self._problem(node, "platforms", refused.what, refused.remedy)
            return None

    def _items(self, node: Node | None, key: str) -> Seq[Node]:
        if is_null(node):
            return ()
        if isinstance(node, Sequence):
            return node.items
        self._problem(
            node, key, f"must be a list, is {describe(node) if node else 'empty'}", "begin lines with '- '"
        )
        return ()

    def _text(self, node: Node | None, key: str) -> str | None:
        if isinstance(node, Scalar) and node.kind != "null":
            return node.text
        self._problem(node, key, f"must be text, is {describe(node) if node else 'empty'}")
        return None

    def _path(self, key: str) -> str:
        return f"{self.key}.{key}" if self.key and key else self.key or key

    def _place(self, node: Node | None, key: str) -> Place:
        return Place(file=self.file.shown, line=node.line if node else None, key=self._path(key))

    def _problem(self, node: Node | None, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(self._place(node, key), what, remedy)


def _channel(text: str, file: SourceFile, root: Path) -> str:
    """A channel without a slash at its end; a relative path is made relative to ``root``."""
    text = text.strip()
    if re.match(r"[a-z][a-z0-9+]*://", text):
        refuse_credential(text)
        if re.search(r"\s", text) or not text.startswith(
            ("https://", "http://", "file://", "oci://", "s3://")
        ):
            raise Refused(f"{redact(text)!r} is no address of a channel")
        return text.rstrip("/")
    if text.startswith(("./", "../")) or text in (".", ".."):
        relative = Path(os.path.relpath(file.path.parent / text, root)).as_posix()
        return relative if relative.startswith(".") else f"./{relative}"
    if text.startswith("/"):
        return "file://" + text.rstrip("/")
    if re.fullmatch(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", text) is None:
        raise Refused(f"{redact(text)!r} is no channel", "a name, an address, or a path that begins with ./")
    return text
