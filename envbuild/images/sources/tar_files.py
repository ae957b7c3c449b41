"""The files of a tar that strangers wrote, read where they lie: nothing is unpacked."""

from __future__ import annotations

import io
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from envbuild.errors import FetchError
from envbuild.oci.digest import CHUNK
from envbuild.oci.layer import compression_of, uncompressed
from envbuild.oci.manifest import OCI_LAYER

_EXPANSION = 200
_EXPANDED = 1 << 30
"""A compressed archive may hold so many times its own size, or this many bytes, whichever is more."""


class TarFiles:
    """The plain files of an uncompressed tar by name. Threads may share it: each read opens the file anew.

    A name that is there twice could mean two things, so it is refused; so are hard links, devices and sparse
    files, and more than ``most`` entries. With ``links``, a symlink is a second name of a file of the same
    archive; without, it is refused too. Raises ``FetchError``.
    """

    def __init__(self, path: Path, what: str, *, most: int = 4096, links: bool = False) -> None:
        self.what = what
        self._path = path
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._with_links = links
        try:
            with tarfile.open(path, "r:", encoding="utf-8") as archive:
                for count, member in enumerate(archive):
                    if count >= most:
                        raise FetchError(f"{what} has more than {most} files")
                    self._add(member)
        except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
            raise FetchError(f"{what} can't be read: {error}") from error
        except OSError as error:
            raise FetchError(f"{what} can't be read: {error.strerror or error}") from error

    def _add(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        name = member.name.removeprefix("./")
        if name in self._files or name in self._links:
            raise FetchError(f"{self.what} holds {name!r} twice")
        if member.issym() and self._with_links:
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.isreg() and not member.issparse():
            self._files[name] = (member.offset_data, member.size)
        else:
            raise FetchError(f"{self.what} holds {name!r}, which is no plain file of an image")

    def __contains__(self, name: object) -> bool:
        return name in self._files or self._links.get(str(name)) in self._files

    def size(self, name: str) -> int:
        """In bytes."""
        return self._place(name)[1]

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """The file's bytes, to be read once from front to end."""
        offset, size = self._place(name)
        try:
            with self._path.open("rb", buffering=0) as raw:
                raw.seek(offset)
                yield cast(IO[bytes], io.BufferedReader(_Part(raw, size), CHUNK))
        except OSError as error:
            raise FetchError(f"{self.what} can't be read: {error.strerror or error}") from error

    def _place(self, name: str) -> tuple[int, int]:
        file = self._files.get(self._links.get(name, name))
        if file is None:
            raise FetchError(f"{self.what} lacks {name}")
        return file


class _Part(io.RawIOBase):
    """``size`` bytes of a file, from where it stands."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)[: self._left]  # type: ignore[arg-type]
        got = self._file.readinto(view) or 0
        self._left -= got
        return got


def expand(path: Path, target: Path, what: str) -> bool:
    """Whether ``path`` is compressed by gzip or zstd; then ``target`` holds what it was before, a bounded
    number of times larger. Raises ``FetchError`` for a damaged or a boundless one."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        packing = compression_of(head)
        if packing == OCI_LAYER:
            return False
        left = max(_EXPANDED, _EXPANSION * path.stat().st_size)
        with uncompressed(path, packing) as source, target.open("wb") as sink:
            while piece := source.read(CHUNK):
                left -= len(piece)
                if left < 0:
                    raise FetchError(f"{what} holds more than any archive of its size may")
                sink.write(piece)
    except (EOFError, ValueError, zlib.error) as error:
        raise FetchError(f"{what} can't be uncompressed: {error}") from error
    except OSError as error:
        raise FetchError(f"{what} can't be read: {error.strerror or error}") from error
    return True
