"""Where an image is read from: a registry, or an OCI layout on this machine, in a directory or an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from envbuild.errors import FetchError, UsageError
from envbuild.oci.digest import CHUNK, digest_bytes
from envbuild.oci.manifest import (
    INDEXES,
    MANIFEST_LIMIT,
    Descriptor,
    IndexEntry,
    matches,
    media_type_of,
    parse_index,
)
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.registry.base import Manifest, Remote
from envbuild.store.content import Store, commit_file

LAYOUT_PREFIX = "oci:"
_WORKERS = 2


class ImageSource(Protocol):
    """One repository, layout or archive, whose blobs come into the store, checked. Raises ``FetchError``."""

    what: str
    """For messages."""

    def manifest(self, digest: str | None = None) -> Manifest:
        """The manifest or index with this digest; None: what the reference names."""

    def blob(self, digest: str, size: int) -> Path:
        """The blob's file in the store."""

    def pull(self, blobs: Sequence[Descriptor]) -> None:
        """All of ``blobs`` in the store, several at once."""


class Files(Protocol):
    """The files of a layout by their path in it. Raises ``FetchError``."""

    def __contains__(self, name: object) -> bool: ...

    def size(self, name: str) -> int:
        """In bytes."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """The file's bytes, to be read once from front to end."""


class RegistrySource:
    """An image of a registry; ``top`` where it is known already what the reference names."""

    def __init__(self, reference: Reference, client: Remote, top: Manifest | None = None) -> None:
        self.what = str(reference)
        self.reference = reference
        self._client = client
        self._top = top

    def manifest(self, digest: str | None = None) -> Manifest:
        if digest is None and self._top is not None:
            return self._top
        return self._client.manifest(self.reference, digest)

    def blob(self, digest: str, size: int) -> Path:
        return self._client.blob(self.reference, digest, size)

    def pull(self, blobs: Sequence[Descriptor]) -> None:
        self._client.pull_blobs(self.reference, blobs)


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
            digest = self._named()
        content = read_file(self._files, self._path(digest), MANIFEST_LIMIT, self.what)
        if digest_bytes(content) != digest:
            raise FetchError(f"{self.what}: the blob {digest} is damaged")
        top = stated_manifest(content, digest, self.what)
        self._store.add_blob(content)
        return top

    def blob(self, digest: str, size: int) -> Path:
        return store_file(self._store, self._files, self._path(digest), digest, size, self.what)

    def pull(self, blobs: Sequence[Descriptor]) -> None:
        several(lambda blob: self.blob(blob.digest, blob.size), blobs)

    def _path(self, digest: str) -> str:
        path = f"blobs/sha256/{digest.removeprefix('sha256:')}"
        if path not in self._files:
            raise FetchError(f"{self.what}: the layout lacks the blob {digest}")
        return path

    def _named(self) -> str:
        content = read_file(self._files, "index.json", MANIFEST_LIMIT, self.what)
        return chosen_entry(parse_index(content, self.what), self._name, self.what)


def stated_manifest(content: bytes, digest: str, what: str) -> Manifest:
    """The manifest or index that ``content`` is, by what it says of itself. Raises ``FetchError``."""
    try:
        media_type = media_type_of(content)
    except FetchError as error:
        raise FetchError(
            f"{what}: {digest} is no manifest or index of a known type", hint=error.hint
        ) from error
    return Manifest(content=content, media_type=media_type, digest=digest)


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
    return copy_file(store, files, name, digest, size, what)


def copy_file(
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


def several(work: Callable[[Descriptor], object], blobs: Sequence[Descriptor]) -> None:
    """Does ``work`` for every blob once, a few at once; raises what it raised first."""
    unique = tuple({blob.digest: blob for blob in blobs}.values())
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="blobs") as pool:
        futures = [pool.submit(work, blob) for blob in unique]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def for_platform(source: ImageSource, platform: Platform, top: Manifest) -> Manifest | tuple[str, ...]:
    """The manifest of ``platform`` below ``top``, or, where an index lacks it, the platforms it has."""
    seen = 0
    while top.media_type in INDEXES:
        seen += 1
        if seen > 3:
            raise FetchError(f"{source.what}: indexes within indexes")
        entries = parse_index(top.content, source.what)
        match = next((entry for entry in entries if matches(platform, entry.platform)), None)
        if match is None:
            return tuple(sorted({entry.platform for entry in entries if entry.platform}))
        top = source.manifest(match.digest)
    return top


class StoreSource:
    """The manifest or index ``digest`` of the store. Manifests are checked by digest each time, other blobs
    by size: they were checked on their way in."""

    def __init__(self, digest: str, store: Store, what: str) -> None:
        self.what = what
        self._digest = digest
        self._store = store

    def manifest(self, digest: str | None = None) -> Manifest:
        wanted = digest or self._digest
        path = self._store.blob(wanted)
        if not self._store.find_blob(wanted):
            raise self._missing(wanted)
        if path.stat().st_size > MANIFEST_LIMIT:
            raise FetchError(f"{self.what}: {wanted} is no manifest or index of a known type")
        content = path.read_bytes()
        if digest_bytes(content) != wanted:
            path.unlink(missing_ok=True)
            raise FetchError(f"{self.what}: the store's {wanted} was damaged and is removed")
        return stated_manifest(content, wanted, self.what)

    def blob(self, digest: str, size: int) -> Path:
        path = self._store.blob(digest)
        if not self._store.find_blob(digest) or path.stat().st_size != size:
            raise self._missing(digest)
        return path

    def pull(self, blobs: Sequence[Descriptor]) -> None:
        for blob in blobs:
            self.blob(blob.digest, blob.size)

    def _missing(self, digest: str) -> FetchError:
        return FetchError(f"{self.what}: the store lacks {digest}", hint="build the image again, or pull it")
