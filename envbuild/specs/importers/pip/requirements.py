"""Requirements files, and lines of the same language inside other files, as one :class:`PipSpec`.

The language is pip's (``requirements-file-format``): comments, line continuations, ``-r`` and ``-c`` relative
to the including file, options, hashes. Relative paths are rewritten relative to the spec's directory.
``${VAR}`` is kept as text, so no value of an environment variable reaches a spec, a lock or an identity.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuild.errors import SpecError, suggestion
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.fields import refuse_credential
from envbuild.specs.importers.pip.requirement import (
    ARCHIVE,
    BUILD_REMEDY,
    Directories,
    canonical_hash,
    canonical_requirement,
    local_path,
)
from envbuild.specs.importers.pip.version_file import python_beside
from envbuild.specs.model import Origin, PackageIndex, PipRequirement, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import REQUIREMENTS_LIMIT, SourceFile
from envbuild.specs.text.toml import TOML_LIMIT, parse_toml

FILE_LIMIT = 100
"""Files one requirements file may lead to, itself included."""

_log = logging.getLogger(__name__)

_DIRECTORY = re.compile(r"(?:file:(?://)?)?(?P<path>[^\[\]:;@#$\0]+?)/?(?:\[(?P<extras>[^\[\]]*)\])?")
_OWN_EXTRAS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*\[([^\[\]]+)\]")
_COMMENT = re.compile(r"(?:^|\s+)#.*$")

HOST = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")

_SHORT = {"-i": "--index-url", "-f": "--find-links", "-e": "--editable", "--pypi-url": "--index-url"}
_SHORT |= {"-r": "--requirement", "-c": "--constraint"}
_FLAGS = ("--no-index", "--pre", "--prefer-binary")
_IGNORED_FLAGS = {"--require-hashes": "every pin of a lock has its hash anyway"}
_IGNORED = {
    "--use-feature": "it steers pip itself, and pip doesn't install here",
}
_VALUES = (
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--trusted-host",
    "--no-binary",
    "--only-binary",
)
_REFUSED = {
    "--config-settings": ("it steers the build of a source distribution", "name a wheel instead"),
    "--global-option": ("it steers the build of a source distribution", "name a wheel instead"),
    "--install-option": ("it steers the build of a source distribution", "name a wheel instead"),
}
_TAKES_VALUE = frozenset(
    {*_VALUES, *_IGNORED, *_REFUSED, "--requirement", "--constraint", "--hash", "--editable"}
)
_KNOWN = (*sorted(_TAKES_VALUE), *_FLAGS, *_IGNORED_FLAGS)


@dataclass(frozen=True, slots=True)
class _Context:
    """Which file a line stands in, and what the lines of that file are."""

    file: SourceFile
    constraint: bool
    stack: tuple[Path, ...]
    key: str = ""


@dataclass(slots=True)
class RequirementsReader:
    """Collects requirements, constraints and options from any number of files and lines.

    ``root`` is the directory of the spec. Problems go to ``problems``; nothing is raised.
    """

    root: Path
    problems: Problems
    _requirements: dict[tuple[str, tuple[str, ...]], PipRequirement] = field(default_factory=dict)
    _constraints: dict[tuple[str, tuple[str, ...]], PipRequirement] = field(default_factory=dict)
    _index: str | None = None
    _options: dict[str, None] = field(default_factory=dict)
    _indexes: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _files: int = 0

    def result(self) -> PipSpec:
        """What was read. Of several ``--index-url`` the last counts, as in pip, with the further indexes of
        its line and of later ones; the rest keep their order."""
        index = (f"--index-url {self._index}",) if self._index is not None else ()
        return PipSpec(
            requirements=tuple(self._requirements.values()),
            constraints=tuple(self._constraints.values()),
            options=(*index, *self._options),
            indexes=tuple(
                sorted(
                    PackageIndex(url=url, name=name, packages=tuple(sorted(packages)))
                    for (url, name), packages in self._indexes.items()
                )
            ),
        )

    def names(self, url: str) -> bool:
        """Whether an option names this index."""
        options = (option.partition(" ")[2] for option in self._options)
        return url.rstrip("/") in (address.rstrip("/") for address in (self._index or "", *options))

    def read_index(self, url: str, packages: Iterable[str], name: str = "") -> None:
        """Takes an index that only ``packages`` come from, each a name that may have a marker; without any,
        only its name.

        Raises :class:`Refused` for what is none, and for one of which two indexes are said."""
        address = _index_address(url).rstrip("/")
        if name and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            raise Refused(f"{name[:100]!r} is no name of an index", "write letters, digits, '.', '_', '-'")
        self._indexes.setdefault((address, name), set())
        for text in packages:
            package = _indexed_package(text)
            others = (key for key, known in self._indexes.items() if package in known)
            if (other := next(others, (address, name))) != (address, name):
                raise Refused(
                    f"{package} is to come from {redact(address)!r} and from {redact(other[0])!r}",
                    "one distribution has one index; markers may part its targets",
                )
            self._indexes[address, name].add(package)

    def read_file(self, file: SourceFile, *, constraint: bool = False) -> None:
        """Reads a requirements file and every file it includes; as constraints where that is said."""
        self._read(_Context(file, constraint, ()), None)

    def read_text(
        self, text: str, file: SourceFile, *, line: int, key: str, constraint: bool = False
    ) -> None:
        """Reads lines that stand inside another file, at ``line`` under the key path ``key``."""
        context = _Context(file, constraint, (), key)
        for _, logical in _logical_lines(text):
            self._line(logical, line, context)

    def _read(self, context: _Context, included_at: Place | None) -> None:
        file = context.file
        self._files += 1
        if self._files > FILE_LIMIT:
            if self._files == FILE_LIMIT + 1:
                place = included_at or Place(file=file.shown)
                self.problems.add(place, f"more than {FILE_LIMIT} requirements files are included")
            return
        try:
            text = file.read(REQUIREMENTS_LIMIT, coded=True)
        except SpecError as error:
            if included_at is None:
                self.problems.include(error)
            else:
                self.problems.add(included_at, str(error))
            return
        for number, logical in _logical_lines(text):
            self._line(logical, number, context)

    def _line(self, text: str, number: int, context: _Context) -> None:
        place = Place(file=context.file.shown, line=number, key=context.key)
        requirement, options = _split(text)
        try:
            words = shlex.split(options) if options else []
        except ValueError:
            self.problems.add(place, f"{redact(options)!r}: a quotation mark is not closed")
            return
        hashes: list[str] = []
        pairs = list(self._option_pairs(words, place))
        if any(name == "--index-url" for name, _ in pairs):
            # As in pip it takes the place of all indexes that earlier lines name.
            self._options = {
                option: None for option in self._options if not option.startswith("--extra-index-url ")
            }
        for name, value in pairs:
            try:
                if name == "--hash":
                    hashes.append(canonical_hash(value))
                    if not requirement:
                        raise Refused("--hash stands without a requirement")
                elif name == "--editable" and not requirement:
                    project = self._directory(value, context, editable=True)
                    if project is not None:
                        self._project(project, place, context)
                    else:
                        _log.info("%s: %s is installed as it is, not as an editable", place, redact(value))
                        self._requirement(value, [], place, number, context)
                elif name in _REFUSED:
                    what, remedy = _REFUSED[name]
                    raise Refused(f"{name} {redact(value)}: {what}", remedy)
                elif requirement:
                    raise Refused(f"{name} can't follow a requirement", "write it on a line of its own")
                else:
                    self._option(name, value, place, context)
            except Refused as refused:
                self.problems.add(place, refused.what, refused.remedy)
        if requirement:
            self._requirement(requirement, hashes, place, number, context)

    def _requirement(
        self, text: str, hashes: list[str], place: Place, number: int, context: _Context
    ) -> None:
        try:
            project = self._directory(text, context)
            if project is not None:
                self._project(project, place, context)
                return
            canonical, more = canonical_requirement(text, self._directories(context))
        except Refused as refused:
            self.problems.add(place, refused.what, refused.remedy)
            return
        where = f"{number}: {context.key}" if context.key else str(number)
        item = PipRequirement(
            text=canonical,
            hashes=tuple(sorted({*hashes, *more})),
            origin=Origin(file=context.file.relative_to(self.root), where=where),
        )
        (self._constraints if context.constraint else self._requirements).setdefault(item.canonical, item)

    def _directory(self, text: str, context: _Context, *, editable: bool = False) -> re.Match[str] | None:
        """The parts of ``text`` where it names a directory as pip has it (``./lib[extra]``)."""
        match = _DIRECTORY.fullmatch(text.strip())
        if match is None or context.constraint or not (editable or re.match(r"\.|.*/", match["path"])):
            return None
        return match if context.file.beside(match["path"]).path.is_dir() else None

    def _project(self, match: re.Match[str], place: Place, context: _Context) -> None:
        """Takes what the project in a directory depends on (PEP 621). The project itself is left out."""
        file = context.file.beside(f"{match['path']}/pyproject.toml")
        if not file.is_there():
            raise Refused(
                f"{redact(match['path'])!r} is a source tree without a pyproject.toml", BUILD_REMEDY
            )
        try:
            table = parse_toml(file.read(TOML_LIMIT), file.shown).get("project")
        except SpecError as error:
            raise Refused(str(error)) from error
        extras = [
            canonicalize_name(name.strip()) for name in (match["extras"] or "").split(",") if name.strip()
        ]
        inner = _Context(file, False, (), "project.dependencies")
        for text in _project_requirements(table, extras, file.shown):
            self._requirement(text, [], Place(file=file.shown, key=inner.key), 1, inner)
        _log.warning("%s: the project in %s: only what it depends on is installed", place, match["path"])

    def _option_pairs(self, words: list[str], place: Place) -> Iterator[tuple[str, str]]:
        """Options under their long names with their values (``""`` for a flag)."""
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition("=")
            if not word.startswith("--") and len(word) > 2 and word[:2] in _SHORT:
                name, equals, value = word[:2], "=", word[2:]
            name = _SHORT.get(name, name)
            if name in _FLAGS or name in _IGNORED_FLAGS:
                if equals:
                    self.problems.add(place, f"{name} takes no value")
                else:
                    yield name, ""
            elif name in _TAKES_VALUE:
                if not equals:
                    value = next(rest, "")
                if value:
                    yield name, value
                else:
                    self.problems.add(place, f"{name} needs a value")
            elif not name.startswith("-"):
                self.problems.add(
                    place, f"{redact(word)!r} follows an option", "write it on a line of its own"
                )
            else:
                remedy = suggestion(name, _KNOWN) or None
                self.problems.add(place, f"unknown option {redact(name)!r}", remedy)

    def _option(self, name: str, value: str, place: Place, context: _Context) -> None:
        if name in ("--requirement", "--constraint"):
            self._include(value, name == "--constraint", place, context)
        elif name in _IGNORED or name in _IGNORED_FLAGS:
            _log.warning("%s: %s is ignored: %s", place, name, (_IGNORED | _IGNORED_FLAGS)[name])
        elif name in _FLAGS:
            self._options.setdefault(name)
        elif name == "--index-url":
            self._index = _index_address(value)
        elif name == "--extra-index-url":
            self._options.setdefault(f"{name} {_index_address(value)}")
        elif name == "--trusted-host":
            if not HOST.fullmatch(value):
                raise Refused(f"--trusted-host: {redact(value)!r} is no host", "write HOST or HOST:PORT")
            _log.warning("%s: the certificate of %s isn't checked, as the file says", place, value)
            self._options.setdefault(f"{name} {value}")
        elif name == "--find-links":
            self._options.setdefault(f"{name} {self._links(value, context)}")
        else:
            self._options.setdefault(f"{name} {_format_control(name, value)}")

    def _include(self, written: str, constraint: bool, place: Place, context: _Context) -> None:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", written):
            remedy = "download it beside the spec: a spec must be complete on disk"
            raise Refused(f"{redact(written)!r} is not a local file", remedy)
        if "${" in written or "\0" in written:
            raise Refused(f"the path {redact(written)!r} can't be used", "write it relative to this file")
        file = context.file.beside(written)
        stack = (*context.stack, context.file.path)
        if file.path in stack:
            cycle = " → ".join(path.name for path in (*stack[stack.index(file.path) :], file.path))
            raise Refused(f"{written!r} includes itself ({cycle})")
        if file.relative_to(self.root).startswith(".."):
            _log.info("%s: %s lies outside the spec's directory", place, file.shown)
        self._read(_Context(file, constraint or context.constraint, stack), place)

    def _links(self, value: str, context: _Context) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", value) or value.startswith("${"):
            refuse_credential(value)
            return value
        where = self._directories(context)
        if "\0" in value or not (where.base / value).exists():
            raise Refused(f"--find-links {value}: no such file or directory")
        if ARCHIVE.search(value):
            raise Refused(f"--find-links {value} is a file of a distribution", "name its directory")
        return local_path(value, where)

    def _directories(self, context: _Context) -> Directories:
        return Directories(context.file.path.parent, self.root)


def _project_requirements(table: object, extras: Sequence[str], shown: str) -> tuple[str, ...]:
    """The dependencies of the project ``table`` with those of ``extras``, and of extras that these name by
    the project's own name. Raises :class:`Refused`."""
    project = table if isinstance(table, dict) else {}
    own, dynamic = project.get("name"), project.get("dynamic", [])
    if not isinstance(own, str) or not isinstance(dynamic, list):
        raise Refused(f"{shown} has no [project] with a name", BUILD_REMEDY)
    optional = project.get("optional-dependencies", {})
    if not isinstance(optional, dict):
        raise Refused(f"{shown}: project.optional-dependencies must be a table")
    lists = {canonicalize_name(name): texts for name, texts in optional.items()} | {
        "": project.get("dependencies", [])
    }
    made = {"dependencies", *(["optional-dependencies"] if extras else [])} & set(map(str, dynamic))
    if made:
        raise Refused(f"{shown}: its {sorted(made)[0]} are made by its build", "list them in [project]")
    taken: dict[str, None] = {}
    pending, seen = ["", *extras], set[str]()
    while pending:
        key = pending.pop(0)
        if key in seen:
            continue
        seen.add(key)
        texts = lists.get(key)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            known = ", ".join(sorted(filter(None, lists))) or "none"
            raise Refused(
                f"{shown}: it has no list of dependencies for the extra {key!r}", f"it has: {known}"
            )
        for text in texts:
            reference = _OWN_EXTRAS.fullmatch(text.strip())
            if reference is not None and canonicalize_name(reference[1]) == canonicalize_name(own):
                pending += [canonicalize_name(name.strip()) for name in reference[2].split(",")]
            else:
                taken.setdefault(text)
    return tuple(taken)


def _indexed_package(text: str) -> str:
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError) as error:
        raise Refused(f"{redact(text)!r} is no name of a distribution") from error
    if requirement.url or requirement.extras or requirement.specifier:
        raise Refused(
            f"{redact(text)!r}: only a name and a marker stand here", "write the version in requirements"
        )
    name = canonicalize_name(requirement.name)
    return f"{name}; {requirement.marker}" if requirement.marker else name


def _index_address(value: str) -> str:
    refuse_credential(value)
    if not value.startswith("${") and not re.match(r"(?:https?|file)://", value, re.IGNORECASE):
        raise Refused(
            f"{redact(value)!r} is no address of an index", "it begins with https://, http:// or file://"
        )
    return value


def _format_control(name: str, value: str) -> str:
    """``:all:``, ``:none:`` and names; their order counts only where one of the first two is among them."""
    words = [part.strip() for part in value.split(",") if part.strip()]
    names = []
    for word in words:
        if word in (":all:", ":none:"):
            names.append(word)
        elif re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", word):
            names.append(canonicalize_name(word))
        else:
            raise Refused(f"{name}: {word!r} is no name of a distribution")
    return ",".join(names if set(words) & {":all:", ":none:"} else sorted(set(names)))


def _split(line: str) -> tuple[str, str]:
    """The requirement at the beginning of a line, and its options: all from the first word with a dash on."""
    match = re.search(r"(?:^|(?<=\s))-", line)
    if match is None:
        return line.strip(), ""
    return line[: match.start()].strip(), line[match.start() :]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with continuations joined and comments gone, each with the number it begins on; no empty ones.

    As in pip, a comment line ends a continuation.
    """
    pending: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        comment = _COMMENT.search(line) is not None
        if line.endswith("\\") and not comment:
            start = start if pending else number
            pending.append(line.rstrip("\\"))
            continue
        first = start if pending else number
        joined = "".join((*pending, " " + line if comment else line))
        pending = []
        stripped = _COMMENT.sub("", joined).strip()
        if stripped:
            yield first, stripped
    rest = _COMMENT.sub("", "".join(pending)).strip()
    if rest:
        yield start, rest


_EXACT = re.compile(r"[^\s;,]+===?[^\s;,*]+(?:;|\Z)")


class RequirementsImporter:
    """Reads ``*.txt`` and ``*.in``."""

    name = "requirements"
    markers: tuple[str, ...] = ("requirements.in", "requirements.txt")

    def recognises(self, file: SourceFile) -> bool:
        return file.path.suffix.lower() in (".txt", ".in")

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        reader = RequirementsReader(file.path.parent, problems)
        reader.read_file(file)
        problems.raise_if_any()
        pip = reader.result()
        compiled = file.path.suffix.lower() == ".txt" and is_locked(pip)
        python, left_out = python_beside(file, None)
        return Spec(
            name=fields.default_name(file.path),
            source=file.path,
            python=python,
            pip=replace(pip, complete=compiled),
            left_out=left_out,
        )


def is_locked(pip: PipSpec) -> bool:
    """Whether every requirement is an exact pin with a hash. By pip's own rule (``--require-hashes``) such a
    file is all there is: pip refuses to install what it would have to add."""
    return bool(pip.requirements) and all(
        requirement.hashes and (" @ " in requirement.text or _EXACT.match(requirement.text))
        for requirement in pip.requirements
    )
