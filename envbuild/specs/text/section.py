"""A mapping of someone else's format, read key by key: what nobody asked for is said, not dropped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from envbuild.specs.model import Spec
from envbuild.specs.problems import Place, Problems
from envbuild.specs.text.document import Mapping, Node, Scalar, Sequence, describe, is_null
from envbuild.specs.text.source import SourceFile


@dataclass(slots=True)
class LeftOut:
    """What a source says and a spec can't carry, each line once. No value is shown: it may be secret."""

    _lines: dict[str, bool] = field(default_factory=dict)

    def add(
        self, file: SourceFile, line: int | None, key: str, why: str = "", *, unrelated: bool = False
    ) -> None:
        place = file.path.name if line is None else f"{file.path.name}:{line}"
        self.say(f"{place}: {key}" + (f": {why}" if why else ""), unrelated=unrelated)

    def say(self, line: str, *, unrelated: bool = False) -> None:
        """Notes a line; an ``unrelated`` one is about no part of an environment."""
        self._lines.setdefault(line, unrelated)

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)

    @property
    def unrelated(self) -> tuple[str, ...]:
        return tuple(line for line, unrelated in self._lines.items() if unrelated)

    def added_to(self, spec: Spec) -> Spec:
        """``spec`` with these lines before its own."""
        return replace(
            spec,
            left_out=tuple(dict.fromkeys((*self.lines, *spec.left_out))),
            unrelated=tuple(dict.fromkeys((*self.unrelated, *spec.unrelated))),
        )


@dataclass(slots=True)
class Section:
    """One mapping of a file, under the key path ``key``; an absent one is empty."""

    node: Node | None
    file: SourceFile
    problems: Problems
    left: LeftOut
    key: str = ""
    _used: set[str] = field(default_factory=set)

    @property
    def mapping(self) -> Mapping:
        return self.node if isinstance(self.node, Mapping) else Mapping((), 1)

    def get(self, name: str) -> Node | None:
        """The value under ``name``; None where it says nothing. It counts as read."""
        self._used.add(name)
        value = self.mapping.get(name)
        return value if says_something(value) else None

    def text(self, name: str) -> Scalar | None:
        value = self.get(name)
        if value is None or isinstance(value, Scalar):
            return value
        self.problem(name, f"must be text, is {describe(value)}")
        return None

    def flag(self, name: str) -> bool | None:
        value = self.text(name)
        if value is None:
            return None
        if value.text.lower() in ("true", "false"):
            return value.text.lower() == "true"
        self.problem(name, f"must be true or false, is {describe(value)}")
        return None

    def section(self, name: str) -> Section:
        value = self.get(name)
        if value is not None and not isinstance(value, Mapping):
            self.problem(name, f"must be a mapping, is {describe(value)}")
        return Section(value, self.file, self.problems, self.left, self.path(name))

    def leave(self, name: str, why: str = "", *, unrelated: bool = False) -> None:
        """Says that ``name`` is left out, where it says something."""
        if self.get(name) is not None:
            line = self.mapping.key_line(name)
            self.left.add(self.file, line, self.path(name), why, unrelated=unrelated)

    def rest(self, silent: Collection[str] = (), *, unrelated: bool = False) -> None:
        """Leaves out every key that wasn't read, but for ``silent`` ones."""
        for name, _ in self.mapping.entries:
            if name.text not in self._used and name.text not in silent:
                self.leave(name.text, unrelated=unrelated)

    def path(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name

    def problem(self, name: str, what: str, remedy: str | None = None) -> None:
        place = Place(file=self.file.shown, line=self.mapping.key_line(name), key=self.path(name))
        self.problems.add(place, what, remedy)


def says_something(node: Node | None) -> bool:
    """Whether there is any value in it: formats write out each key they know, with nothing behind it."""
    if isinstance(node, Mapping):
        return any(says_something(value) for _, value in node.entries)
    if isinstance(node, Sequence):
        return bool(node.items)
    return not is_null(node) and not (isinstance(node, Scalar) and not node.text)


def text_node(text: str, line: int) -> Scalar:
    """A quoted text."""
    return Scalar(text, "str", line)


def mapping_node(entries: dict[str, Node | None], line: int) -> Mapping:
    """A mapping of what isn't None; each key stands where its value does."""
    kept = ((key, value) for key, value in entries.items() if value is not None)
    return Mapping(tuple((text_node(key, value.line), value) for key, value in kept), line)
