"""Layers of images as streams: uncompressed, as a tar, checked."""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from envbuild.errors import FetchError
from envbuild.lazy import lazy
from envbuild.oci.digest import CHUNK
from envbuild.oci.manifest import LAYERS, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, ConfigDocument

if TYPE_CHECKING:
    import zstandard
    from isal import igzip as isal_igzip
else:
    isal_igzip = lazy("isal.igzip")
    zstandard = lazy("zstandard")


@contextlib.contextmanager
def open_layer(blob: Path, media_type: str) -> Iterator[tarfile.TarFile]:
    """A layer's tar, to be read once from front to end. Raises ``FetchError`` for an unknown media type."""
    with (
        uncompressed(blob, media_type) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, encoding="utf-8") as archive,
    ):
        yield archive


@contextlib.contextmanager
def uncompressed(blob: Path, media_type: str) -> Iterator[IO[bytes]]:
    """The bytes of a layer's tar. How it is compressed is told by its content, as containerd and podman tell
    it: media types name the wrong one. Raises ``FetchError`` for an unknown media type and damaged zstd;
    gzip's own errors are ``OSError``, ``EOFError`` and ``zlib.error``."""
    if media_type not in LAYERS:
        raise FetchError(f"the layer {blob.name} has the unknown media type {media_type!r}")
    with blob.open("rb") as raw:
        kind = compression_of(raw.read(4))
        raw.seek(0)
        if kind == OCI_LAYER:
            yield raw
        elif kind == OCI_LAYER_GZIP:
            opened = isal_igzip.IGzipFile(fileobj=raw, mode="rb")  # type: ignore[no-untyped-call]
            with opened as stream:
                yield cast(IO[bytes], stream)
        else:
            try:
                with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                    yield cast(IO[bytes], stream)
            except zstandard.ZstdError as error:
                raise FetchError(f"the layer {blob.name} is damaged: {error}") from error


def compression_of(head: bytes) -> str:
    """OCI's media type of a layer that begins with ``head``, four bytes or all of it."""
    if head[:2] == b"\x1f\x8b":
        return OCI_LAYER_GZIP
    # A frame of zstd, or one that is skipped (RFC 8878), as zstd:chunked begins with.
    return OCI_LAYER_ZSTD if head == b"\x28\xb5\x2f\xfd" or head[1:] == b"\x2a\x4d\x18" else OCI_LAYER


def check_diff_id(blob: Path, media_type: str, diff_id: str, what: str) -> None:
    """Raises ``FetchError`` unless the layer's tar, uncompressed, hashes to ``diff_id``."""
    algorithm = diff_id.partition(":")[0]
    sha = hashlib.new(algorithm)
    try:
        with uncompressed(blob, media_type) as stream:
            while piece := stream.read(CHUNK):
                sha.update(piece)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FetchError(f"{what}: the layer {blob.name} can't be uncompressed: {error}") from error
    held = f"{algorithm}:{sha.hexdigest()}"
    if held != diff_id:
        raise FetchError(f"{what}: the layer {blob.name} holds {held}, but its config says {diff_id}")


_LONGEST = 60
"""Characters of a step that are shown."""


def layer_names(config: ConfigDocument) -> list[str]:
    """The step that made each layer; empty where the history doesn't tell."""
    steps = [str(step.get("created_by") or "") for step in config.history if not step.get("empty_layer")]
    count = len(config.diff_ids)
    return [step_name(step) for step in steps] if len(steps) == count else [""] * count


def step_name(created_by: str) -> str:
    """The start of a step, as a Dockerfile has it: ``RUN apt-get…`` of the classic builder's ``/bin/sh -c
    apt-get…`` and of BuildKit's ``RUN /bin/sh -c apt-get… # buildkit``."""
    text = " ".join(created_by.split()).removesuffix("# buildkit").strip()
    if text.startswith("/bin/sh -c #(nop) "):
        text = text.removeprefix("/bin/sh -c #(nop) ")
    elif text.startswith("/bin/sh -c "):
        text = f"RUN {text.removeprefix('/bin/sh -c ')}"
    elif text.startswith("RUN /bin/sh -c "):
        text = f"RUN {text.removeprefix('RUN /bin/sh -c ')}"
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
