"""The tree of a commit as a source archive, the same bytes on every machine and with every git.

The files are the repository's own bytes: no attribute, filter or line ending changes them, as these depend on
the machine. The tar is packed into stored blocks, as compressors differ.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from envbuild.errors import ResolveError

ENTRIES_LIMIT = 200_000
SIZE_LIMIT = 4 << 30
"""Bytes that a tree may have."""
_LINK_LIMIT = 4096
_BLOCK = 65535
"""Bytes of a stored block of deflate (RFC 1951 §3.2.4)."""
_TIME = 315_532_800
"""1980-01-01, the oldest time of a zip archive."""
_ENTRY = re.compile(rb"(\d{6}) (blob|commit) ([0-9a-f]{40})\t([^\x00]+)", re.DOTALL)
_MODES = {b"160000": 0o755, b"100644": 0o644, b"100664": 0o644, b"100755": 0o755, b"120000": 0o777}


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEntry:
    """A file or a link of a tree, or a submodule, whose ``object`` is a commit of another repository."""

    path: str
    mode: int
    link: bool
    object: str
    submodule: bool = False


TreeFiles = tuple[Sequence[TreeEntry], IO[bytes]]
"""Files and links, and what ``git cat-file --batch`` says of them, in their order."""


def parse_tree(listing: bytes, what: str, *, below: str = "") -> tuple[TreeEntry, ...]:
    """What ``git ls-tree -r -z`` lists, sorted by path, ``below`` a directory (``lib/other/``). Raises
    ``ResolveError``: a path that leads out of the tree, more than the limit."""
    entries = []
    for record in filter(None, listing.split(b"\0")):
        match = _ENTRY.fullmatch(record)
        if match is None:
            raise ResolveError(f"{what}: its tree can't be read")
        path = match[4].decode("utf-8", "surrogateescape")
        parts = path.split("/")
        if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or "\\" in path:
            raise ResolveError(f"{what}: {path!r} is no path of a project")
        if match[1] not in _MODES:
            raise ResolveError(f"{what}: {path!r} is no file or link")
        entries.append(
            TreeEntry(
                path=f"{below}{path}",
                mode=_MODES[match[1]],
                link=match[1] == b"120000",
                object=match[3].decode(),
                submodule=match[2] == b"commit",
            )
        )
    if len(entries) > ENTRIES_LIMIT:
        raise ResolveError(f"{what}: more than {ENTRIES_LIMIT} files")
    return tuple(sorted(entries, key=lambda entry: entry.path))


def write_archive(trees: Iterable[TreeFiles], target: Path, *, top: str, what: str) -> tuple[str, int]:
    """Writes ``target``, a ``.tar.gz`` of ``trees`` below the directory ``top``; returns its SHA-256 and
    size. Raises ``ResolveError``."""
    left = SIZE_LIMIT
    with target.open("wb") as file:
        stored = _StoredGzip(file)
        with tarfile.open(fileobj=stored, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            tar.addfile(_info(top, tarfile.DIRTYPE, 0o755))
            for objects, entry, size in _headers(trees, what):
                left -= size
                if left < 0 or (entry.link and size > _LINK_LIMIT):
                    raise ResolveError(f"{what}: it has more than a project may have ({entry.path!r})")
                info = _info(
                    f"{top}/{entry.path}", tarfile.SYMTYPE if entry.link else tarfile.REGTYPE, entry.mode
                )
                if entry.link:
                    info.linkname = objects.read(size).decode("utf-8", "surrogateescape")
                    tar.addfile(info)
                else:
                    info.size = size
                    tar.addfile(info, objects)
                if objects.read(1) != b"\n":
                    raise ResolveError(f"{what}: git's answer ends too soon")
        stored.finish()
    return stored.sha256.hexdigest(), stored.written


def write_project(archive: Path, subdirectory: str, target: Path, *, what: str) -> None:
    """Writes ``target``, a source archive of what ``archive`` has in ``subdirectory``, with the files that
    links of it lead to. It is for resolvers, which look for a project at an archive's top.

    Raises ``ResolveError``: there is no such directory."""
    with tarfile.open(archive, "r:gz") as source, tarfile.open(target, "w:gz", compresslevel=1) as project:
        members = source.getmembers()
        prefix = f"{members[0].name}/{subdirectory}/"
        inside = [member for member in members if member.name.startswith(prefix)]
        if not inside:
            raise ResolveError(f"{what}: it has no directory {subdirectory}")
        for member in inside:
            with suppress(KeyError):
                # Of a link it is what the link leads to, if that is a file of the archive.
                content = source.extractfile(member)
                if content is None:
                    continue
                info = _info(f"project/{member.name.removeprefix(prefix)}", tarfile.REGTYPE, 0o644)
                info.size = content.seek(0, io.SEEK_END)
                content.seek(0)
                project.addfile(info, content)


def _headers(trees: Iterable[TreeFiles], what: str) -> Iterator[tuple[IO[bytes], TreeEntry, int]]:
    """Each entry and its size; its bytes are what the objects give next."""
    for objects, entry in ((objects, entry) for entries, objects in trees for entry in entries):
        name, _, rest = objects.readline(200).decode("ascii", "replace").strip().partition(" ")
        kind, _, size = rest.partition(" ")
        if name != entry.object or kind != "blob" or not size.isdecimal():
            raise ResolveError(f"{what}: git doesn't give {entry.path!r}")
        yield objects, entry, int(size)


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, _TIME
    return info


class _StoredGzip(io.RawIOBase):
    """A gzip file whose blocks are stored, cut at the same places whoever writes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pending = bytearray()
        self._crc = 0
        self._size = 0
        self.sha256 = hashlib.sha256()
        self.written = 0
        self._put(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._pending += data
        while len(self._pending) > _BLOCK:
            self._block(bytes(self._pending[:_BLOCK]), last=False)
            del self._pending[:_BLOCK]
        return len(data)

    def finish(self) -> None:
        """Writes what is pending, and the end."""
        self._block(bytes(self._pending), last=True)
        self._put(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _block(self, data: bytes, *, last: bool) -> None:
        self._put(struct.pack("<BHH", int(last), len(data), len(data) ^ 0xFFFF) + data)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.written += len(data)
