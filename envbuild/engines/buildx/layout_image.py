"""An OCI layout in a tar, as BuildKit exports one, brought into the store: read with distrust."""

from __future__ import annotations

import json
from pathlib import Path

from envbuild.compose.image import manifest_json
from envbuild.errors import BuildError, FetchError
from envbuild.images.sources.layout import LayoutSource
from envbuild.images.sources.tar_files import TarFiles
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image, Layer
from envbuild.oci.layer import check_diff_id, layer_names
from envbuild.oci.manifest import (
    CONFIG_LIMIT,
    DOCKER_CONFIG,
    LAYERS,
    MANIFEST_LIMIT,
    OCI_CONFIG,
    OCI_MANIFEST,
    ConfigDocument,
    Descriptor,
    ImageManifest,
    matches,
    parse_config,
    parse_index,
    parse_manifest,
)
from envbuild.plan.model import Plan
from envbuild.store.content import Store, blob_name
from envbuild.store.leases import Lease

_WHAT = "the image that the builder made"
_DEPTH = 3


def store_layout_image(archive: Path, plan: Plan, store: Store, *, lease: Lease | None = None) -> Image:
    """The image of ``plan``'s platform in ``archive``, its blobs in the store under a manifest of ours.

    Config and layers are kept byte for byte, each with its digest, size and diff_id checked. Raises
    ``BuildError`` for an archive that isn't the layout of one such image. ``lease`` is told what is used.
    """
    try:
        layout = LayoutSource(_WHAT, TarFiles(archive, _WHAT), store)
        manifest = _manifest_for(layout, plan)
        content = layout.read(manifest.config.digest, CONFIG_LIMIT, size=manifest.config.size)
        config = parse_config(content, _WHAT, len(manifest.layers))
        _check(config, manifest.config, plan)
        names = layer_names(config)
        if lease is not None:
            digests = [blob.digest for blob in (manifest.config, *manifest.layers)]
            lease.use(*map(blob_name, digests))
        layers = tuple(
            _store_layer(layout, descriptor, diff_id, name)
            for descriptor, diff_id, name in zip(manifest.layers, config.diff_ids, names, strict=True)
        )
    except FetchError as error:
        raise BuildError(error.message, hint=error.hint) from error
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise BuildError(f"{_WHAT} can't be read: {error}") from error
    own = manifest_json(plan, manifest.config.digest, len(content), layers)
    if lease is not None:
        lease.use(blob_name(digest_bytes(own)))
    return Image(
        platform=plan.platform,
        digest=store.add_blob(own),
        media_type=OCI_MANIFEST,
        size=len(own),
        config_digest=store.add_blob(content),
        layers=layers,
        lock_digest=plan.lock_digest,
        definition_digest=plan.definition_digest,
        level=plan.level,
    )


def _manifest_for(layout: LayoutSource, plan: Plan) -> ImageManifest:
    """The one manifest for the plan's platform, through indexes where need be."""
    content = layout.index()
    for _ in range(_DEPTH):
        entries = parse_index(content, _WHAT)
        fitting = {
            entry.digest for entry in entries if not entry.platform or matches(plan.platform, entry.platform)
        }
        if len(fitting) != 1:
            there = ", ".join(sorted({entry.platform for entry in entries if entry.platform})) or "none"
            raise BuildError(
                f"{_WHAT}: {len(fitting)} images of it are for {plan.platform} (there are: {there})"
            )
        content = layout.read(fitting.pop(), MANIFEST_LIMIT)
        document = json.loads(content)
        if not isinstance(document, dict) or "manifests" not in document:
            return parse_manifest(content, _WHAT)
    raise BuildError(f"{_WHAT}: indexes within indexes")


def _store_layer(layout: LayoutSource, descriptor: Descriptor, diff_id: str, name: str) -> Layer:
    """The layer, in the store and checked. It is written even where the store has it: a new file's age
    protects it from a prune that runs meanwhile."""
    media_type = LAYERS[descriptor.media_type]
    layout.store_anew(descriptor, lambda part: check_diff_id(part, media_type, diff_id, _WHAT))
    return Layer(
        digest=descriptor.digest, diff_id=diff_id, size=descriptor.size, media_type=media_type, name=name
    )


def _check(config: ConfigDocument, descriptor: Descriptor, plan: Plan) -> None:
    if descriptor.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise BuildError(f"{_WHAT}: its config has the type {descriptor.media_type!r}, so it is no image")
    if config.stated_platform != str(plan.platform):
        raise BuildError(f"{_WHAT} is for {config.stated_platform}, not {plan.platform}")
