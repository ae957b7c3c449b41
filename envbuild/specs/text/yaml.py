"""Values written as YAML that every reader takes for the same values, in the order given."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        if not all(each.isprintable() or each == "\n" for each in data):
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
