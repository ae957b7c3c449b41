"""A cached segment as an OCI artifact: its manifest, written one way only and read with distrust.

The one layer is the segment's compressed members. An annotation states what they don't show: where each
member ends, and the directories that the artifact brings. All else of a segment's record is read from the
bytes, so nothing that is stated can contradict them, and no second blob is needed. Config and, of a segment
without files, the layer are the empty descriptor (OCI image-spec 1.1, *Guidance for an Empty Descriptor*).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from envbuild.errors import FetchError
from envbuild.oci.digest import canonical_json, digest_bytes, is_digest
from envbuild.oci.manifest import OCI_MANIFEST, Descriptor
from envbuild.store.segments import DirectoryRow, Segment

ARTIFACT_TYPE = "application/vnd.envbuild.segment.v1"
LAYER_TYPE = "application/vnd.envbuild.segment.v1.members"
ANNOTATION = "dev.envbuild.segment"
TAG = "segment-"
"""What the tag of a segment begins with; its key, 64 hex digits, follows."""

EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedSegment:
    """A segment as a registry has it: what its manifest says. ``blob`` is None where there are no members."""

    key: str
    blob: Descriptor | None
    members: tuple[tuple[int, int], ...]
    """(compressed, uncompressed) sizes in bytes; the first sum to the blob's."""
    directories: tuple[DirectoryRow, ...]


def tag_of(key: str) -> str:
    """The tag of the segment ``key``."""
    return f"{TAG}{key}"


def empty_descriptor() -> Descriptor:
    """Of the blob that every artifact without a config has."""
    return Descriptor(digest=digest_bytes(EMPTY), size=len(EMPTY), media_type=EMPTY_TYPE)


def dump_manifest(segment: Segment, digest: str) -> bytes:
    """The manifest of ``segment``, whose compressed members have ``digest``: same segment, same bytes."""
    record = {
        "directories": [list(row) for row in segment.directories],
        "key": segment.key,
        "members": [list(member) for member in segment.members],
    }
    blob = Descriptor(digest=digest, size=segment.size, media_type=LAYER_TYPE)
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": {**_stated(empty_descriptor()), "data": "e30="},
            "layers": [_stated(blob if segment.members else empty_descriptor())],
            "annotations": {ANNOTATION: canonical_json(record).decode()},
        }
    )


def parse_manifest(content: bytes, key: str) -> SharedSegment:
    """What the manifest of the segment ``key`` says. Raises ``FetchError`` for any other form; that it is
    true is for the reader of the bytes to find out."""
    try:
        document = json.loads(content)
        record = json.loads(document["annotations"][ANNOTATION])
        (layer,) = document["layers"]
        digest, size = layer["digest"], _count(layer["size"])
        members = tuple((_count(size), _count(block)) for size, block in record["members"])
        directories = tuple(
            (_text(path), _count(mode), _count(uid), _count(gid))
            for path, mode, uid, gid in record["directories"]
        )
        if document["artifactType"] != ARTIFACT_TYPE or record["key"] != key or not is_digest(digest):
            raise ValueError
        if layer["mediaType"] != (LAYER_TYPE if members else EMPTY_TYPE):
            raise ValueError
        if members and sum(member[0] for member in members) != size:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FetchError(f"{tag_of(key)[:20]} isn't the manifest of that segment") from error
    blob = Descriptor(digest=digest, size=size, media_type=LAYER_TYPE)
    return SharedSegment(key=key, blob=blob if members else None, members=members, directories=directories)


def _stated(descriptor: Descriptor) -> Mapping[str, object]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
