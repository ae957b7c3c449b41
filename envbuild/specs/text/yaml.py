"""Values written as YAML that every reader takes for the same values, in the order given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from envbuild.errors import SpecError
from envbuild.lazy import lazy
from envbuild.specs.text.document import scalar_kind

if TYPE_CHECKING:
    import yaml
else:
    yaml = lazy("yaml")

_ENDLESS = 1 << 30
"""A width: lines are never folded, as a fold is lost on some readers."""


def dump_yaml(value: object) -> str:
    """``value`` (mappings, lists, text, numbers, dates) as a YAML document, block style, ending in a newline.

    Text is quoted wherever YAML 1.1 or 1.2 would read something else, and written as a block where it has
    several lines.
    """

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            """Items of a list stand deeper than its key, as people write them."""
            return super().increase_indent(flow, False)

        def ignore_aliases(self, data: object) -> bool:
            return True

    def implicit(dumper: yaml.SafeDumper, data: str) -> object:
        """The tag that YAML 1.1 gives unquoted text."""
        return dumper.resolve(yaml.ScalarNode, data, (True, False))  # type: ignore[no-untyped-call]

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        style = None
        if not all(name.isprintable() or name == "\n" for name in data):
            # Other line ends and control characters survive as escapes only.
            style = '"'
        elif "\n" in data:
            style = "|"
        elif scalar_kind(data) != "str" or implicit(dumper, data) != _TEXT:
            style = '"'
        return dumper.represent_scalar(_TEXT, data, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_ENDLESS, indent=2)


_TEXT = "tag:yaml.org,2002:str"


LOCK_LIMIT = 32 << 20
"""Bytes. A lock of some thousand packages for several platforms fits."""
DEPTH_LIMIT = 32
NODE_LIMIT = 2_000_000
_AHEAD = 1 << 16
"""Characters. libyaml reads ahead no further than a key may be long (1,024), a scalar aside."""
_TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels"

Value = dict[str, "Value"] | list["Value"] | str | None
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


def parse_values(text: str, shown: str) -> Value:
    """The one document in ``text``; None where it is empty. Raises ``SpecError``: bad YAML with its line, a
    key that is twice there, an alias to what holds it, too deep or too large."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reached: Any = None

    def events() -> Iterator[Any]:
        nonlocal reached
        for event in yaml.parse(text, Loader=loader):
            reached = event.end_mark
            yield event

    try:
        return _compose(events(), shown)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if reached is not None and mark is not None and _nests(text[reached.index : mark.index]):
            raise SpecError(f"{shown}:{mark.line + 1}: {_TOO_DEEP}") from error
        place = f"{shown}:{mark.line + 1}" if mark is not None else shown
        what = " ".join(str(error.problem or error.context or "can't be read").split())
        raise SpecError(f"{place}: bad YAML: {what}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SpecError(f"{shown}: bad YAML: {reason}") from error


def _nests(ahead: str) -> bool:
    """Whether ``ahead``, what libyaml had read beyond its last event when it gave up, is nested too deep.

    From 0.2.6 on libyaml has a limit of its own, far above ours, which it can meet before the event that
    meets ours, as it reads ahead. PyYAML's own scanner has none; it is slow, so it reads only that piece.
    """
    depth = 0
    with contextlib.suppress(yaml.YAMLError):
        for token in yaml.scan(ahead[:_AHEAD], Loader=yaml.SafeLoader):
            if isinstance(token, (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)):
                depth += 1
            elif isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)):
                depth -= 1
            if depth > DEPTH_LIMIT:
                return True
    return False


class _Open:
    """A mapping or a list whose end wasn't reached yet."""

    def __init__(self, value: dict[str, Value] | list[Value], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None


def _compose(events: Any, shown: str) -> Value:
    """The value that libyaml's events describe, built without recursion."""
    stack: list[_Open] = []
    anchors: dict[str, Value] = {}
    root: Value = None
    documents = count = 0

    def refuse(event: Any, what: str) -> SpecError:
        return SpecError(f"{shown}:{event.start_mark.line + 1}: {what}")

    for event in events:
        count += 1
        if count > NODE_LIMIT:
            raise refuse(event, f"more than {NODE_LIMIT} values")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise refuse(event, "a second YAML document; a lock is one document")
            continue
        value: Value
        if isinstance(event, yaml.ScalarEvent):
            value = None if not event.style and event.value in _NULL else str(event.value)
            if event.anchor:
                anchors[event.anchor] = value
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise refuse(event, f"the alias *{event.anchor} stands for nothing that came before")
            value = anchors[event.anchor]
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(stack) >= DEPTH_LIMIT:
                raise refuse(event, _TOO_DEEP)
            stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))
            continue
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            done = stack.pop()
            value = done.value
            if done.anchor:
                anchors[done.anchor] = value
        else:
            continue
        if not stack:
            root = value
            continue
        into = stack[-1]
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is not None:
            if into.key in into.value:
                raise refuse(event, f"the key {into.key!r} is there twice")
            into.value[into.key] = value
            into.key = None
        elif isinstance(value, str):
            into.key = value
        else:
            raise refuse(event, "a key must be text")
    return root
