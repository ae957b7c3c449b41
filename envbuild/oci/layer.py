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
from envbuild.oci.manifest import LAYERS, OCI_LAYER, OCI_LAYER_GZIP, ConfigDocument

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
    """The bytes of a layer's tar. Raises ``FetchError`` for an unknown media type and damaged zstd; gzip's
    own errors are ``OSError``, ``EOFError`` and ``zlib.error``."""
    known = LAYERS.get(media_type)
    if known is None:
        raise FetchError(f"the layer {blob.name} has the unknown media type {media_type!r}")
    with blob.open("rb") as raw:
        if known == OCI_LAYER:
            yield raw
        elif known == OCI_LAYER_GZIP:
            opened = isal_igzip.IGzipFile(fileobj=raw, mode="rb")  # type: ignore[no-untyped-call]
            with opened as stream:
                yield cast(IO[bytes], stream)
        else:
            try:
                with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                    yield cast(IO[bytes], stream)
            except zstandard.ZstdError as error:
                raise FetchError(f"the layer {blob.name} is damaged: {error}") from error


def check_diff_id(blob: Path, media_type: str, diff_id: str, what: str) -> None:
    """Raises ``FetchError`` unless the layer's tar, uncompressed, hashes to ``diff_id``."""
    sha = hashlib.sha256()
    try:
        with uncompressed(blob, media_type) as stream:
            while piece := stream.read(CHUNK):
                sha.update(piece)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FetchError(f"{what}: the layer {blob.name} can't be uncompressed: {error}") from error
    if f"sha256:{sha.hexdigest()}" != diff_id:
        raise FetchError(
            f"{what}: the layer {blob.name} holds sha256:{sha.hexdigest()}, but its config says {diff_id}"
        )


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
