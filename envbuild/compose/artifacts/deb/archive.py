"""Reads a .deb (deb(5)): an ar archive of a control and a data tar, as safe, normal paths.

Pinned by hash or not, an archive is hostile until checked: sizes are bounded, paths stay below the root,
nothing is written through a link, and device nodes are refused.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from envbuild.compose.base import Entry, EntryKind
from envbuild.lazy import lazy
from envbuild.oci.digest import CHUNK

if TYPE_CHECKING:
    import zstandard
else:
    zstandard = lazy("zstandard")

_MAGIC = b"!<arch>\n"
_HEADER = 60
_MEMBERS = 16
_SMALL = 1 << 16
"""Bytes up to which a file's content is kept in memory…"""
_IN_MEMORY = 32 << 20
"""…while all of them are below this; else it goes to scratch."""
_CONTROL = 16 << 20
"""Bytes the control files may have together."""
_LARGEST = 64 << 30
"""Bytes a package may unpack to."""
_ENTRIES = 1_000_000
_MERGED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"})
"""Directories that are links into ``usr`` (usrmerge)."""


class UnsafeArchive(Exception):
    """The archive can't be read, or isn't safe to unpack; the text says why."""


def control_files(deb: Path) -> dict[str, bytes]:
    """The files of the control archive by name: ``control``, ``md5sums``… Raises ``UnsafeArchive``."""
    files: dict[str, bytes] = {}
    total = 0
    with _tar(deb, "control.tar") as tar:
        for info in _infos(tar):
            name = info.name.removeprefix("./")
            if not info.isreg() or "/" in name:
                continue
            total += info.size
            if total > _CONTROL:
                raise UnsafeArchive(f"its control files have more than {_CONTROL} bytes")
            files[name] = _content(tar, info).read()
    return files


def data_entries(deb: Path, scratch: Path) -> dict[str, Entry]:
    """What the data archive holds, by normal path, in its order. Larger files are streamed below ``scratch``.

    Hard links are files of equal content. Paths are those of a merged ``/usr``. Raises ``UnsafeArchive``."""
    entries: dict[str, Entry] = {}
    total = in_memory = 0
    with _tar(deb, "data.tar") as tar:
        for count, info in enumerate(_infos(tar)):
            path = normal_path(info.name)
            if not path or (info.issym() and path in _MERGED and info.linkname.strip("/") == f"usr/{path}"):
                continue
            total += info.size
            if count >= _ENTRIES or total > _LARGEST:
                raise UnsafeArchive("it unpacks to more than any package should")
            path = merged_path(path)
            entry = _entry(path, info, entries)
            if info.isreg():
                small = info.size <= _SMALL and in_memory + info.size <= _IN_MEMORY
                in_memory += info.size if small else 0
                content = _read_small(tar, info) if small else _write_large(tar, info, scratch / str(count))
                entry = _file(path, info, content)
            _add(entries, entry)
    _check_parents(entries)
    return entries


def normal_path(name: str) -> str:
    """``name`` without leading ``./`` and trailing ``/``; empty for the root. Raises ``UnsafeArchive``."""
    if name.startswith("/"):
        raise UnsafeArchive(f"it has an absolute path: {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeArchive(f"it has a path that leaves the root: {name!r}")
    for part in parts:
        if part.startswith(".wh."):
            raise UnsafeArchive(f"it has a name that image layers use for deletions: {name!r}")
        if not part.isprintable() or "\ufffd" in part or any("\udc80" <= char <= "\udcff" for char in part):
            raise UnsafeArchive(f"it has a name that is not printable UTF-8: {name!r}")
    return "/".join(parts)


def merged_path(path: str) -> str:
    """Where ``path`` is once ``/bin``, ``/lib`` and their like are links into ``/usr``."""
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


def _entry(path: str, info: tarfile.TarInfo, entries: dict[str, Entry]) -> Entry:
    if info.isdir():
        return Entry(path=path, kind=EntryKind.DIRECTORY, mode=info.mode & 0o7777, uid=info.uid, gid=info.gid)
    if info.issym():
        _check_target(path, info.linkname)
        return Entry(path=path, kind=EntryKind.SYMLINK, mode=0o777, target=info.linkname)
    if info.islnk():
        first = entries.get(merged_path(normal_path(info.linkname)))
        if first is None or first.kind is not EntryKind.FILE:
            raise UnsafeArchive(f"{path!r} is a hard link to {info.linkname!r}, which is no file before it")
        return Entry(path=path, mode=first.mode, content=first.content, uid=first.uid, gid=first.gid)
    if not info.isreg() or info.issparse():
        raise UnsafeArchive(f"{path!r} is a device, a pipe or of an unknown type")
    return Entry(path=path)


def _file(path: str, info: tarfile.TarInfo, content: bytes | Path) -> Entry:
    return Entry(path=path, mode=info.mode & 0o7777, content=content, uid=info.uid, gid=info.gid)


def _check_target(path: str, target: str) -> None:
    if not target or "\0" in target or not target.isprintable():
        raise UnsafeArchive(f"{path!r} is a link to nothing that can be named")
    depth = 0 if target.startswith("/") else path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise UnsafeArchive(f"{path!r} is a link that leaves the root: {target!r}")


def _add(entries: dict[str, Entry], entry: Entry) -> None:
    there = entries.get(entry.path)
    if there is not None and not (there.kind is entry.kind is EntryKind.DIRECTORY):
        raise UnsafeArchive(f"it has {entry.path!r} twice")
    entries[entry.path] = entry


def _check_parents(entries: dict[str, Entry]) -> None:
    for path in entries:
        parent = path.rpartition("/")[0]
        while parent:
            above = entries.get(parent)
            if above is not None and above.kind is not EntryKind.DIRECTORY:
                raise UnsafeArchive(f"{path!r} lies below {parent!r}, which is no directory")
            parent = parent.rpartition("/")[0]


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    stream = tar.extractfile(info)
    if stream is None:
        raise UnsafeArchive(f"{info.name!r} has no content")
    return cast(BinaryIO, stream)


def _read_small(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    data = _content(tar, info).read()
    if len(data) != info.size:
        raise UnsafeArchive(f"it ends inside {info.name!r}")
    return data


def _write_large(tar: tarfile.TarFile, info: tarfile.TarInfo, sink: Path) -> Path:
    stream, size = _content(tar, info), 0
    with sink.open("wb", buffering=0) as file:
        while chunk := stream.read(CHUNK):
            file.write(chunk)
            size += len(chunk)
    if size != info.size:
        raise UnsafeArchive(f"it ends inside {info.name!r}")
    return sink


def _infos(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        # A stream keeps every header it has met; what was dealt with isn't asked for again.
        tar.members = []  # type: ignore[attr-defined]
        yield info


@contextmanager
def _tar(deb: Path, stem: str) -> Iterator[tarfile.TarFile]:
    try:
        with deb.open("rb") as file:
            name, offset, size = _member(file, stem)
            raw = cast(BinaryIO, io.BufferedReader(_FileSlice(file, offset, size), CHUNK))
            with (
                _decompressed(raw, name.removeprefix(stem)) as stream,
                tarfile.open(fileobj=stream, mode="r|", errorlevel=2, encoding="utf-8") as tar,
            ):
                yield tar
    except (tarfile.TarError, lzma.LZMAError, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise UnsafeArchive(f"its {stem} can't be read: {error}") from error
    except (ValueError, OverflowError, gzip.BadGzipFile) as error:
        raise UnsafeArchive(f"its {stem} is damaged: {error}") from error


def _member(file: BinaryIO, stem: str) -> tuple[str, int, int]:
    """Name, offset and size of the ar member ``stem`` with whatever compression."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise UnsafeArchive("it is no Debian package")
    for number in range(_MEMBERS):
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            break
        name = header[:16].decode("ascii", "replace").strip().removesuffix("/")
        digits = header[48:58].decode("ascii", "replace").strip()
        offset = file.tell()
        if header[58:] != b"`\n" or not digits.isdigit() or offset + int(digits) > end:
            raise UnsafeArchive("it is truncated, or no Debian package")
        size = int(digits)
        if number == 0 and (name != "debian-binary" or not file.read(min(size, 8)).startswith(b"2.")):
            raise UnsafeArchive("it is not in Debian's package format 2")
        if name == stem or name.startswith(f"{stem}."):
            return name, offset, size
        file.seek(offset + size + size % 2)
    raise UnsafeArchive(f"it has no {stem}")


def _decompressed(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(raw, "rb"))
    if suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return cast(BinaryIO, reader)
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(raw, "rb"))
    if suffix == "":
        return raw
    raise UnsafeArchive(f"its compression {suffix!r} is not known")


class _FileSlice(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._left = size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._file.read(min(len(view), self._left))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)
