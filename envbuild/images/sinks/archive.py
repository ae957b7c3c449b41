"""``oci-archive:FILE`` and ``docker-archive:FILE``: an image as one deterministic tar."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from envbuild.errors import PublishError
from envbuild.images.sinks.base import (
    LAYOUT_FILE,
    blob_path,
    blobs,
    check_images,
    descriptors,
    index_json,
    manifest_json,
    names,
    note_names,
)
from envbuild.images.sinks.tar_stream import Member, stream
from envbuild.oci.image import ImageSet
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.store.content import Store


class OciArchiveSink:
    """Writes an OCI layout as a tar, complete or not at all."""

    scheme = "oci-archive"

    def __init__(self, file: Path, store: Store, progress: Progress) -> None:
        self._file = file
        self._store = store
        self._progress = progress

    def publish(self, image_set: ImageSet) -> str:
        check_images(image_set)
        members = self.members(image_set)
        total = sum(member.size for member in members)
        with self._progress.task("publish", f"{self.scheme}:{self._file}", total=total) as task:
            write(self._file, stream(members, task.advance))
        if self.scheme == "oci-archive":
            # Who reads Docker's takes all names at once.
            note_names(image_set, f"oci-archive:{self._file}", self._progress)
        return f"{self.scheme}:{self._file}"

    def members(self, image_set: ImageSet) -> tuple[Member, ...]:
        """The files of the archive, in the order they are written."""
        return layout_members(image_set, self._store)


class DockerArchiveSink(OciArchiveSink):
    """Writes the hybrid that ``docker load`` of every age takes: an OCI layout and a manifest.json."""

    scheme = "docker-archive"

    def members(self, image_set: ImageSet) -> tuple[Member, ...]:
        one_platform([image.platform for image in image_set.images])
        return hybrid_members(image_set, self._store)


def one_platform(platforms: Sequence[Platform]) -> None:
    """Raises ``PublishError`` unless there is exactly one."""
    if len(platforms) != 1:
        shown = ", ".join(map(str, platforms))
        raise PublishError(
            f"a docker-archive holds one platform, not {shown or 'what is no image'}",
            hint="choose one with --platform, or write oci-archive:FILE",
        )


def layout_members(image_set: ImageSet, store: Store) -> tuple[Member, ...]:
    """An OCI layout: the blobs in the order of their digests, then what names them."""
    return (
        *(Member(name=blob_path(digest), content=store.blob(digest)) for digest in blobs(image_set, store)),
        Member(name="index.json", content=index_json(descriptors(image_set, store))),
        Member(name="oci-layout", content=LAYOUT_FILE),
    )


def hybrid_members(image_set: ImageSet, store: Store) -> tuple[Member, ...]:
    """The OCI layout of a single-platform image set, and Docker's manifest.json for it."""
    tags = tuple(name.familiar for name in names(image_set))
    return (
        *layout_members(image_set, store),
        Member(name="manifest.json", content=manifest_json(image_set.images[0], tags)),
    )


def write(file: Path, pieces: Iterable[bytes]) -> None:
    """Writes ``pieces`` to ``file``: to a temporary one beside it, synced, then renamed."""
    part: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        part = Path(name)
        with os.fdopen(handle, "wb") as sink:
            for piece in pieces:
                sink.write(piece)
            os.fchmod(sink.fileno(), 0o644)
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(file)
        part = None
    except OSError as error:
        raise PublishError(
            f"can't write {file}: {error.strerror or error}",
            hint="check the directory's permissions and the space on its disk",
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
