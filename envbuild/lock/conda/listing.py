"""What is in a conda package by its own list of files, known before it is downloaded where it can be.

A ``.conda`` archive keeps its metadata apart, at its end, so the list of a package of any size is in the
reach of one or two small requests.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from envbuild.errors import BuildError
from envbuild.http.address import local_path
from envbuild.http.base import RangeReader
from envbuild.lazy import lazy
from envbuild.lock.model import CondaPin

if TYPE_CHECKING:
    from conda_package_streaming import package_streaming  # type: ignore[import-untyped]
    from packaging import utils as packaging_utils
    from packaging import version as packaging_version
else:
    package_streaming = lazy("conda_package_streaming.package_streaming")
    packaging_utils = lazy("packaging.utils")
    packaging_version = lazy("packaging.version")

_LINK_SCRIPT = re.compile(r"(?:^|\")bin/\.[^\"\n]+-(pre-link|post-link)\.sh(?:\"|$)", re.MULTILINE)
_ACTIVATION = re.compile(
    r"(?:^|\")(?:etc/conda/(?:activate\.d/[^\"/\n]+\.sh|env_vars\.d/[^\"/\n]+\.json)|conda-meta/state)(?:\"|$)",
    re.MULTILINE,
)
_DISTRIBUTION = re.compile(
    r"(?:^|\")(?:lib/python[^\"/\n]+/)?site-packages/([^\"/\n-]+)-([^\"/\n-]+)(?:-[^\"/\n]+)?"
    r"\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)(?:\"|$)",
    re.MULTILINE,
)
_SCAN_LIMIT = 8 << 30
_TAIL = 32 << 10
_AHEAD = 256 << 10
_REACH = 32 << 20
"""Bytes of one archive that are asked for at the most before its download."""


@dataclass(frozen=True, slots=True)
class PackageListing:
    """The paths that a package is linked with."""

    text: str
    """``info/paths.json`` or ``info/files``: JSON isn't read, as a list may have 10^5 entries and few are
    looked for."""

    @property
    def link_script(self) -> str | None:
        """Why the package can't be linked without running its own code; None where it can."""
        match = _LINK_SCRIPT.search(self.text)
        return f"it runs a {match.group(1)} script" if match else None

    @property
    def activates(self) -> bool:
        """Whether conda reads files of it to activate an environment."""
        return _ACTIVATION.search(self.text) is not None

    @property
    def distributions(self) -> dict[str, str]:
        """The Python distributions inside, normalised name to version, sorted."""
        versions: dict[str, str] = {}
        for name, version in _DISTRIBUTION.findall(self.text):
            try:
                versions[str(packaging_utils.canonicalize_name(name, validate=True))] = str(
                    packaging_version.Version(version)
                )
            except (packaging_utils.InvalidName, packaging_version.InvalidVersion):
                continue
        return dict(sorted(versions.items()))


def read_listing(pin: CondaPin, archive: Path) -> PackageListing:
    """The list of a package that is here. Raises ``BuildError`` for a damaged one."""
    with archive.open("rb") as raw:
        return _scan_archive(pin, raw)


def foresee_listing(pin: CondaPin, stored: Path, ranges: RangeReader | None) -> PackageListing | None:
    """The list of a package, without a download; None where it can't be known.

    ``stored`` is where the archive would be if it was here."""
    try:
        local = stored if stored.is_file() else local_path(pin.url)
        if local is not None:
            return read_listing(pin, local) if local.is_file() else None
        if ranges is None or not pin.file.endswith(".conda") or pin.size <= 0:
            return None
        remote = _RemoteFile(lambda start, length: ranges.part(pin.url, start, length), pin.size)
        return _scan_archive(pin, io.BufferedReader(remote, 4096))
    except (BuildError, OSError, ValueError):
        # Damaged or out of reach: the download itself will say so, with all there is to say.
        return None


class SkippingRangeReader:
    """A ``RangeReader`` that asks no server again that has once not answered with a part. Thread safe."""

    def __init__(self, ranges: RangeReader) -> None:
        self._ranges = ranges
        self._mute: set[str] = set()

    def part(self, url: str, start: int, length: int) -> bytes | None:
        host = urlsplit(url).netloc
        if host in self._mute:
            return None
        data = self._ranges.part(url, start, length)
        if data is None:
            self._mute.add(host)
        return data


def _scan_archive(pin: CondaPin, raw: BinaryIO) -> PackageListing:
    label = f"conda package {pin.name} {pin.version}"
    names: list[str] = []
    with refuse_damaged(label):
        info_first = pin.file.endswith(".conda")
        for tar, member in stream(raw, pin.file, _SCAN_LIMIT, label, info_only=info_first):
            name = member.name.removeprefix("./")
            if name in ("info/paths.json", "info/files") and member.isreg():
                reader = tar.extractfile(member)
                text = reader.read(64 << 20).decode(errors="replace") if reader else ""
                if name == "info/paths.json":
                    return PackageListing(text)
                names.append(text)
            elif not name.startswith("info/"):
                names.append(name)
    return PackageListing("\n".join(names))


def stream(
    raw: BinaryIO, file_name: str, limit: int, label: str, *, info_only: bool = False
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Members in the archive's order, metadata first where the format has it apart."""
    if file_name.endswith(".tar.bz2"):
        with bz2.open(raw) as bz2_file:
            yield from package_streaming.tar_generator(_BoundedReader(bz2_file, limit, label))
        return
    if file_name.endswith(".tar.gz"):
        with gzip.open(raw) as gzip_file:
            yield from package_streaming.tar_generator(_BoundedReader(gzip_file, limit, label))
        return
    with zipfile.ZipFile(raw) as bag:
        for part in ("info",) if info_only else ("info", "pkg"):
            names = [
                entry
                for entry in bag.infolist()
                if entry.filename.startswith(f"{part}-") and entry.filename.endswith(".tar.zst")
            ]
            if len(names) != 1:
                raise BuildError(f"{label}: the archive has {len(names)} {part} parts, not one")
            with bag.open(names[0]) as packed, package_streaming.zstd.open(packed) as plain:
                yield from package_streaming.tar_generator(_BoundedReader(plain, limit, label))


@contextmanager
def refuse_damaged(label: str) -> Iterator[None]:
    """Turns what the archive libraries raise into a ``BuildError``."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        KeyError,
        NotImplementedError,
    ) as error:
        raise BuildError(
            f"{label}: damaged archive: {error}", hint="the channel's file is broken; choose another build"
        ) from error
    except OSError as error:
        if error.errno is None:  # bz2 says so for bad data
            raise BuildError(f"{label}: damaged archive: {error}") from error
        raise BuildError(f"{label}: can't unpack: {error.strerror}", hint="free some space") from error
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise BuildError(f"{label}: damaged archive: {error}") from error
        raise


class _RemoteFile(io.RawIOBase):
    """A file of ``size`` bytes elsewhere, of which only the parts that are read are asked for."""

    def __init__(self, part: Callable[[int, int], bytes | None], size: int) -> None:
        self._part = part
        self._size = size
        self._at = 0
        self._start = 0
        self._held = b""
        self._left = _REACH
        self._ask(max(0, size - _TAIL), min(size, _TAIL))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        if not self._start <= self._at < self._start + len(self._held):
            self._ask(self._at, min(max(wanted, _AHEAD), self._size - self._at))
        data = self._held[self._at - self._start :][:wanted]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _ask(self, start: int, length: int) -> None:
        self._left -= length
        data = self._part(start, length) if self._left >= 0 else None
        if data is None or len(data) != length:
            raise OSError("that part of the file can't be had")
        self._start, self._held = start, data


class _BoundedReader:
    """A reader that ends with an error once more than ``limit`` bytes came out of it."""

    def __init__(self, file: Any, limit: int, label: str) -> None:
        self._file = file
        self._left = limit
        self._label = label

    def read(self, size: int = -1) -> bytes:
        if size > self._left:
            size = self._left + 1
        data: bytes = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BuildError(
                f"{self._label}: refused: the archive unpacks to far more than its size",
                hint="such an archive would fill the disk",
            )
        return data
