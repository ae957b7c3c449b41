"""Digests and the canonical JSON that identities are computed over."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

CHUNK = 1 << 20
"""Bytes read at a time wherever a file is streamed."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is ``sha256:`` and 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def is_diff_id(text: str) -> bool:
    """Whether ``text`` is the digest of a layer's tar by one of the algorithms that image-spec registers.
    Everything else that we read and write is named by SHA-256."""
    return _DIFF_ID.fullmatch(text) is not None


def digest_bytes(data: bytes | memoryview) -> str:
    """The ``sha256:<hex>`` digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_stream(chunks: Iterable[bytes]) -> str:
    """The ``sha256:<hex>`` digest of the concatenated ``chunks``."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return "sha256:" + sha.hexdigest()


def digest_file(path: Path) -> str:
    """The ``sha256:<hex>`` digest of a file, read in constant memory."""
    with path.open("rb", buffering=0) as file:
        return digest_stream(iter(lambda: file.read(CHUNK), b""))


def canonical_json(value: object) -> bytes:
    """``value`` as JSON with sorted keys, no spaces, UTF-8 and no floats: one value, one byte string.

    Raises ``TypeError`` for anything JSON has no exact form for, floats included (their text form is
    a matter of taste, so identities never hold one).
    """
    _refuse_floats(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def canonical_digest(kind: str, format_number: int, value: object) -> str:
    """The identity of ``value``: what it is and its format number lead, so no two kinds ever share one."""
    return digest_bytes(canonical_json([f"envbuild.{kind}", format_number, value]))


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("a canonical form holds no floats")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("a canonical form has string keys only")
            _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)
