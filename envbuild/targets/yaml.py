"""YAML as targets read it: block style, keys in the order given."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from envbuild.lazy import lazy

if TYPE_CHECKING:
    import yaml
else:
    yaml = lazy("yaml")

_NUMBER = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+)$"
)
"""What readers of YAML 1.2 take for a number: to the library ``1e3`` is a text that needs no quotes."""


def yaml_text(*documents: object) -> str:
    """The documents, in the order of their keys as given; a text is one to every reader. Deterministic."""
    return yaml.dump_all(
        documents,
        Dumper=_dumper(),
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=False,
        width=1_000_000,
    )


@cache
def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            # The same value twice is written twice, as not every reader follows an alias.
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    return Dumper
