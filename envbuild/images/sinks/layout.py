"""``oci:DIR``: an OCI image layout in a directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from envbuild.errors import PublishError
from envbuild.images.sinks.base import (
    LAYOUT_FILE,
    REF_NAME,
    blob_path,
    blobs,
    check_images,
    descriptors,
    index_json,
    note_names,
)
from envbuild.images.sinks.tar_stream import damaged_blob
from envbuild.oci.digest import digest_file
from envbuild.oci.image import ImageSet
from envbuild.progress import Progress
from envbuild.store.content import Store

_LIMIT = 16 << 20
"""Bytes of an index.json that is believed to be one."""


class LayoutSink:
    """Adds an image to a layout, which is made where there is none. Entries of others stay; an entry
    with the same name is replaced. Blobs come first and index.json last, by renaming, so whoever reads
    meanwhile sees the old layout or the new one."""

    def __init__(self, directory: Path, store: Store, progress: Progress) -> None:
        self._directory = directory
        self._store = store
        self._progress = progress

    def publish(self, image_set: ImageSet) -> str:
        check_images(image_set)
        wanted = blobs(image_set, self._store)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            present = self._present()
            if not present and any(self._directory.iterdir()) and not self._ours():
                raise PublishError(
                    f"{self._directory} is neither empty nor an OCI layout",
                    hint="name another directory, or remove what is in it",
                )
            total = sum(self._store.blob(digest).stat().st_size for digest in wanted)
            with self._progress.task("publish", f"oci:{self._directory}", total=total) as task:
                for digest in wanted:
                    source = self._store.blob(digest)
                    _place(source, self._directory / blob_path(digest), digest)
                    task.advance(source.stat().st_size)
            with _locked(self._directory):
                _replace(self._directory / "oci-layout", LAYOUT_FILE)
                entries = _merge(self._present(), descriptors(image_set, self._store))
                _replace(self._directory / "index.json", index_json(entries))
        except OSError as error:
            raise PublishError(
                f"can't write the layout {self._directory}: {error.strerror or error}",
                hint="check the directory's permissions and the space on its disk",
            ) from error
        note_names(image_set, f"oci:{self._directory}", self._progress)
        return f"oci:{self._directory}"

    def _ours(self) -> bool:
        """Whether only an earlier, interrupted run left something here."""
        allowed = {"blobs", "oci-layout", "index.json", ".envbuild.lock"}
        return all(
            path.name in allowed or path.name.startswith(".envbuild-") for path in self._directory.iterdir()
        )

    def _present(self) -> tuple[Mapping[str, object], ...]:
        path = self._directory / "index.json"
        if not path.exists():
            return ()
        try:
            if path.stat().st_size > _LIMIT:
                raise ValueError("it is too large")
            document = json.loads(path.read_bytes())
            manifests = document["manifests"]
            if not isinstance(manifests, list) or not all(
                isinstance(manifest, dict) for manifest in manifests
            ):
                raise TypeError("manifests is no list of objects")
        except (ValueError, KeyError, TypeError) as error:
            raise PublishError(
                f"{path} is not the index of an OCI layout: {error}",
                hint="name another directory, or remove this one",
            ) from error
        return tuple(manifests)


def _merge(
    old: tuple[Mapping[str, object], ...], new: tuple[dict[str, object], ...]
) -> tuple[Mapping[str, object], ...]:
    """Old entries but those whose name (or, unnamed, whose digest) a new one takes, then the new ones."""
    taken = {_key(entry) for entry in new}
    return (*(entry for entry in old if _key(entry) not in taken), *new)


def _key(entry: Mapping[str, object]) -> tuple[str, object]:
    annotations = entry.get("annotations")
    if isinstance(annotations, dict) and REF_NAME in annotations:
        return "name", str(annotations[REF_NAME])
    return "digest", str(entry.get("digest"))


def _place(source: Path, target: Path, digest: str) -> None:
    """Makes ``target`` have the bytes of ``source``, which are ``digest``: a reflink where the disk can, else
    a copy.

    No hard link: whoever edits a blob of the layout in place would damage the store.
    """
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".envbuild-", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as writer, source.open("rb") as reader:
            _copy(reader.fileno(), writer.fileno())
            os.fchmod(writer.fileno(), 0o644)
        if digest_file(part) != digest:
            raise damaged_blob(source)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


_FICLONE = 0x40049409
"""ioctl that shares extents between two files (btrfs, xfs; ``linux/fs.h``)."""


def _copy(source: int, sink: int) -> None:
    try:
        fcntl.ioctl(sink, _FICLONE, source)
    except OSError:
        with os.fdopen(os.dup(source), "rb") as reader, os.fdopen(os.dup(sink), "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".envbuild-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keeps two sinks apart while index.json is read and written; the lock is on the directory
    itself, so no file is left behind."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
