"""Entries as the bytes of a tar archive: one list of entries, one byte string, on every machine.

The format is POSIX ustar, with a PAX record only for what ustar can't hold: a long or non-ASCII name or
link target, an id past seven octal digits, a file of 8 GiB or more (POSIX.1-2017 *pax*, sections "ustar
Interchange Format" and "pax Extended Header"). Headers are built by hand: ``tarfile`` streams at 91 MB/s,
this at about 500, and its bytes are not promised to stay.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from envbuild.compose.base import Entry, EntryKind
from envbuild.errors import BuildError
from envbuild.oci.digest import CHUNK

RECORD = 512
"""Bytes of a header, and the unit that contents are padded to."""

END = bytes(2 * RECORD)
"""The two zero blocks that end an archive."""

MTIME = 315532800
"""1980-01-01 00:00:00 UTC, the time of all files where nobody gives another one: the first that a zip archive
holds, which people make of what they find in an image."""

_ZEROS = bytes(RECORD)
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_CHECKSUM_OFFSET = 148
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_PAX_NAME = b"././@PaxHeader"
_TYPES = {EntryKind.FILE: b"0", EntryKind.SYMLINK: b"2", EntryKind.DIRECTORY: b"5"}


def check_path(path: str) -> None:
    """Returns if ``path`` may stand in a layer: relative, in normal form, UTF-8, and no whiteout.

    Raises ``BuildError``. A name that begins ``.wh.`` would delete what lies below (OCI layer
    specification, *Whiteouts*), so no artifact may bring one.
    """
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise BuildError(f"{path!r} is no path of an image", hint="the package is damaged or hostile")
    if ".wh." in path and any(part.startswith(".wh.") for part in parts):
        raise BuildError(
            f"{path!r} is named like a whiteout, which would delete a file of the image",
            hint="the package can't be put into a container layer as it is",
        )
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BuildError(f"{path!r} is not UTF-8", hint="images can't hold such a name") from error


def file_time(created: int) -> int:
    """The time of the files of an image that is ``created`` then (``SOURCE_DATE_EPOCH`` or 0)."""
    return max(created, MTIME)


def entry_header(entry: Entry, size: int, mtime: int) -> bytes:
    """The header blocks of ``entry`` (a PAX header first where one is needed); ``size`` of its contents."""
    check_path(entry.path)
    if "\0" in entry.target or (entry.kind is EntryKind.SYMLINK and not entry.target):
        raise BuildError(f"{entry.path}: {entry.target!r} is no link target")
    name = entry.path + "/" if entry.kind is EntryKind.DIRECTORY else entry.path
    target = entry.target if entry.kind is EntryKind.SYMLINK else ""
    mode = 0o777 if entry.kind is EntryKind.SYMLINK else entry.mode & 0o7777
    records: dict[str, str] = {}
    prefix, short = _split(name)
    if short is None:
        records["path"] = name
        prefix, short = b"", name.encode("ascii", "replace")[:100]
    link = target.encode("ascii", "replace")
    if len(link) > 100 or not target.isascii():
        records["linkpath"] = target
        link = link[:100]
    uid, gid, length = entry.uid, entry.gid, size
    if min(uid, gid) < 0:
        raise BuildError(f"{entry.path}: owner {uid}:{gid} is not valid")
    if uid > _MAX_ID:
        records["uid"], uid = str(uid), 0
    if gid > _MAX_ID:
        records["gid"], gid = str(gid), 0
    if length > _MAX_SIZE:
        records["size"], length = str(length), 0
    header = _Ustar(short, mode, length, _TYPES[entry.kind], prefix, uid, gid, mtime, link).pack()
    return _pax(records) + header if records else header


def entry_stream(entry: Entry, mtime: int = MTIME) -> Iterator[bytes]:
    """The bytes of one entry: header, contents, padding. Files are read a piece at a time.

    Raises ``BuildError`` if a file can't be read or changes its size meanwhile.
    """
    if entry.kind is not EntryKind.FILE:
        yield entry_header(entry, 0, mtime)
        return
    content = entry.content
    if isinstance(content, bytes):
        yield entry_header(entry, len(content), mtime)
        yield content
        yield _ZEROS[: -len(content) % RECORD]
        return
    try:
        with content.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            yield entry_header(entry, size, mtime)
            left = size
            while left and (data := file.read(min(CHUNK, left))):
                left -= len(data)
                yield data
            if left or file.read(1):
                raise BuildError(f"{content} changed while it was read for {entry.path}")
    except OSError as error:
        raise BuildError(f"can't read {content} for {entry.path}: {error.strerror}") from error
    yield _ZEROS[: -size % RECORD]


def _split(name: str) -> tuple[bytes, bytes | None]:
    """The ustar prefix and name; the name is None where ustar has no room or no letters for it."""
    if not name.isascii():
        return b"", None
    data = name.encode()
    if len(data) <= 100:
        return b"", data
    if len(data) > 256:
        return b"", None
    # The first slash that leaves at most 100 bytes behind it; a directory's own last one is no place to cut.
    cut = data.find(b"/", len(data) - 101, len(data) - 1)
    if cut < 1 or cut > 155:
        return b"", None
    return data[:cut], data[cut + 1 :]


def _pax(records: dict[str, str]) -> bytes:
    """A PAX extended header of ``records``, sorted by keyword."""
    body = b"".join(_pax_record(key, value) for key, value in sorted(records.items()))
    header = _Ustar(_PAX_NAME, 0o644, len(body), b"x").pack()
    return header + body + _ZEROS[: -len(body) % RECORD]


def _pax_record(key: str, value: str) -> bytes:
    try:
        text = f" {key}={value}\n".encode()
    except UnicodeEncodeError as error:
        raise BuildError(f"{value!r} is not UTF-8", hint="images can't hold such a name") from error
    # The length counts its own digits.
    length = len(text)
    while len(text) + len(str(length)) != length:
        length = len(text) + len(str(length))
    return str(length).encode() + text


class _Ustar(NamedTuple):
    """What a header block says (POSIX ustar)."""

    name: bytes
    mode: int
    size: int
    kind: bytes
    prefix: bytes = b""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: bytes = b""

    def pack(self) -> bytes:
        block = _HEADER.pack(
            self.name,
            b"%07o\0" % self.mode,
            b"%07o\0" % self.uid,
            b"%07o\0" % self.gid,
            b"%011o\0" % self.size,
            _octal_time(self.mtime),
            b"        ",
            self.kind,
            self.link,
            b"ustar\0",
            b"00",
            b"",
            b"",
            b"0000000\0",
            b"0000000\0",
            self.prefix,
        )
        checksum = b"%06o\0 " % sum(block)
        return block[:_CHECKSUM_OFFSET] + checksum + block[_CHECKSUM_OFFSET + len(checksum) :]


@lru_cache(maxsize=4)
def _octal_time(mtime: int) -> bytes:
    if not 0 <= mtime <= _MAX_SIZE:
        raise BuildError(f"the time {mtime} doesn't fit into a tar header", hint="check SOURCE_DATE_EPOCH")
    return b"%011o\0" % mtime
