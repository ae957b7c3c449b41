"""Environment variables of something that exists already: those that a spec may write down."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envbuild.specs import fields
from envbuild.specs.credentials import refuse_credential
from envbuild.specs.problems import Refused

_SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|API_?KEY|(?:ACCESS|PRIVATE|ACCOUNT)_KEY)(?:_|$)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
VALUE_LIMIT = 32 << 10
"""Characters."""


def carried(
    variables: Iterable[tuple[str, str]],
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The variables that can be written down, sorted, and a line for each that can't.

    Nobody chose to write them down here, so one that may hold a credential isn't: by its name, or by an
    address in its value.
    """
    kept: dict[str, str] = {}
    lines: list[str] = []
    for name, value in variables:
        try:
            fields.variable_name(name)
            if len(value) > VALUE_LIMIT or "\0" in value:
                raise Refused("its value is longer than any that is meant")
            if _SECRET.search(name):
                raise Refused("may hold a credential: give it when a container is run")
            for address in _ADDRESS.findall(value):
                refuse_credential(address)
        except Refused as refused:
            lines.append(f"environment variable {name[:100]!r}: {refused.what}")
            continue
        kept[name] = value
    return tuple(sorted(kept.items())), tuple(lines)
