"""Images of the store as a source like any other: nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envbuild.errors import FetchError
from envbuild.images.sources.base import stated_manifest
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import MANIFEST_LIMIT, Descriptor
from envbuild.registry.base import Manifest
from envbuild.store.content import Store


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
