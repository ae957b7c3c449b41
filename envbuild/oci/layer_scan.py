"""A fast way through a layer's tar: its entries in order, their contents read only where asked for.

Several times as fast as ``tarfile``, which makes an object with twenty fields of each entry. It understands
what layers are made of: ustar, PAX (POSIX.1-2001) and GNU's long names and sparse files. What readers of a
tar might understand in different ways is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from envbuild.oci.digest import CHUNK
from envbuild.oci.layer import uncompressed

_BLOCK = 512
_EXTENSION = 1 << 20
"""Bytes that a PAX header or a GNU long name may have."""
_REGULAR = frozenset(b"0\x007")
_LINK, _SYMLINK, _DIRECTORY = ord("1"), ord("2"), ord("5")
_WITHOUT_DATA = frozenset(b"123456")
_LONG_NAME, _LONG_LINK, _SPARSE = ord("L"), ord("K"), ord("S")
_PAX, _PAX_GLOBAL = frozenset(b"xX"), ord("g")
_OF_ALL = frozenset({"path", "linkpath", "size", "GNU.sparse.name"})
_BLANK = sum(b" " * 8)


@dataclass(slots=True)
class ScannedEntry:
    """One entry: its path as written, how many bytes of data follow, and where a link leads."""

    name: str
    size: int
    type: int
    link: str
    sparse: bool = False

    @property
    def is_directory(self) -> bool:
        return self.type == _DIRECTORY

    @property
    def is_hard_link(self) -> bool:
        return self.type == _LINK

    @property
    def is_symlink(self) -> bool:
        return self.type == _SYMLINK

    @property
    def is_regular(self) -> bool:
        """Whether its data are the file, whole and in order."""
        return self.type in _REGULAR and not self.sparse


class LayerScan:
    """Iterates over the entries of a tar stream. Raises ``ValueError`` and ``EOFError`` for a damaged one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = b""
        self._position = 0
        self._left = 0
        """Bytes of the present entry's data, and of its padding, that are still to come."""
        self._padding = 0

    def __iter__(self) -> Iterator[ScannedEntry]:
        name: str | None = None
        link: str | None = None
        pax: dict[str, str] = {}
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            header = self._take(_BLOCK, at_end=True)
            if not header or not header.strip(b"\0"):
                return
            _check(header)
            kind = header[156]
            size = _number(header, 124, 136)
            if kind in _PAX or kind in (_PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
                data = self._extension(size)
                if kind == _LONG_NAME:
                    name = _text(data.partition(b"\0")[0])
                elif kind == _LONG_LINK:
                    link = _text(data.partition(b"\0")[0])
                elif kind in _PAX:
                    pax = _records(data)
                elif not _OF_ALL.isdisjoint(_records(data)):
                    raise ValueError("a header for all entries names one")
                continue
            entry = _entry(header, kind, size, name, link, pax)
            if kind == _SPARSE:
                self._pass_sparse_map(header)
            name, link, pax = None, None, {}
            self._left = 0 if kind in _WITHOUT_DATA else entry.size
            self._padding = -self._left % _BLOCK
            yield entry

    def read(self, limit: int) -> bytes:
        """The next data of the entry that came last, ``limit`` bytes at most."""
        count = min(limit, self._left)
        self._left -= count
        return self._take(count)

    def _extension(self, size: int) -> bytes:
        if size > _EXTENSION:
            raise ValueError("a header longer than any")
        data = self._take(size)
        self._skip(-size % _BLOCK)
        return data

    def _pass_sparse_map(self, header: bytes) -> None:
        """GNU's map of a sparse file goes on behind the header; its data are shorter than the file."""
        more = header[482]
        while more:
            more = self._take(_BLOCK)[504]

    def _take(self, count: int, *, at_end: bool = False) -> bytes:
        """The next ``count`` bytes; none where the stream ends before them and may end there."""
        start, end = self._position, self._position + count
        if end <= len(self._buffer):
            self._position = end
            return self._buffer[start:end]
        pieces = [self._buffer[start:]]
        missing = count - len(pieces[0])
        self._buffer, self._position = b"", 0
        while missing > 0:
            piece = self._stream.read(CHUNK)
            if not piece:
                if at_end and missing == count:
                    return b""
                raise EOFError("it ends within an entry")
            pieces.append(piece[:missing])
            if len(piece) > missing:
                self._buffer, self._position = piece, missing
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        there = len(self._buffer) - self._position
        if count <= there:
            self._position += count
            return
        count -= there
        self._buffer, self._position = b"", 0
        while count > 0:
            piece = self._stream.read(CHUNK)
            if not piece:
                raise EOFError("it ends within an entry")
            if len(piece) > count:
                self._buffer, self._position = piece, count
            count -= len(piece)


@contextlib.contextmanager
def scan_layer(blob: Path, media_type: str) -> Iterator[LayerScan]:
    """A layer's entries, to be gone through once. Raises as ``uncompressed`` does."""
    with uncompressed(blob, media_type) as stream:
        yield LayerScan(stream)


def _entry(
    header: bytes, kind: int, size: int, name: str | None, link: str | None, pax: dict[str, str]
) -> ScannedEntry:
    sparse = kind == _SPARSE
    if pax:
        name, link = pax.get("path", name), pax.get("linkpath", link)
        if "size" in pax:
            size = _decimal(pax["size"])
        if any(key.startswith("GNU.sparse.") for key in pax):
            sparse, name = True, pax.get("GNU.sparse.name", name)
    if name is None:
        stated = header[:100].partition(b"\0")[0]
        # GNU's own format has times where POSIX has the first part of a long name.
        if header[257:263] == b"ustar\0" and header[345]:
            stated = header[345:500].partition(b"\0")[0] + b"/" + stated
        name = _text(stated)
    if kind == 0 and name.endswith("/"):
        kind = _DIRECTORY  # As before POSIX.
    if link is None:
        link = _text(header[157:257].partition(b"\0")[0])
    return ScannedEntry(name, size, kind, link, sparse)


def _check(header: bytes) -> None:
    """Raises ``ValueError`` unless the header has its own check sum: then it is none."""
    if sum(header) - sum(header[148:156]) + _BLANK != _number(header, 148, 156):
        raise ValueError("a header is damaged")


def _number(header: bytes, start: int, end: int) -> int:
    field = header[start:end]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")  # GNU's form for numbers too long for octal digits.
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise ValueError("a header has no number where one must be")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise ValueError("a header has no number where one must be")
    return int(text)


def _records(data: bytes) -> dict[str, str]:
    """The pairs of a PAX header: ``<length> <key>=<value>\\n`` each."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > position else b""
        if not digits.isdigit():
            raise ValueError("an extended header is damaged")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals:
            raise ValueError("an extended header is damaged")
        records[_text(key)] = _text(value)
        position = end
    return records


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
