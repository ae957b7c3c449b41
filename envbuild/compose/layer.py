"""Segments become a layer: all directories first, then the segments as they are, then the end of archive.

Only hashing costs anything here: segments are copied compressed, and expanded once for the diff_id (which
also proves their checksums).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from envbuild.compose.base import Entry, EntryKind
from envbuild.compose.codec import BLOCK, FORMAT, Codec
from envbuild.compose.segment import WorkerPools
from envbuild.compose.tar import END, MTIME, entry_header
from envbuild.errors import BuildError
from envbuild.oci.digest import canonical_digest
from envbuild.store.content import commit_file
from envbuild.store.layers import LayerCache, LayerFile
from envbuild.store.segments import DamagedSegment, DirectoryRow, Segment, SegmentCache

_DEPTH = 3
"""Members of one layer being expanded at once: bounds memory."""


def layer_key(
    segments: Sequence[Segment], directories: Sequence[DirectoryRow], codec: Codec, mtime: int
) -> str:
    """What a layer's bytes depend on, bare hex."""
    value = [codec.identity, mtime, [segment.key for segment in segments], [list(row) for row in directories]]
    return canonical_digest("layer", FORMAT, value).removeprefix("sha256:")


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Writes layers of one build."""

    codec: Codec
    pools: WorkerPools
    segments: SegmentCache
    layers: LayerCache
    scratch: Path
    mtime: int = MTIME
    """The time of directories."""
    reuse: bool = True

    def make(self, segments: Sequence[Segment], directories: Sequence[DirectoryRow]) -> LayerFile:
        """The layer of ``segments`` in that order, from the cache or written, synced and renamed.

        Raises ``DamagedSegment`` (the segment is dropped, so that another try makes it anew)."""
        key = layer_key(segments, directories, self.codec, self.mtime)
        cached = self.layers.get(key) if self.reuse else None
        if cached is not None and self.layers.store.find_blob(cached.digest):
            return cached
        part = self.scratch / f"{key}.layer"
        try:
            layer = self._write(part, segments, directories)
        except OSError as error:
            raise BuildError(
                f"can't write a layer to {self.scratch}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error
        except DamagedSegment as error:
            self.segments.drop(error.key)
            raise
        commit_file(part, self.layers.store.blob(layer.digest))
        self.layers.put(key, layer, self.scratch)
        return layer

    def _write(
        self, part: Path, segments: Sequence[Segment], directories: Sequence[DirectoryRow]
    ) -> LayerFile:
        digest = hashlib.sha256()
        diff_id = hashlib.sha256()
        size = 0
        with part.open("wb", buffering=0) as file:
            for member, block in self._expand(self._members(segments, directories)):
                self.pools.check()
                _write_all(file.write(member), member)
                digest.update(member)
                size += len(member)
                diff_id.update(block)
        return LayerFile(
            digest=f"sha256:{digest.hexdigest()}", diff_id=f"sha256:{diff_id.hexdigest()}", size=size
        )

    def _members(
        self, segments: Sequence[Segment], directories: Sequence[DirectoryRow]
    ) -> Iterator[tuple[bytes, bytes | int, str]]:
        """Compressed members, each with its block or, where that isn't at hand, the block's size."""
        head = b"".join(
            entry_header(
                Entry(path=path, kind=EntryKind.DIRECTORY, mode=mode, uid=uid, gid=gid), 0, self.mtime
            )
            for path, mode, uid, gid in directories
        )
        for start in range(0, len(head), BLOCK):
            block = head[start : start + BLOCK]
            yield self.codec.compress(block), block, ""
        for segment in segments:
            for member, length in self.segments.members(segment):
                yield member, length, segment.key
        yield self.codec.compress(END), END, ""

    def _expand(self, members: Iterator[tuple[bytes, bytes | int, str]]) -> Iterator[tuple[bytes, bytes]]:
        """The members in order with their blocks, expanded ahead by the pools."""
        pending: deque[tuple[bytes, Future[bytes] | bytes, str]] = deque()

        def next_pair() -> tuple[bytes, bytes]:
            member, block, key = pending.popleft()
            if isinstance(block, bytes):
                return member, block
            try:
                return member, block.result()
            except BuildError as error:
                raise DamagedSegment(key) from error

        for member, block, key in members:
            if isinstance(block, bytes):
                pending.append((member, block, key))
            else:
                pending.append((member, self.pools.blocks.submit(self.codec.expand, member, block), key))
            while len(pending) > _DEPTH:
                yield next_pair()
        while pending:
            yield next_pair()


def _write_all(written: int | None, data: bytes) -> None:
    """A raw file may take less than all of it where the disk is full."""
    if written != len(data):
        raise OSError(28, "No space left on device")
