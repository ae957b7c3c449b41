"""Frozen dataclasses to JSON objects and back, strictly.

A field that equals its default is left out, an unknown or missing key or a value of another type is a
``LockError`` with its key path. Only what the lock's values are made of is known here: strings, integers,
booleans, optional ones, records inside records, and tuples of these.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from envbuild.errors import LockError

_Value = TypeVar("_Value")


def dump_record(value: Any) -> dict[str, Any]:
    """``value``, a dataclass of plain fields, as a JSON object without the fields that hold defaults."""
    record: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.default is not dataclasses.MISSING and item == field.default:
            continue
        record[field.name] = [_dump(entry) for entry in item] if isinstance(item, tuple) else _dump(item)
    return record


def _dump(item: Any) -> Any:
    return dump_record(item) if dataclasses.is_dataclass(item) else item


def load_record(kind: type[_Value], value: object, where: str) -> _Value:
    """The ``kind`` that the JSON ``value`` at the key path ``where`` describes."""
    record = expect_object(value, where)
    hints = typing.get_type_hints(kind)
    members = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(record) - set(members))
    if unknown:
        raise LockError(f"{where}: unknown key {unknown[0]!r}")
    missing = [
        name
        for name, member in members.items()
        if member.default is dataclasses.MISSING and name not in record
    ]
    if missing:
        raise LockError(f"{where}: no {missing[0]!r}")
    return kind(**{name: _plain(hints[name], item, f"{where}.{name}") for name, item in record.items()})


def expect_object(value: object, where: str) -> dict[str, Any]:
    """``value`` as a JSON object; raises ``LockError`` with its key path."""
    if not isinstance(value, dict):
        raise LockError(f"{where}: must be an object")
    return value


def expect_list(value: object, where: str) -> list[Any]:
    """``value`` as a JSON array; raises ``LockError`` with its key path."""
    if not isinstance(value, list):
        raise LockError(f"{where}: must be an array")
    return value


def expect_text(value: object, where: str) -> str:
    """``value`` as a JSON string; raises ``LockError`` with its key path."""
    if not isinstance(value, str):
        raise LockError(f"{where}: must be a string")
    return value


def _plain(hint: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(argument for argument in typing.get_args(hint) if argument is not types.NoneType)
        origin = typing.get_origin(hint)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        return tuple(
            _plain(item, entry, f"{where}[{n}]") for n, entry in enumerate(expect_list(value, where))
        )
    if dataclasses.is_dataclass(hint):
        return load_record(typing.cast(type[Any], hint), value, where)
    if hint is int and isinstance(value, bool):
        raise LockError(f"{where}: must be an integer")
    if not isinstance(value, hint):
        raise LockError(f"{where}: must be of type {hint.__name__}")
    return value
