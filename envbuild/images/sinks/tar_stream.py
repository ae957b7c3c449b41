"""A tar of an image, as a stream of bytes that is a pure function of its members."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import PublishError
from envbuild.oci.digest import CHUNK


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One file of the archive: its name, and its bytes or a file that has them."""

    name: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def damaged_blob(path: Path) -> PublishError:
    """The error of a blob of the store that a bad disk or somebody changed; it is removed."""
    path.unlink(missing_ok=True)
    return PublishError(
        f"the cached blob {path} was damaged and is removed", hint="run the build again: it makes it anew"
    )


def stream(members: Iterable[Member], on_bytes: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The archive's bytes: members in the order given, mode 0644, owner 0, mtime 0, no directories.

    ``on_bytes`` is told of every piece. Raises ``PublishError`` where a file changed its size meanwhile, or
    where the bytes of a blob are not those it is named after.
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
            left, sha = size, hashlib.sha256()
            with member.content.open("rb", buffering=0) as file:
                while left and (piece := file.read(min(CHUNK, left))):
                    left -= len(piece)
                    sha.update(piece)
                    yield piece
                    if on_bytes:
                        on_bytes(len(piece))
            if left:
                raise PublishError(f"{member.content} became shorter while it was read")
            if member.name.startswith("blobs/sha256/") and not member.name.endswith(sha.hexdigest()):
                raise damaged_blob(member.content)
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
