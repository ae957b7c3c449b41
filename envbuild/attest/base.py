"""What is said about an image: documents to be attached to it, and the bill of materials they are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import UUID, uuid5

CYCLONEDX = "application/vnd.cyclonedx+json"
SPDX = "application/spdx+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachedDocument:
    """Something that can be attached to an image, complete."""

    name: str
    """Of the file, where it is written to one: ``sbom.cdx.json``."""
    media_type: str
    artifact_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """What a package says of its licence, in words everybody reads alike where that is certain."""

    expression: str = ""
    """An SPDX licence expression."""
    text: str = ""
    """The package's own words, where they are no certain expression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One package that is inside. What isn't known is empty, and 0 of a size."""

    kind: str
    """``conda``, ``python``, ``debian``, ``maven`` or ``interpreter``."""
    name: str
    version: str
    reference: str
    """Names it within its bill; its package URL, where no other item has the same."""
    purl: str
    file: str = ""
    """Name of the pinned artifact."""
    size: int = 0
    """Bytes of the pinned artifact."""
    sha256: str = ""
    """Of the pinned artifact, bare hex."""
    md5: str = ""
    """Of the pinned artifact, bare hex; conda's packages have one."""
    licence: Licence = Licence()
    path: str = ""
    """The file of the image that says the package is there, without a leading slash."""
    layer: str = ""
    """Digest of the layer that file lies in."""
    depends: tuple[str, ...] = ()
    """References of the items it needs, sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """All that is inside one image of one platform, as its layers and its lock say."""

    digest: str
    """Of the manifest."""
    platform: str
    """``linux/amd64``."""
    created: int
    """When the image says it was made, in seconds since the epoch."""
    level: str
    lock_digest: str
    definition_digest: str
    items: tuple[Item, ...]
    """Sorted by kind, name, version and reference."""
    release: tuple[tuple[str, str], ...] = ()
    """What the image's ``os-release`` says, as sorted pairs."""


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
        return {_clean(key): _clean(entry) for key, entry in value.items()}
    return [_clean(entry) for entry in value] if isinstance(value, (list, tuple)) else value
