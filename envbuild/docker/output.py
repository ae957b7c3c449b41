"""What engines and builders say, made safe to repeat: nothing that drives a terminal, and no credentials."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envbuild.redact import clean

_DRIVES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def last_seen(text: str) -> str:
    """The end of a line that was overwritten by carriage returns, as progress bars do; else the line."""
    return next((each for each in reversed(text.split("\r")) if each.strip()), "")


def safe_text(text: str, hidden: Iterable[str] = ()) -> str:
    """:func:`last_seen` of ``text`` without what drives a terminal and without credentials: of addresses, and
    ``hidden`` values."""
    seen = _UNSAFE.sub(_escaped, _DRIVES.sub("", last_seen(text)))
    indent = seen[: len(seen) - len(seen.lstrip())]
    return (indent + clean(seen, hidden)).rstrip()


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def clipped(text: str, length: int) -> str:
    """``text``, or its start and an ellipsis where it has more than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
