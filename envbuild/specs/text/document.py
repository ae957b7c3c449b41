"""A YAML document as nodes that remember their source text and line.

YAML would read ``python: 3.10`` as the number 3.1; here a scalar keeps the text that was written, and the
reader decides what it means. Duplicate keys are problems; aliases, depth and size are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envbuild.errors import SpecError
from envbuild.lazy import lazy
from envbuild.specs.problems import Place, Problems
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

if TYPE_CHECKING:
    from ruamel import yaml as ruamel_yaml
    from ruamel.yaml import error as ruamel_error
    from ruamel.yaml import events as ruamel_events
else:
    ruamel_yaml = lazy("ruamel.yaml")
    ruamel_error = lazy("ruamel.yaml.error")
    ruamel_events = lazy("ruamel.yaml.events")

DEPTH_LIMIT = 32
NODE_LIMIT = 50_000
"""Nodes of a document with every alias written out."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written. ``kind`` is what YAML 1.2 would make of it: str, int, float, bool or null."""

    text: str
    kind: str
    line: int
    plain: bool = False
    """Whether it was written without quotes."""


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Entries in the order written, no key twice."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.entries if name.text == key), None)

    def key_line(self, key: str) -> int:
        """The line of ``key``; of the mapping where it has no such key."""
        return next((name.line for name, _ in self.entries if name.text == key), self.line)


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its root node (None where it is empty), and its lines for what YAML drops (comments)."""

    root: Node | None
    lines: tuple[str, ...]


def is_null(node: Node | None) -> bool:
    return node is None or (isinstance(node, Scalar) and node.kind == "null")


def describe(node: Node) -> str:
    """What a node is, for messages: ``a list``, ``the number 3``."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    shown = node.text if len(node.text) <= 60 else node.text[:57] + "…"
    words = {"null": "empty", "bool": shown, "int": f"the number {shown}", "float": f"the number {shown}"}
    return words.get(node.kind, repr(shown))


def parse_document(text: str, file: str) -> Document:
    """The one document in ``text``. Raises ``SpecError``: bad YAML with its line, every duplicate key,
    foreign tags, more than one document, too deep or too large."""
    problems = Problems()
    try:
        root = _Composer(ruamel_yaml.YAML(typ="safe", pure=True).parse(text), file, problems).document()
    except ruamel_error.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        what = " ".join(str(error.problem or error.context or "can't be read").split())
        place = Place(file=file, line=line)
        raise SpecError(f"{place}: bad YAML: {what}", hint=_YAML_HINT) from error
    except (ruamel_error.YAMLError, ArithmeticError, AssertionError, AttributeError, LookupError) as error:
        raise SpecError(f"{file}: bad YAML: {_first_line(error)}", hint=_YAML_HINT) from error
    except (NotImplementedError, RecursionError, TypeError, ValueError) as error:
        raise SpecError(f"{file}: bad YAML: {_first_line(error)}", hint=_YAML_HINT) from error
    problems.raise_if_any()
    return Document(root, tuple(text.splitlines()))


def yaml_document(file: SourceFile) -> Document:
    """The YAML document in ``file``, parsed once. Raises ``SpecError`` as :func:`parse_document` does."""
    if not file.parsed:
        file.parsed.append(parse_document(file.read(YAML_LIMIT), file.shown))
    (parsed,) = file.parsed
    assert isinstance(parsed, Document)
    return parsed


def unnamed_mapping(file: SourceFile) -> Mapping | None:
    """The mapping in a file whose name doesn't say what it is: one without a suffix, or JSON, which is YAML.
    None for all others. Never raises."""
    if file.path.suffix.lower() not in ("", ".json") or not file.path.is_file():
        return None
    try:
        root = yaml_document(file).root
    except SpecError:
        return None
    return root if isinstance(root, Mapping) else None


_YAML_HINT = "check the indentation, the quotes and the colons around that line"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(slots=True)
class _Composer:
    """Builds nodes from ruamel's event stream, so that bounds hold before anything grows."""

    events: Iterator[object]
    file: str
    problems: Problems
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)
    count: int = 0

    def document(self) -> Node | None:
        root: Node | None = None
        seen = False
        for event in self.events:
            if isinstance(event, ruamel_events.DocumentStartEvent):
                if seen:
                    self._refuse(event, "a second YAML document; a spec is one document")
                seen = True
                root = self._node(next(self.events), 0)
        return None if isinstance(root, Scalar) and root.kind == "null" else root

    def _node(self, event: object, depth: int) -> Node:
        line = _line(event)
        if depth > DEPTH_LIMIT:
            self._refuse(event, f"nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(event, ruamel_events.AliasEvent):
            return self._alias(event)
        before = self.count
        self._count(event, 1)
        node: Node
        tag = getattr(event, "tag", None)
        if tag is not None and str(tag) not in _TAGS:
            self.problems.add(
                Place(file=self.file, line=line), f"the tag {str(tag)!r} has no meaning in a spec"
            )
        if isinstance(event, ruamel_events.ScalarEvent):
            plain = event.style is None and tag is None
            if any("\ud800" <= entry <= "\udfff" for entry in event.value):
                self.problems.add(Place(file=self.file, line=line), "holds half a character (a surrogate)")
            node = Scalar(event.value, scalar_kind(event.value) if plain else "str", line, plain)
        elif isinstance(event, ruamel_events.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self.events), ruamel_events.SequenceEndEvent):
                items.append(self._node(item, depth + 1))
            node = Sequence(tuple(items), line)
        else:
            node = self._mapping(line, depth)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = (node, self.count - before)
        return node

    def _mapping(self, line: int, depth: int) -> Mapping:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self.events), ruamel_events.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self.events), depth + 1)
            if not isinstance(key, Scalar):
                place = Place(file=self.file, line=key.line)
                self.problems.add(place, f"a key must be text, is {describe(key)}")
            elif key.plain and key.text == "<<":
                merged.append(value)
            elif key.text in entries:
                first = entries[key.text][0].line
                place = Place(file=self.file, line=key.line)
                self.problems.add(place, f"the key {key.text!r} is there twice, first on line {first}")
            else:
                entries[key.text] = (key, value)
        for value in merged:
            self._merge(entries, value)
        return Mapping(tuple(entries.values()), line)

    def _merge(self, entries: dict[str, tuple[Scalar, Node]], value: Node) -> None:
        for source in value.items if isinstance(value, Sequence) else (value,):
            if not isinstance(source, Mapping):
                place = Place(file=self.file, line=source.line)
                self.problems.add(place, f"'<<' merges mappings only, not {describe(source)}")
                continue
            for key, item in source.entries:
                entries.setdefault(key.text, (key, item))

    def _alias(self, event: object) -> Node:
        name = getattr(event, "anchor", None)
        anchor = self.anchors.get(str(name))
        if anchor is None:
            self._refuse(event, f"the alias *{name} stands for nothing that came before")
            raise AssertionError  # Never reached: _refuse raises.
        node, size = anchor
        self._count(event, size)
        return node

    def _count(self, event: object, more: int) -> None:
        self.count += more
        if self.count > NODE_LIMIT:
            self._refuse(event, f"more than {NODE_LIMIT} values once its aliases are written out")

    def _refuse(self, event: object, what: str) -> None:
        self.problems.add(Place(file=self.file, line=_line(event)), what)
        self.problems.raise_if_any()


def _line(event: object) -> int:
    mark = getattr(event, "start_mark", None)
    return int(mark.line) + 1 if mark is not None else 1


def scalar_kind(text: str) -> str:
    """What YAML 1.2 makes of unquoted text: str, int, float, bool or null."""
    if text in _NULL:
        return "null"
    if text in _BOOL:
        return "bool"
    if _INT.fullmatch(text):
        return "int"
    return "float" if _FLOAT.fullmatch(text) else "str"


# JSON writes a character beyond U+FFFF as two escapes; YAML takes each of them for a character.
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
# Inside a JSON text they stand for themselves; to YAML they are no text, or the end of a line.
_NO_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def parse_json(text: str, file: str) -> Document:
    """The document in ``text``. Raises ``SpecError``: bad JSON with its line, and all that
    ``parse_document`` refuses."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"{file}:{error.lineno}: bad JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise SpecError(f"{file}: bad JSON: it is nested too deep, or has too long a number") from error
    # Sound JSON has tabs between its values only, where YAML has none.
    plain = _PAIR.sub(lambda match: match[1] + json.loads(f'"{match[2]}"'), text.replace("\t", " "))
    return parse_document(_NO_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", plain), file)
