"""An OCI layout on this machine, in a directory or an archive: read with distrust."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from envbuild.errors import FetchError, UsageError
from envbuild.images.sources.base import for_each_blob, stated_manifest
from envbuild.oci.digest import CHUNK, digest_bytes
from envbuild.oci.manifest import MANIFEST_LIMIT, Descriptor, IndexEntry, parse_index
from envbuild.oci.reference import Reference
from envbuild.registry.base import Manifest
from envbuild.store.content import Store, commit_file

LAYOUT_PREFIX = "oci:"


class Files(Protocol):
    """The files of a layout by their path in it. Raises ``FetchError``."""

    def __contains__(self, name: object) -> bool: ...

    def size(self, name: str) -> int:
        """In bytes."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """The file's bytes, to be read once from front to end."""


class DirectoryFiles:
    """The plain files below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __contains__(self, name: object) -> bool:
        return (self._root / str(name)).is_file()

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with (self._root / name).open("rb") as file:
                yield file
        except OSError as error:
            raise FetchError(f"can't read {self._root / name}: {error.strerror or error}") from error


class LayoutSource:
    """An OCI image layout. ``name`` chooses among several images, by what ``index.json`` calls them."""

    def __init__(self, what: str, files: Files, store: Store, name: str | None = None) -> None:
        self.what = what
        self._files = files
        self._store = store
        self._name = name

    @classmethod
    def in_directory(cls, reference: str, store: Store, directory: Path) -> LayoutSource:
        """The layout ``oci:DIR[:NAME]``; relative to ``directory``."""
        text = reference.removeprefix(LAYOUT_PREFIX)
        root, chosen = directory / text, None
        if not (root / "index.json").is_file():
            head, colon, name = text.partition(":")
            if colon:
                root, chosen = directory / head, name
        if not (root / "index.json").is_file():
            raise FetchError(f"{reference}: {root} is no OCI layout (it has no index.json)")
        return cls(reference, DirectoryFiles(root), store, chosen)

    def manifest(self, digest: str | None = None) -> Manifest:
        if digest is None:
            digest = chosen_entry(parse_index(self.index(), self.what), self._name, self.what)
        content = self.read(digest, MANIFEST_LIMIT)
        top = stated_manifest(content, digest, self.what)
        self._store.add_blob(content)
        return top

    def blob(self, digest: str, size: int) -> Path:
        return store_file(self._store, self._files, self._path(digest), digest, size, self.what)

    def pull(self, blobs: Sequence[Descriptor]) -> None:
        for_each_blob(lambda blob: self.blob(blob.digest, blob.size), blobs)

    def index(self) -> bytes:
        """What ``index.json`` holds."""
        return read_file(self._files, "index.json", MANIFEST_LIMIT, self.what)

    def read(self, digest: str, limit: int, *, size: int | None = None) -> bytes:
        """The bytes of a blob, checked, at the most ``limit``, or ``size``; the store doesn't get them."""
        content = read_file(self._files, self._path(digest), limit, self.what)
        if size not in (None, len(content)) or digest_bytes(content) != digest:
            raise FetchError(f"{self.what}: the blob {digest} is damaged")
        return content

    def store_anew(self, blob: Descriptor, check: Callable[[Path], None]) -> None:
        """Brings a blob into the store, also where it is there; ``check`` looks at the bytes before they are
        its."""
        path = self._path(blob.digest)
        _copy_file(self._store, self._files, path, blob.digest, blob.size, self.what, check)

    def _path(self, digest: str) -> str:
        path = f"blobs/sha256/{digest.removeprefix('sha256:')}"
        if path not in self._files:
            raise FetchError(f"{self.what} lacks {path}")
        return path


def chosen_entry(entries: Sequence[IndexEntry], name: str | None, what: str) -> str:
    """The digest of the one image of ``entries`` with that name, or of the only one where ``name`` is None.
    Raises ``FetchError`` that says which there are."""
    known = sorted({entry.name for entry in entries if entry.name})
    if name is not None:
        # Docker writes the tag alone as the name, and beside it the name with its registry.
        entries = [entry for entry in entries if entry.name == name] or [
            entry for entry in entries if entry.full_name is not None and _same_name(entry.full_name, name)
        ]
    digests = sorted({entry.digest for entry in entries})
    if len(digests) == 1:
        return digests[0]
    count = f"{len(digests)} images" if digests else "no image"
    raise FetchError(
        f"{what}: the layout has {count}{' of that name' if name is not None else ''}",
        hint=f"choose one, by :NAME with NAME of {', '.join(known)}" if known else None,
    )


def _same_name(full: str, name: str) -> bool:
    try:
        return Reference.parse(full).tagged == Reference.parse(name).tagged
    except UsageError:
        return False


def read_file(files: Files, name: str, limit: int, what: str) -> bytes:
    """A document's bytes. Raises ``FetchError`` where it is not there, or larger than ``limit`` bytes."""
    if name not in files:
        raise FetchError(f"{what} lacks {name}")
    size = files.size(name)
    if size > limit:
        raise FetchError(f"{what}: {name} is larger than {limit} bytes")
    with files.open(name) as file:
        return file.read(size)


def store_file(store: Store, files: Files, name: str, digest: str, size: int, what: str) -> Path:
    """The store's file of a blob, copied from ``files`` where the store hasn't got it. Raises ``FetchError``
    unless it has that digest and size."""
    target = store.blob(digest)
    if store.find_blob(digest) and target.stat().st_size == size:
        return target
    return _copy_file(store, files, name, digest, size, what)


def _copy_file(
    store: Store,
    files: Files,
    name: str,
    digest: str,
    size: int,
    what: str,
    check: Callable[[Path], None] = lambda _: None,
) -> Path:
    """As ``store_file``, also where the store has it; ``check`` looks at the bytes before they are its."""
    if files.size(name) != size:
        raise FetchError(f"{what}: the blob {digest} has not the size it is said to have")
    with store.scratch() as scratch, files.open(name) as source:
        part, sha = scratch / "blob", hashlib.sha256()
        with part.open("wb") as sink:
            while piece := source.read(CHUNK):
                sha.update(piece)
                sink.write(piece)
        if part.stat().st_size != size or f"sha256:{sha.hexdigest()}" != digest:
            raise FetchError(f"{what}: the blob {digest} is damaged")
        check(part)
        commit_file(part, store.blob(digest))
    return store.blob(digest)
