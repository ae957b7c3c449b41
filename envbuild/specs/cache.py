"""Specs that were read before, by the content of the files they came from.

Checking what people wrote takes libraries that cost more to import than a build of an unchanged spec may
take. So a spec that was found sound is kept, with the digests of all files that were read for it; it is
used again while every one of them has the same content and this code is the same. A build context is read
each time: nothing less tells whether it changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import types
import typing
from dataclasses import replace
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

from envbuild.errors import SpecError
from envbuild.oci.digest import canonical_digest, digest_bytes
from envbuild.platforms import Platform
from envbuild.specs import model
from envbuild.specs.context import with_digest
from envbuild.specs.load import load_spec, spec_file
from envbuild.specs.model import BuildContextSpec, Spec
from envbuild.specs.text.source import state_of

_TYPES = {
    kind.__name__: kind
    for kind in (*vars(model).values(), Platform)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}


def remembered_spec(path: Path, directory: Path) -> Spec:
    """What ``load_spec(path)`` returns or raises; ``directory`` is where specs are remembered."""
    file = spec_file(path)
    # A path may hold bytes that are no UTF-8.
    names = [os.fsencode(part).hex() for part in (file.path, file.shown, file.fragment)]
    name = canonical_digest("spec-memory", 1, [_code(), *names]).removeprefix("sha256:")
    place = directory / f"{name}.json"
    spec = _recall(place)
    if spec is not None:
        return spec
    reads: dict[Path, str] = {}
    spec = load_spec(path, reads=reads)
    body = json.dumps({"reads": {str(read): digest for read, digest in reads.items()}, "spec": _dump(spec)})
    # Only a convenience: a full disk is the build's to report.
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        part.write_text(digest_bytes(body.encode()) + "\n" + body)
        part.replace(place)
    return spec


def _recall(place: Path) -> Spec | None:
    try:
        checksum, _, body = place.read_text().partition("\n")
        if checksum != digest_bytes(body.encode()):
            return None
        record = json.loads(body)
        if any(state_of(Path(path)) != digest for path, digest in record["reads"].items()):
            return None
        spec = _load(Spec, record["spec"])
        return _with_context(spec) if isinstance(spec, Spec) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration, SpecError):
        # Whatever is wrong, a fresh read says it best.
        return None


def _with_context(spec: Spec) -> Spec:
    if not isinstance(spec.base, BuildContextSpec):
        return spec
    return replace(spec, base=with_digest(spec.base, spec.directory))


def _code() -> list[str]:
    """This code as it is installed, so that another version forgets what this one knew."""
    root = Path(__file__).parent
    files = sorted(root.rglob("*.py"))
    return [f"{file.relative_to(root)} {file.stat().st_mtime_ns}" for file in files]


def _dump(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {field.name: _dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"$": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_dump(entry) for entry in value]
    return value


def _load(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        named = _TYPES[value["$"]] if isinstance(value, dict) else None
        chosen = (
            argument
            for argument in arguments
            if argument is named or (named is None and argument is not type(None))
        )
        return _load(next(chosen), value)
    if origin is tuple:
        items = arguments[:1] * len(value) if arguments[-1:] == (...,) else arguments
        return tuple(_load(pair, item) for pair, item in zip(items, value, strict=True))
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {name: _load(hints[name], item) for name, item in value.items() if name != "$"}
        return typing.cast(Any, hint)(**fields)
    if hint is date:
        return date.fromisoformat(value)
    return hint(value)
