"""What a compressed segment from elsewhere holds, read from its bytes alone.

A segment that comes from a shared cache is copied into layers as it is. So nothing about it is believed:
each compressed member must be exactly one member, and each header must be, byte for byte, the one that
:mod:`envbuild.compose.tar` writes for what it says. Then no reader of archives can see other paths in it than
the record that is made here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from envbuild.compose.base import Entry, EntryKind
from envbuild.compose.codec import BLOCK, Codec
from envbuild.compose.tar import MTIME, RECORD, check_path, entry_header
from envbuild.errors import BuildError
from envbuild.store.segments import DirectoryRow, Segment

_PAX_LIMIT = 64 << 10
"""Bytes of a PAX header. Ours hold a path, a link target and numbers."""
_MAX_ID = 0xFFFFFFFE
"""The largest user or group id that Linux has."""
_PAX_KEYS = frozenset({"path", "linkpath", "uid", "gid", "size"})


def scan_segment(
    key: str,
    part: Path,
    members: Sequence[tuple[int, int]],
    directories: Sequence[DirectoryRow],
    codec: Codec,
    *,
    mtime: int = MTIME,
    beat: Callable[[], None] = lambda: None,
) -> Segment:
    """The record of the segment ``key`` whose compressed bytes are the file ``part``.

    ``members`` are the (compressed, uncompressed) sizes and ``directories`` the rows that it is said to
    have, ``mtime`` the time of all its entries. ``beat`` is called after each member. Raises ``BuildError``
    unless all fits.
    """
    for size, block in members:
        if size < 1 or not 0 < block <= BLOCK or block % RECORD:
            raise _unsound("a member has an impossible size")
    _check_directories(directories)
    headers = _HeaderReader(mtime)
    checksums: list[int] = []
    try:
        with part.open("rb", buffering=0) as file:
            for size, block in members:
                member = file.read(size)
                checksums.append(zlib.crc32(member))
                headers.feed(codec.expand_alone(member, block))
                beat()
            if file.read(1):
                raise _unsound("bytes follow its last member")
    except OSError as error:
        raise BuildError(f"can't read {part}: {error.strerror}") from error
    headers.end()
    return Segment(
        key=key,
        members=tuple(members),
        checksums=tuple(checksums),
        paths=tuple(headers.paths.items()),
        links=tuple(headers.links),
        directories=tuple(directories),
    )


class _HeaderReader:
    """Reads the headers of a tar stream that comes a block at a time, each a multiple of ``RECORD``."""

    def __init__(self, mtime: int) -> None:
        self._mtime = mtime
        self.paths: dict[str, int] = {}
        """Path to the offset of its header, in the order of the stream."""
        self.links: list[tuple[str, str]] = []
        self._position = 0
        """Offset of the next byte to be fed."""
        self._skip = 0
        """Bytes of contents and padding still to come."""
        self._rest = b""
        """The beginning of a PAX header whose end is in the next block."""

    def feed(self, block: bytes) -> None:
        data = self._rest + block if self._rest else block
        start = self._position - len(self._rest)
        self._position += len(block)
        self._rest = b""
        at = min(self._skip, len(data))
        self._skip -= at
        while at < len(data):
            header = data[at : at + RECORD]
            length = RECORD
            records: dict[str, str] = {}
            if header[156:157] == b"x":
                size = _octal(header[124:135])
                if size > _PAX_LIMIT:
                    raise _unsound("a PAX header is too long")
                length = RECORD + size + -size % RECORD + RECORD
                if at + length > len(data):
                    self._rest = data[at:]
                    return
                records = _pax_records(data[at + RECORD : at + RECORD + size])
                header = data[at + length - RECORD : at + length]
            entry, size = _entry(header, records)
            if entry_header(entry, size, self._mtime) != data[at : at + length]:
                raise _unsound(f"the header of {entry.path!r} isn't the one that belongs there")
            if entry.path in self.paths:
                raise _unsound(f"{entry.path!r} is there twice")
            self.paths[entry.path] = start + at
            if entry.kind is EntryKind.SYMLINK:
                self.links.append((entry.path, entry.target))
            at += length
            contents = size + -size % RECORD
            skipped = min(contents, len(data) - at)
            at += skipped
            self._skip = contents - skipped

    def end(self) -> None:
        """Raises ``BuildError`` where the stream breaks off inside an entry."""
        if self._skip or self._rest:
            raise _unsound("it breaks off inside an entry")


def _entry(header: bytes, records: dict[str, str]) -> tuple[Entry, int]:
    """What a header seems to say, and the size of the contents. The caller compares it with ours."""
    kinds = {b"0": EntryKind.FILE, b"2": EntryKind.SYMLINK}
    kind = kinds.get(header[156:157])
    if kind is None:
        raise _unsound("an entry is neither a file nor a symbolic link")
    try:
        name, prefix = (field.rstrip(b"\0").decode("ascii") for field in (header[:100], header[345:500]))
        target = header[157:257].rstrip(b"\0").decode("ascii")
        size = int(records["size"]) if "size" in records else _octal(header[124:135])
        entry = Entry(
            path=records.get("path", f"{prefix}/{name}" if prefix else name),
            kind=kind,
            mode=_octal(header[100:107]),
            uid=int(records["uid"]) if "uid" in records else _octal(header[108:115]),
            gid=int(records["gid"]) if "gid" in records else _octal(header[116:123]),
            target=records.get("linkpath", target) if kind is EntryKind.SYMLINK else "",
        )
    except ValueError as error:
        raise _unsound("a header isn't in the form that is written here") from error
    if size < 0 or not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise _unsound("a header has an impossible number")
    return entry, 0 if kind is EntryKind.SYMLINK else size


def _pax_records(body: bytes) -> dict[str, str]:
    """The records of a PAX header. Raises ``BuildError`` for any that is never written here."""
    records: dict[str, str] = {}
    while body:
        digits, space, _ = body.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        record, body = body[len(digits) + 1 : length], body[length:]
        try:
            name, equals, value = record.decode().partition("=")
        except UnicodeDecodeError as error:
            raise _unsound("a PAX header isn't UTF-8") from error
        if not (space and equals and value.endswith("\n")) or name not in _PAX_KEYS or name in records:
            raise _unsound("a PAX header isn't in the form that is written here")
        records[name] = value[:-1]
    return records


def _octal(field: bytes) -> int:
    if not field.isdigit() or b"8" in field or b"9" in field:
        raise _unsound("a header has no octal number where one belongs")
    return int(field, 8)


def _check_directories(rows: Iterable[DirectoryRow]) -> None:
    seen: set[str] = set()
    for path, mode, uid, gid in rows:
        check_path(path)
        if path in seen or not (0 <= mode <= 0o7777 and 0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
            raise _unsound(f"the directory {path!r} is stated twice, or with an impossible mode or owner")
        seen.add(path)


def _unsound(why: str) -> BuildError:
    return BuildError(f"a segment isn't sound: {why}")
