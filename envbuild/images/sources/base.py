"""Where an image is read from: a registry, the store, or what ``layout`` and ``archive`` read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from envbuild.errors import FetchError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import MANIFEST_LIMIT, Descriptor, media_type_of
from envbuild.oci.reference import Reference
from envbuild.registry.base import Manifest, Remote
from envbuild.store.content import Store

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


def stated_manifest(content: bytes, digest: str, what: str) -> Manifest:
    """The manifest or index that ``content`` is, by what it says of itself. Raises ``FetchError``."""
    try:
        media_type = media_type_of(content)
    except FetchError as error:
        raise FetchError(
            f"{what}: {digest} is no manifest or index of a known type", hint=error.hint
        ) from error
    return Manifest(content=content, media_type=media_type, digest=digest)


def for_each_blob(work: Callable[[Descriptor], object], blobs: Sequence[Descriptor]) -> None:
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
