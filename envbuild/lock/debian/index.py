"""A ``Packages`` index that answers by name in milliseconds.

The verified file (trixie: 13 MB of gzip, 56 MB of text, 69,000 packages) is read once, streaming, and kept
as small zstd frames with the names that each holds. What is kept is named by the SHA-256 of the file it was
made from; a damaged copy counts as none and is made again.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from envbuild.errors import BuildError, ResolveError
from envbuild.lazy import lazy
from envbuild.lock.debian.control import DebianPackage, paragraphs
from envbuild.store.content import Store, commit_file

if TYPE_CHECKING:
    import zstandard
    from isal import igzip as isal_igzip
else:
    isal_igzip = lazy("isal.igzip")
    zstandard = lazy("zstandard")

AREA = "metadata/debian"

_MAGIC = b"ebindex1"
_HEAD = struct.Struct("<8sQ32s")
_PACKAGE = re.compile(rb"\n\nPackage: ([^\s]+)")
_PROVIDES = re.compile(rb"\nProvides: ([^\n]+)")
_FRAME = 1 << 16
"""Bytes of text to a frame, at the least; a paragraph is never split."""
_READ = 1 << 18
_LARGEST = 1 << 30
"""Bytes of text an index may have."""


class DebianIndex:
    """The packages of one index file. ``archive`` names the root their files are below."""

    def __init__(self, path: Path, archive: str) -> None:
        """Raises ``ValueError`` or ``OSError`` for a file that isn't whole."""
        self._path = path
        self._archive = archive
        with path.open("rb") as file:
            magic, length, digest = _HEAD.unpack(file.read(_HEAD.size).ljust(_HEAD.size))
            header = file.read(length) if magic == _MAGIC and length < _LARGEST else b""
        if hashlib.sha256(header).digest() != digest:
            raise ValueError("not a whole index")
        content = json.loads(header)
        self._spans: list[tuple[int, int]] = []
        offset = _HEAD.size + length
        for size in content["frames"]:
            self._spans.append((offset, size))
            offset += size
        self._frames: dict[str, list[int]] = {}
        for number, names in enumerate(content["names"]):
            for name in names.split():
                self._frames.setdefault(name, []).append(number)
        self._provides: dict[str, str] = content["provides"]
        self._known: dict[str, tuple[DebianPackage, ...]] = {}

    @property
    def names(self) -> Iterator[str]:
        return iter(self._frames)

    def packages(self, name: str) -> tuple[DebianPackage, ...]:
        """All versions of ``name`` that the index has, in its order. Raises ``ResolveError``."""
        if name not in self._known:
            debian_packages: list[DebianPackage] = []
            for number in sorted(set(self._frames.get(name, ()))):
                debian_packages += self._read_frame(number, name)
            self._known[name] = tuple(debian_packages)
        return self._known[name]

    def providers(self, name: str) -> tuple[str, ...]:
        """Names of the packages that provide the virtual package ``name``, sorted."""
        return tuple(self._provides.get(name, "").split())

    def _read_frame(self, number: int, name: str) -> Iterator[DebianPackage]:
        offset, size = self._spans[number]
        with self._path.open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
        text = _decompress(raw)
        start = f"Package: {name}\n".encode()
        for paragraph in text.split(b"\n\n"):
            if paragraph.startswith(start):
                try:
                    (fields,) = paragraphs(paragraph.decode())
                    yield DebianPackage.from_fields(fields, self._archive)
                except (ValueError, UnicodeDecodeError) as error:
                    raise ResolveError(
                        f"the package index has a damaged entry for {name}: {error}"
                    ) from error


def kept_index(store: Store, sha256: str, archive: str) -> DebianIndex | None:
    """The index made earlier of the file with this SHA-256, if it is whole."""
    try:
        return DebianIndex(store.root / AREA / sha256, archive)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def make_index(store: Store, source: Path, name: str, sha256: str, archive: str) -> DebianIndex:
    """The index of the verified file ``source`` (``.xz``, ``.gz`` or plain, as ``name`` says), now kept.

    Raises ``ResolveError`` for a file that can't be read as one."""
    frames: list[Future[bytes]] = []
    names: list[str] = []
    provides: dict[str, set[str]] = {}
    try:
        with _opened(source, name) as stream, ThreadPoolExecutor(1) as pool:
            for block in _blocks(stream):
                frames.append(pool.submit(_compress, block))
                names.append(_package_names(block, provides))
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise ResolveError(f"the package index {name} can't be read: {error}") from error
    header = json.dumps(
        {
            "frames": [len(frame.result()) for frame in frames],
            "names": names,
            "provides": {provide: " ".join(sorted(by)) for provide, by in sorted(provides.items())},
        }
    ).encode()
    path = store.directory(AREA) / sha256
    try:
        with store.scratch() as scratch:
            part = scratch / "index"
            with part.open("wb") as file:
                file.write(_HEAD.pack(_MAGIC, len(header), hashlib.sha256(header).digest()))
                file.write(header)
                file.writelines(frame.result() for frame in frames)
            commit_file(part, path)
    except (OSError, BuildError) as error:
        raise ResolveError(
            f"can't keep the package index in {store.root}: {error}",
            hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
        ) from error
    return DebianIndex(path, archive)


def _opened(source: Path, name: str) -> BinaryIO:
    if name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(source, "rb"))
    if name.endswith(".gz"):
        return cast(BinaryIO, isal_igzip.IGzipFile(source, "rb"))  # type: ignore[no-untyped-call]
    return source.open("rb")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Whole paragraphs, about a frame at a time."""
    rest = b""
    total = 0
    while chunk := stream.read(_READ):
        total += len(chunk)
        if total > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes of text")
        rest += chunk
        while (end := rest.find(b"\n\n", _FRAME)) >= 0:
            yield rest[: end + 1]
            rest = rest[end + 2 :]
    if rest.strip():
        yield rest


def _package_names(block: bytes, provides: dict[str, set[str]]) -> str:
    """The names of the block's packages; what they provide is added to ``provides``. Works on the whole
    block at a time, because there are 69,000 paragraphs."""
    text = b"\n\n" + block.strip(b"\n")
    names = _PACKAGE.findall(text)
    if len(names) != text.count(b"\n\n"):
        raise ValueError("a paragraph that doesn't begin with its package's name")
    for match in _PROVIDES.finditer(text):
        start = text.rfind(b"\n\n", 0, match.start()) + len(b"\n\nPackage: ")
        name = text[start : text.find(b"\n", start)].decode().strip()
        for part in match[1].decode().split(","):
            virtual = part.partition("(")[0].partition(":")[0].strip()
            if virtual:
                provides.setdefault(virtual, set()).add(name)
    return b" ".join(names).decode()


def _compress(block: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(block)


def _decompress(frame: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=_LARGEST)
    except zstandard.ZstdError as error:
        raise ResolveError(
            f"the kept package index is damaged: {error}", hint="run `envbuild cache prune`, then again"
        ) from error


class DebianPackages:
    """Several indexes as one: the main suite's, its updates' and its security updates'."""

    def __init__(self, indexes: Sequence[DebianIndex], architecture: str) -> None:
        self._indexes = tuple(indexes)
        self._architecture = architecture

    def versions(self, name: str) -> tuple[DebianPackage, ...]:
        """Every version of ``name`` that fits the architecture, as the indexes order them."""
        fitting = (self._architecture, "all")
        return tuple(
            package
            for index in self._indexes
            for package in index.packages(name)
            if package.architecture in fitting
        )

    def providers(self, name: str) -> tuple[str, ...]:
        return tuple(sorted({provider for index in self._indexes for provider in index.providers(name)}))

    def close_names(self, name: str) -> list[str]:
        """Known names that begin as ``name`` does, sorted, for an error message."""
        return sorted({known for index in self._indexes for known in index.names if known[:2] == name[:2]})
