"""A tar of an image, as a stream of bytes that is a pure function of its members."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from envbuild.digest import CHUNK
from envbuild.errors import PublishError


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One file of the archive: its name, and its bytes or a file that has them."""

    name: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def stream(members: Iterable[Member], on_bytes: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The archive's bytes: members in the order given, mode 0644, owner 0, mtime 0, no directories.

    ``on_bytes`` is told of every piece. Raises ``PublishError`` where a file changed its size meanwhile.
    """
    for member in members:
        size = member.size
        header = tarfile.TarInfo(member.name)
        header.size = size
        header.mode = 0o644
        yield header.tobuf(tarfile.PAX_FORMAT)
        if isinstance(member.content, bytes):
            yield member.content
            if on_bytes:
                on_bytes(size)
        else:
            left = size
            with member.content.open("rb", buffering=0) as file:
                while left and (piece := file.read(min(CHUNK, left))):
                    left -= len(piece)
                    yield piece
                    if on_bytes:
                        on_bytes(len(piece))
            if left:
                raise PublishError(f"{member.content} became shorter while it was read")
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
