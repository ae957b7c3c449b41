"""An OCI layout in a tar, as BuildKit exports one, brought into the store: read with distrust."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envbuild.compose.image import MANIFEST_TYPE, manifest_json
from envbuild.digest import CHUNK, digest_bytes
from envbuild.engines.history import layer_names
from envbuild.errors import BuildError, FetchError
from envbuild.plan.model import Plan
from envbuild.publish.base import Image, LayerRecord
from envbuild.remote.layer import check_diff_id
from envbuild.remote.manifest import (
    CONFIG_LIMIT,
    Descriptor,
    ImageManifest,
    matches,
    parse_config,
    parse_index,
    parse_manifest,
)
from envbuild.remote.media import DOCKER_CONFIG, LAYERS, OCI_CONFIG
from envbuild.store.content import Store, blob_name, commit_file
from envbuild.store.leases import Lease

_WHAT = "the image that the builder made"
_DOCUMENT_LIMIT = 4 << 20
"""Bytes of an index or a manifest that is believed to be one."""
_MEMBERS = 4096
_DEPTH = 3


def store_layout_image(archive: Path, plan: Plan, store: Store, *, lease: Lease | None = None) -> Image:
    """The image of ``plan``'s platform in ``archive``, its blobs in the store under a manifest of ours.

    Config and layers are kept byte for byte, each with its digest, size and diff_id checked. Raises
    ``BuildError`` for an archive that isn't the layout of one such image. ``lease`` is told what is used.
    """
    try:
        with tarfile.open(archive, "r:") as opened:
            layout = _Layout(archive=opened, members=_members(opened), store=store)
            manifest = layout.manifest(plan)
            content = layout.blob(manifest.config, CONFIG_LIMIT)
            document, diff_ids = parse_config(content, _WHAT, len(manifest.layers))
            _check(document, manifest.config, plan)
            names = layer_names(document, len(diff_ids))
            if lease is not None:
                digests = [each.digest for each in (manifest.config, *manifest.layers)]
                lease.use(*map(blob_name, digests))
            layers = tuple(
                layout.store_layer(descriptor, diff_id, name)
                for descriptor, diff_id, name in zip(manifest.layers, diff_ids, names, strict=True)
            )
    except FetchError as error:
        raise BuildError(error.message, hint=error.hint) from error
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise BuildError(f"{_WHAT} can't be read: {error}") from error
    own = manifest_json(plan, manifest.config.digest, len(content), layers)
    if lease is not None:
        lease.use(blob_name(digest_bytes(own)))
    return Image(
        platform=plan.platform,
        digest=store.add_blob(own),
        media_type=MANIFEST_TYPE,
        size=len(own),
        config_digest=store.add_blob(content),
        layers=layers,
        lock_digest=plan.lock_digest,
        definition_digest=plan.definition_digest,
        level=plan.level,
    )


def _members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The plain files by path; a name that is there twice could mean two things, so it is refused."""
    found: dict[str, tarfile.TarInfo] = {}
    for count, member in enumerate(archive):
        if count >= _MEMBERS:
            raise BuildError(f"{_WHAT} has more than {_MEMBERS} files")
        if member.isdir():
            continue
        name = member.name.removeprefix("./")
        if not member.isreg() or member.issparse() or name in found:
            raise BuildError(f"{_WHAT} holds {name!r}, which is no file of an OCI layout")
        found[name] = member
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    archive: tarfile.TarFile
    members: Mapping[str, tarfile.TarInfo]
    store: Store

    def manifest(self, plan: Plan) -> ImageManifest:
        """The one manifest for the plan's platform, through indexes where need be."""
        content = self._read("index.json", _DOCUMENT_LIMIT)
        for _ in range(_DEPTH):
            entries = parse_index(content, _WHAT)
            fitting = {
                each.digest for each in entries if not each.platform or matches(plan.platform, each.platform)
            }
            if len(fitting) != 1:
                there = ", ".join(sorted({each.platform for each in entries if each.platform})) or "none"
                raise BuildError(
                    f"{_WHAT}: {len(fitting)} images of it are for {plan.platform} (there are: {there})"
                )
            digest = fitting.pop()
            content = self._read(_path(digest), _DOCUMENT_LIMIT)
            if digest_bytes(content) != digest:
                raise BuildError(f"{_WHAT}: the manifest {digest} is damaged")
            document = json.loads(content)
            if not isinstance(document, dict) or "manifests" not in document:
                return parse_manifest(content, _WHAT)
        raise BuildError(f"{_WHAT}: indexes within indexes")

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        content = self._read(_path(descriptor.digest), limit)
        if len(content) != descriptor.size or digest_bytes(content) != descriptor.digest:
            raise BuildError(f"{_WHAT}: the blob {descriptor.digest} is damaged")
        return content

    def store_layer(self, descriptor: Descriptor, diff_id: str, name: str) -> LayerRecord:
        """The layer, in the store and checked. It is written even where the store has it: a new file's age
        protects it from a prune that runs meanwhile."""
        media_type = LAYERS[descriptor.media_type]
        member = self._member(_path(descriptor.digest))
        if member.size != descriptor.size:
            raise BuildError(f"{_WHAT}: the layer {descriptor.digest} has not the size it is said to have")
        source = self.archive.extractfile(member)
        assert source is not None, "only plain files are members"
        with self.store.scratch() as scratch, source:
            part = scratch / "layer"
            sha = hashlib.sha256()
            with part.open("wb") as sink:
                while piece := source.read(CHUNK):
                    sha.update(piece)
                    sink.write(piece)
            if f"sha256:{sha.hexdigest()}" != descriptor.digest:
                raise BuildError(f"{_WHAT}: the layer {descriptor.digest} is damaged")
            check_diff_id(part, media_type, diff_id, _WHAT)
            commit_file(part, self.store.blob(descriptor.digest))
        return LayerRecord(
            digest=descriptor.digest, diff_id=diff_id, size=descriptor.size, media_type=media_type, name=name
        )

    def _member(self, name: str) -> tarfile.TarInfo:
        member = self.members.get(name)
        if member is None:
            raise BuildError(f"{_WHAT} lacks {name}")
        return member

    def _read(self, name: str, limit: int) -> bytes:
        member = self._member(name)
        if member.size > limit:
            raise BuildError(f"{_WHAT}: {name} is larger than {limit} bytes")
        file = self.archive.extractfile(member)
        assert file is not None, "only plain files are members"
        with file:
            return file.read()


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _check(document: Mapping[str, Any], config: Descriptor, plan: Plan) -> None:
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise BuildError(f"{_WHAT}: its config has the type {config.media_type!r}, so it is no image")
    found = f"{document.get('os')}/{document.get('architecture')}"
    if found != str(plan.platform):
        raise BuildError(f"{_WHAT} is for {found}, not {plan.platform}")
