"""TOML as plain values, within bounds, and the places of its values."""

from __future__ import annotations

import re
import sys
from typing import Any

from envbuild.errors import SpecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOML_LIMIT = 1 << 20
"""Bytes. A hand-written TOML file is a few thousand."""
_PARTS = 64
"""Parts of one dotted key: the parser's time grows with their square."""
_LONG_KEY = re.compile(
    rf"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{_PARTS}}}"""
)


def parse_toml(text: str, shown: str) -> dict[str, Any]:
    """The table that ``text`` is. Raises ``SpecError``: bad TOML with its line, keys of too many parts."""
    long = _LONG_KEY.search(text)
    if long is not None:
        line = text.count("\n", 0, long.start()) + 1
        raise SpecError(f"{shown}:{line}: a key has more than {_PARTS} parts")
    try:
        return dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        reason = re.sub(r"\s*\(at [^)]*\)", "", str(error))
        place = f"{shown}:{at[1]}" if at else shown
        raise SpecError(f"{place}: bad TOML: {reason}") from error
    except (RecursionError, ValueError) as error:
        raise SpecError(f"{shown}: bad TOML: nested too deeply, or a value beyond all bounds") from error


def line_of(text: str, value: str) -> int | None:
    """The first line that holds ``value`` between quotation marks."""
    for quote in ('"', "'"):
        at = text.find(f"{quote}{value}{quote}")
        if at >= 0:
            return text.count("\n", 0, at) + 1
    return None


def key_line(text: str, key: str) -> int | None:
    """The first line that begins with ``key``, bare or between quotation marks, as a key."""
    match = re.search(rf"""^[ \t]*["']?{re.escape(key)}["']?[ \t]*[=:]""", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else None


def describe_value(value: object) -> str:
    """What a value is, for messages."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
