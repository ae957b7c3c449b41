"""Images in tar files: ``oci-archive:FILE`` and ``docker-archive:FILE``, written by whichever tool and age.

Nothing is unpacked; blobs are copied into the store when they are asked for, and checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envbuild.errors import FetchError, UsageError
from envbuild.images.sources.base import ImageSource, for_each_blob
from envbuild.images.sources.layout import LayoutSource, read_file, store_file
from envbuild.images.sources.tar_files import TarFiles, expand
from envbuild.oci.digest import CHUNK, canonical_json, digest_bytes, is_digest
from envbuild.oci.layer import compression_of
from envbuild.oci.manifest import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    parse_config,
)
from envbuild.oci.reference import Reference
from envbuild.registry.base import Manifest
from envbuild.store.content import Store

_MEMBERS = 20_000
_LAYERS = 127


def archive_source(file: Path, name: str | None, what: str, store: Store, scratch: Path) -> ImageSource:
    """The images of an archive, compressed or not; ``name`` chooses where there are several. ``scratch`` is
    where one that is compressed is expanded. Raises ``FetchError``."""
    if not file.is_file():
        raise FetchError(f"{what}: there is no file {file}")
    expanded = scratch / "archive"
    files = TarFiles(expanded if expand(file, expanded, what) else file, what, most=_MEMBERS, links=True)
    # Docker writes both since version 25, and so do we: the layout has the manifest as it was.
    if "index.json" in files:
        return LayoutSource(what, files, store, name)
    if "manifest.json" in files:
        return DockerArchiveSource(files, name, what, store)
    raise FetchError(f"{what} is no image: it has neither index.json nor manifest.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class _ArchiveEntry:
    """An image of ``manifest.json``: names of files of the archive."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchiveSource:
    """An archive without manifests, as ``docker save`` wrote before Docker 25 and other tools still do.

    The manifest is made here, so its digest is ours; it is a function of config and layers alone."""

    def __init__(self, files: TarFiles, name: str | None, what: str, store: Store) -> None:
        self.what = what
        self._files = files
        self._store = store
        entry = _chosen(_entries(files, what), name, what)
        config = read_file(files, entry.config, CONFIG_LIMIT, what)
        diff_ids = parse_config(config, what, len(entry.layers)).diff_ids
        own = Descriptor(digest=digest_bytes(config), size=len(config), media_type=OCI_CONFIG)
        layers = [
            self._layer(member, diff_id) for member, diff_id in zip(entry.layers, diff_ids, strict=True)
        ]
        self._members = {own.digest: entry.config} | {
            layer.digest: member for layer, member in zip(layers, entry.layers, strict=True)
        }
        content = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _object(own),
                "layers": [_object(layer) for layer in layers],
            }
        )
        self._top = Manifest(content=content, media_type=OCI_MANIFEST, digest=digest_bytes(content))

    def manifest(self, digest: str | None = None) -> Manifest:
        if digest not in (None, self._top.digest):
            raise FetchError(f"{self.what} lacks the manifest {digest}")
        self._store.add_blob(self._top.content)
        return self._top

    def blob(self, digest: str, size: int) -> Path:
        member = self._members.get(digest)
        if member is None:
            raise FetchError(f"{self.what} lacks the blob {digest}")
        return store_file(self._store, self._files, member, digest, size, self.what)

    def pull(self, blobs: Sequence[Descriptor]) -> None:
        for_each_blob(lambda blob: self.blob(blob.digest, blob.size), blobs)

    def _layer(self, member: str, diff_id: str) -> Descriptor:
        """The layer as it lies there: an uncompressed one is named by its diff_id, checked on reading."""
        if member not in self._files:
            raise FetchError(f"{self.what} lacks the layer {member!r}")
        size = self._files.size(member)
        with self._files.open(member) as file:
            head = file.read(4)
        media_type = compression_of(head)
        named = media_type == OCI_LAYER and is_digest(diff_id)
        digest = diff_id if named else self._digest(member)
        return Descriptor(digest=digest, size=size, media_type=media_type)

    def _digest(self, member: str) -> str:
        sha = hashlib.sha256()
        with self._files.open(member) as file:
            while piece := file.read(CHUNK):
                sha.update(piece)
        return f"sha256:{sha.hexdigest()}"


def _object(descriptor: Descriptor) -> Mapping[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _entries(files: TarFiles, what: str) -> tuple[_ArchiveEntry, ...]:
    """The images that ``manifest.json`` lists. Raises ``FetchError``."""
    try:
        document = json.loads(read_file(files, "manifest.json", MANIFEST_LIMIT, what))
        archive_entries = []
        for image in document:
            tags, layers = image.get("RepoTags") or [], image.get("Layers") or []
            texts = [image["Config"], *tags, *layers]
            if not all(isinstance(text, str) for text in texts) or len(layers) > _LAYERS:
                raise ValueError("an image has no config, or layers beyond number")
            archive_entries.append(
                _ArchiveEntry(config=image["Config"], tags=tuple(tags), layers=tuple(layers))
            )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FetchError(f"{what}: its manifest.json can't be used: {error}") from error
    return tuple(archive_entries)


def _chosen(entries: Sequence[_ArchiveEntry], name: str | None, what: str) -> _ArchiveEntry:
    known = sorted({tag for entry in entries for tag in entry.tags})
    if name is not None:
        entries = [entry for entry in entries if any(_same(tag, name) for tag in entry.tags)]
    # One image may be listed once for each of its names.
    if len({(entry.config, entry.layers) for entry in entries}) == 1:
        return entries[0]
    raise FetchError(
        f"{what} has {len(entries) or 'no'} {'images' if entries else 'image of that name'}",
        hint=f"choose one, by :NAME with NAME of {', '.join(known)}" if known else None,
    )


def _same(tag: str, name: str) -> bool:
    try:
        return tag == name or Reference.parse(tag).tagged == Reference.parse(name).tagged
    except UsageError:
        return False
