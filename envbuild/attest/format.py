"""What both formats of a bill write alike: times, names made of digests, text that every reader takes."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from uuid import UUID, uuid5

_SPACE = UUID("8f3c0f5e-9a52-5d0f-8a57-2f5c1e0a7b46")
"""The space that envbuild's own UUIDs are of; never changes."""


def time_of(seconds: int) -> str:
    """``1970-01-01T00:00:00Z``."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def uuid_of(kind: str, digest: str) -> str:
    """The same for the same document about the same image."""
    return str(uuid5(_SPACE, f"{kind} {digest}"))


def json_document(document: object) -> bytes:
    """Readable by people as well, in ASCII: nothing in it does anything to a terminal. Bytes of a path that
    are no text become marks."""
    return (json.dumps(_clean(document), indent=2) + "\n").encode()


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, (list, tuple)) else value
