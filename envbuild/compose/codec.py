"""Compression whose bytes depend on its input alone: not on threads, feeding, time or CPU.

Data is cut into blocks of :data:`BLOCK` bytes and each becomes a gzip member or zstd frame of its own, so
blocks can be compressed and expanded in any order and by any number of threads. The codec decides a
layer's digest: its name, level and library version are part of every cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from envbuild.compose.bytecode import BYTECODE_FORMAT
from envbuild.errors import BuildError, UsageError
from envbuild.lazy import lazy
from envbuild.oci.manifest import OCI_LAYER_GZIP, OCI_LAYER_ZSTD

if TYPE_CHECKING:
    import deflate
    import zstandard
    from isal import isal_zlib
else:
    deflate = lazy("deflate")
    isal_zlib = lazy("isal.isal_zlib")
    zstandard = lazy("zstandard")

FORMAT = 2
"""Number of the composer's format: raised whenever the same plan would give other bytes."""

BLOCK = 4 << 20
"""Bytes of a block before compression. Part of the format."""

GZIP_LEVEL = 3
"""libdeflate's level. On site-packages 6 is a third slower and 4 % smaller, 1 a half faster and 6 % larger.
Part of the format."""

ZSTD_LEVEL = 3
"""Part of the format."""

_GZIP_HEAD = 10
"""Bytes of a gzip header without optional fields (RFC 1952 §2.3)."""


class Codec(Protocol):
    """One compression. Thread safe; both calls leave the GIL while they work."""

    name: str
    identity: str
    """Name, level and library version: what the bytes depend on."""
    media_type: str
    """Of an OCI layer in this compression."""

    def compress(self, block: bytes) -> bytes:
        """One member. ``block`` has at the most :data:`BLOCK` bytes."""

    def expand(self, member: bytes, size: int) -> bytes:
        """The block of ``size`` bytes back. Raises ``BuildError`` where checksum or size don't fit."""

    def expand_alone(self, member: bytes, size: int) -> bytes:
        """As ``expand``, for bytes of unknown origin: refuses anything behind the member, which other readers
        would take for more of the archive."""


class GzipCodec:
    """gzip members by libdeflate: mtime 0, no name, constant XFL and OS fields."""

    name = "gzip"
    media_type = OCI_LAYER_GZIP

    def __init__(self) -> None:
        self.identity = f"gzip-{GZIP_LEVEL}/deflate-{deflate.__version__}/{BLOCK}"
        self._head = self.compress(b"")[:_GZIP_HEAD]

    def compress(self, block: bytes) -> bytes:
        return bytes(deflate.gzip_compress(block, GZIP_LEVEL))

    def expand(self, member: bytes, size: int) -> bytes:
        try:
            block = bytes(deflate.gzip_decompress(member, size))
        except deflate.DeflateError as error:
            raise BuildError("a gzip member is damaged") from error
        if len(block) != size:
            raise BuildError("a gzip member is damaged")
        return block

    def expand_alone(self, member: bytes, size: int) -> bytes:
        # libdeflate passes over what follows a member without a word.
        inflater = isal_zlib.decompressobj(wbits=31)
        try:
            block = inflater.decompress(member, size + 1)
        except isal_zlib.error as error:  # type: ignore[misc]  # the stub calls it an instance
            raise BuildError("a gzip member is damaged") from error
        whole = inflater.eof and not inflater.unused_data and not inflater.unconsumed_tail
        if len(block) != size or not whole or not member.startswith(self._head):
            raise BuildError("a gzip member is not the one that was named")
        return block


class ZstdCodec:
    """zstd frames with content size and checksum, each by one thread of its own."""

    name = "zstd"
    media_type = OCI_LAYER_ZSTD

    def __init__(self) -> None:
        library = ".".join(map(str, zstandard.ZSTD_VERSION))
        self.identity = f"zstd-{ZSTD_LEVEL}/{library}/{BLOCK}"

    def compress(self, block: bytes) -> bytes:
        # A compressor is not thread safe, and making one costs little next to a block.
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(block)

    def expand(self, member: bytes, size: int) -> bytes:
        return self._expanded(member, size, alone=False)

    def expand_alone(self, member: bytes, size: int) -> bytes:
        # A frame that states its size is given that much memory, whatever the bound is.
        try:
            stated = zstandard.get_frame_parameters(member).content_size
        except zstandard.ZstdError as error:
            raise BuildError("a zstd frame is damaged") from error
        if stated != size:
            raise BuildError("a zstd frame is not the one that was named")
        return self._expanded(member, size, alone=True)

    def _expanded(self, member: bytes, size: int, *, alone: bool) -> bytes:
        try:
            block = zstandard.ZstdDecompressor().decompress(
                member, max_output_size=size, allow_extra_data=not alone
            )
        except zstandard.ZstdError as error:
            raise BuildError("a zstd frame is damaged") from error
        if len(block) != size:
            raise BuildError("a zstd frame is damaged")
        return block


def codec(name: str) -> Codec:
    """The codec ``gzip`` or ``zstd``. Raises ``UsageError`` for any other name."""
    if name == "gzip":
        return GzipCodec()
    if name == "zstd":
        return ZstdCodec()
    raise UsageError(f"unknown compression {name!r}", hint="known: gzip, zstd")


def composer_identity(compression: str) -> str:
    """The composer's formats and the codec with its version: part of every lock digest."""
    return f"{FORMAT} {codec(compression).identity} {BYTECODE_FORMAT}"
