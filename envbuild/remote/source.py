"""Where the image of a base is read from: a registry, or an OCI layout on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from envbuild.digest import digest_bytes, digest_file
from envbuild.errors import FetchError
from envbuild.platforms import Platform
from envbuild.remote.base import Manifest
from envbuild.remote.client import RegistryClient
from envbuild.remote.manifest import MANIFEST_LIMIT, IndexEntry, matches, media_type_of, parse_index
from envbuild.remote.media import INDEXES
from envbuild.remote.reference import Reference
from envbuild.store.content import Store, commit_file

LAYOUT_PREFIX = "oci:"


class ImageSource(Protocol):
    """One repository or layout, whose blobs come into the store, checked. Raises ``FetchError``."""

    what: str
    """For messages."""

    def manifest(self, digest: str | None = None) -> Manifest:
        """The manifest or index with this digest; None: what the reference names."""

    def blob(self, digest: str, size: int) -> Path:
        """The blob's file in the store."""


class RegistrySource:
    def __init__(self, reference: Reference, client: RegistryClient) -> None:
        self.what = str(reference)
        self._reference = reference
        self._client = client

    def manifest(self, digest: str | None = None) -> Manifest:
        return self._client.manifest(self._reference, digest)

    def blob(self, digest: str, size: int) -> Path:
        return self._client.blob(self._reference, digest, size)


class LayoutSource:
    """An OCI image layout in a directory, ``oci:DIR[:NAME]``; relative to ``directory``."""

    def __init__(self, reference: str, store: Store, directory: Path) -> None:
        self.what = reference
        self._store = store
        text = reference.removeprefix(LAYOUT_PREFIX)
        self._root, self._name = directory / text, None
        if not (self._root / "index.json").is_file():
            head, colon, name = text.partition(":")
            if colon:
                self._root, self._name = directory / head, name
        if not (self._root / "index.json").is_file():
            raise FetchError(f"{reference}: {self._root} is no OCI layout (it has no index.json)")

    def manifest(self, digest: str | None = None) -> Manifest:
        if digest is None:
            digest = self._named()
        path = self._file(digest)
        if path.stat().st_size > MANIFEST_LIMIT:
            raise FetchError(f"{self.what}: the manifest {digest} is larger than {MANIFEST_LIMIT} bytes")
        content = path.read_bytes()
        if digest_bytes(content) != digest:
            raise FetchError(f"{self.what}: the blob {digest} is damaged")
        self._store.add_blob(content)
        return Manifest(content=content, media_type=media_type_of(content), digest=digest)

    def blob(self, digest: str, size: int) -> Path:
        target = self._store.blob(digest)
        if target.is_file() and target.stat().st_size == size:
            return target
        with self._store.scratch() as scratch:
            shutil.copyfile(self._file(digest), scratch / "blob")
            if (scratch / "blob").stat().st_size != size or digest_file(scratch / "blob") != digest:
                raise FetchError(f"{self.what}: the blob {digest} is damaged")
            commit_file(scratch / "blob", target)
        return target

    def _file(self, digest: str) -> Path:
        path = self._root / "blobs" / "sha256" / digest.removeprefix("sha256:")
        if not path.is_file():
            raise FetchError(f"{self.what}: the layout lacks the blob {digest}")
        return path

    def _named(self) -> str:
        entries: Sequence[IndexEntry] = parse_index((self._root / "index.json").read_bytes(), self.what)
        if self._name is not None:
            entries = [each for each in entries if each.name == self._name]
        digests = sorted({each.digest for each in entries})
        if len(digests) != 1:
            known = sorted({each.name for each in entries if each.name})
            count = f"{len(digests)} images" if digests else "no image"
            raise FetchError(
                f"{self.what}: the layout has {count} of that name",
                hint=f"choose one: oci:DIR:NAME with NAME of {', '.join(known)}" if known else None,
            )
        return digests[0]


def for_platform(source: ImageSource, platform: Platform, top: Manifest) -> Manifest | tuple[str, ...]:
    """The manifest of ``platform`` below ``top``, or, where an index lacks it, the platforms it has."""
    seen = 0
    while top.media_type in INDEXES:
        seen += 1
        if seen > 3:
            raise FetchError(f"{source.what}: indexes within indexes")
        entries = parse_index(top.content, source.what)
        found = next((each for each in entries if matches(platform, each.platform)), None)
        if found is None:
            return tuple(sorted({each.platform for each in entries if each.platform}))
        top = source.manifest(found.digest)
    return top
