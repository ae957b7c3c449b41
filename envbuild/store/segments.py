"""Cached tar segments: what one artifact puts into a layer, compressed and ready to be concatenated.

A segment is two files: the compressed members and a record that says what is inside. The record is
written last. Neither is synced to disk, unlike blobs: a record carries a checksum of itself and of each
compressed member, so a segment that a crash or a bad disk damaged is found when it is read and made anew.
(Those inside of gzip members cover neither their headers nor the bits that fill up the last byte.) Writers
of one key write the same bytes, so they never disturb each other.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from envbuild.errors import BuildError
from envbuild.store.content import Store
from envbuild.store.records import Records

SEGMENT_FORMAT = 2
"""Of the record's JSON; another one is not read, and the segment made anew."""

DirectoryRow = tuple[str, int, int, int]
"""Path, mode, uid, gid of a directory an artifact states itself."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a segment holds. ``key`` is bare hex; ``members`` are (compressed, uncompressed) sizes in bytes.

    ``checksums`` are the CRC-32 of each compressed member; without them, members aren't checked when read.
    ``paths`` are the files and symlinks in the order written, each with the offset of its header in the
    uncompressed segment; ``links`` are the symlinks among them with their targets.
    """

    key: str
    members: tuple[tuple[int, int], ...]
    paths: tuple[tuple[str, int], ...]
    links: tuple[tuple[str, str], ...] = ()
    directories: tuple[DirectoryRow, ...] = ()
    checksums: tuple[int, ...] = ()

    @cached_property
    def size(self) -> int:
        """Compressed, in bytes."""
        return sum(member[0] for member in self.members)

    @cached_property
    def unpacked(self) -> int:
        """Uncompressed, in bytes."""
        return sum(member[1] for member in self.members)

    @cached_property
    def offsets(self) -> dict[str, tuple[int, int]]:
        """Path to the range of its tar blocks in the uncompressed segment."""
        ends = [*(offset for _, offset in self.paths[1:]), self.unpacked]
        # A segment without paths has an end all the same.
        return {path: (start, end) for (path, start), end in zip(self.paths, ends, strict=False)}


class DamagedSegment(BuildError):
    """The bytes of a cached segment are not what was written. ``key`` says which."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the cached segment {key[:12]} is damaged and was removed", hint="run the build again"
        )
        self.key = key


class SegmentCache:
    """The segments of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._records = Records(store, "segments")

    def data(self, key: str) -> Path:
        """Where the compressed members are or would be."""
        return self.store.root / "segments" / f"{key}.tar"

    def get(self, key: str) -> Segment | None:
        """The segment, if it is there, whole in size and its record sound."""

        def parse(value: dict[str, Any]) -> Segment | None:
            segment = _load(value)
            if segment is None or segment.key != key or self.data(key).stat().st_size != segment.size:
                return None
            return segment

        return self._records.get(key, parse)

    def put(self, segment: Segment, part: Path) -> None:
        """Makes ``part``, a complete file on the store's file system, the segment's bytes."""
        body = json.dumps(_dump(segment), separators=(",", ":"))
        record = part.with_name(part.name + ".json")
        self._records.put(segment.key, body, record, beside=(part, self.data(segment.key)))

    def touch(self, key: str) -> None:
        """Notes that the segment was used now, by the file's own time (``cache prune`` reads it)."""
        self._records.note_use(key)

    def drop(self, key: str) -> None:
        """Forgets the segment."""
        self._records.drop(key)
        self.data(key).unlink(missing_ok=True)

    def members(self, segment: Segment) -> Iterator[tuple[bytes, int]]:
        """Each compressed member with the size of its block. Raises ``DamagedSegment`` for other bytes than
        were written."""
        try:
            with self.data(segment.key).open("rb", buffering=0) as file:
                for number, (size, block) in enumerate(segment.members):
                    member = file.read(size)
                    if len(member) != size:
                        raise DamagedSegment(segment.key)
                    if segment.checksums and zlib.crc32(member) != segment.checksums[number]:
                        raise DamagedSegment(segment.key)
                    yield member, block
        except OSError as error:
            raise DamagedSegment(segment.key) from error


def _dump(segment: Segment) -> dict[str, object]:
    return {
        "format": SEGMENT_FORMAT,
        "key": segment.key,
        "members": segment.members,
        "checksums": segment.checksums,
        "paths": segment.paths,
        "links": segment.links,
        "directories": segment.directories,
    }


def _load(value: dict[str, Any]) -> Segment | None:
    if value["format"] != SEGMENT_FORMAT:
        return None
    if len(value["checksums"]) not in (0, len(value["members"])):
        return None
    return Segment(
        key=str(value["key"]),
        members=tuple((_int(size), _int(block)) for size, block in value["members"]),
        checksums=tuple(_int(checksum) for checksum in value["checksums"]),
        paths=tuple((str(path), _int(offset)) for path, offset in value["paths"]),
        links=tuple((str(path), str(target)) for path, target in value["links"]),
        directories=tuple(
            (str(path), _int(mode), _int(uid), _int(gid)) for path, mode, uid, gid in value["directories"]
        ),
    )


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no number")
    return value
