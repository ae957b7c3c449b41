"""From what names an image to where it is read from; ``images.locator`` has the forms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from envbuild.errors import FetchError
from envbuild.images.closure import tree_of
from envbuild.images.locator import ImageLocator, Kind
from envbuild.images.sources.archive import archive_source
from envbuild.images.sources.base import ImageSource, RegistrySource, StoreSource
from envbuild.images.sources.layout import DirectoryFiles, LayoutSource
from envbuild.oci.reference import Reference
from envbuild.registry.base import Remote
from envbuild.store.content import Store
from envbuild.store.names import Names


class Sources:
    """Opens the sources of one call. ``scratch`` makes an empty directory that lasts as long as the sources;
    ``save`` writes an image of the Docker engine to a file; ``offline``: registries can't be asked."""

    def __init__(
        self,
        store: Store,
        remote: Callable[[], Remote],
        *,
        scratch: Callable[[], Path],
        save: Callable[[str, Path], None],
        offline: bool = False,
    ) -> None:
        self._store = store
        self._remote = remote
        self._scratch = scratch
        self._save = save
        self._offline = offline

    def open(self, place: ImageLocator, *, own_first: bool = False) -> ImageSource:
        """The source of ``place``. ``own_first``: the store goes before the registry for a name with a host
        too. Raises ``FetchError`` that says what was tried."""
        what = place.text
        if place.kind is Kind.LAYOUT:
            assert place.path is not None
            files = DirectoryFiles(place.path)
            if "index.json" not in files:
                raise FetchError(f"{what}: {place.path} is no OCI layout (it has no index.json)")
            return LayoutSource(what, files, self._store, place.name)
        if place.kind in (Kind.OCI_ARCHIVE, Kind.DOCKER_ARCHIVE):
            assert place.path is not None
            return archive_source(place.path, place.name, what, self._store, self._scratch())
        if place.kind is Kind.DAEMON:
            assert place.name is not None
            file = self._scratch() / "saved"
            self._save(place.name, file)
            return archive_source(file, None, what, self._store, file.parent)
        if place.kind is Kind.DIGEST:
            assert place.digest is not None
            return StoreSource(place.digest, self._store, what)
        assert place.reference is not None
        if place.kind is Kind.REGISTRY:
            return RegistrySource(place.reference, self._remote())
        return self._named(place, place.reference, own_first or not place.hosted or self._offline)

    def _named(self, place: ImageLocator, reference: Reference, own_first: bool) -> ImageSource:
        own = self._own(reference, place.text)
        if own is not None and (own_first or reference.digest):
            return own
        remote = self._remote()
        if own is not None:
            manifest = remote.find_manifest(reference)
            return own if manifest is None else RegistrySource(reference, remote, manifest)
        if place.hosted:
            return RegistrySource(reference, remote)
        try:
            return RegistrySource(reference, remote, remote.manifest(reference))
        except FetchError as error:
            raise FetchError(
                f"{place.text}: the store has no image of that name, and {error.message}", hint=error.hint
            ) from error

    def _own(self, reference: Reference, what: str) -> StoreSource | None:
        """What the store has under a name, or as the digest in it, if all of it is there."""
        digest = reference.digest
        if digest is None:
            tagged = replace(reference, tag=reference.tag or "latest").tagged
            named = Names(self._store, time.time).get(tagged)
            if named is None:
                return None
            digest = named.digest
        source = StoreSource(digest, self._store, what)
        try:
            source.pull(tree_of(source, source.manifest()).blobs)
        except FetchError:
            return None
        return source
