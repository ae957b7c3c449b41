"""Whether linking a conda package would run its own code, said before anything is downloaded where it can be.

A ``.conda`` archive keeps its metadata apart, at its end, so the lists of files of a package of any size are
in the reach of one or two small requests.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from envbuild.compose.artifacts.conda.archive import refuse_damaged, stream
from envbuild.errors import BuildError
from envbuild.http.address import local_path
from envbuild.http.base import RangeReader
from envbuild.lock.model import CondaPin

_SCRIPT = re.compile(r"bin/\.(?:.+)-(pre-link|post-link)\.sh")
_LISTED = re.compile(r"(?:^|\")(bin/\.[^\"\n]+-(pre-link|post-link)\.sh)(?:\"|$)", re.MULTILINE)
_SCAN_LIMIT = 8 << 30
_TAIL = 32 << 10
_AHEAD = 256 << 10
_REACH = 32 << 20
"""Bytes of one archive that are asked for at the most before its download."""


def find_link_script(pin: CondaPin, archive: Path) -> str | None:
    """Why the package can't be linked without running its own code; None where it can."""
    with archive.open("rb") as raw:
        return _scan_archive(pin, raw)


def foresee_link_script(pin: CondaPin, stored: Path, ranges: RangeReader) -> str | None:
    """What :func:`find_link_script` will say, without a download; None also where that can't be known.

    ``stored`` is where the archive would be if it was here."""
    try:
        local = stored if stored.is_file() else local_path(pin.url)
        if local is not None:
            return find_link_script(pin, local) if local.is_file() else None
        if not pin.file.endswith(".conda") or pin.size <= 0:
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


def _scan_archive(pin: CondaPin, raw: BinaryIO) -> str | None:
    label = f"conda package {pin.name} {pin.version}"
    with refuse_damaged(label):
        info_first = pin.file.endswith(".conda")
        for tar, member in stream(raw, pin.file, _SCAN_LIMIT, label, info_only=info_first):
            name = member.name.removeprefix("./")
            if not info_first and (match := _SCRIPT.fullmatch(name)):
                return f"it runs a {match.group(1)} script"
            if name in ("info/paths.json", "info/files") and member.isreg():
                reader = tar.extractfile(member)
                text = reader.read(64 << 20).decode(errors="replace") if reader else ""
                if listed := _LISTED.search(text):
                    return f"it runs a {listed.group(2)} script"
                if name == "info/paths.json":
                    return None
    return None


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
