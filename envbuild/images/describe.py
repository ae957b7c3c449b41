"""An image that exists somewhere, as the values that the store's own images have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from envbuild.errors import FetchError
from envbuild.images.closure import for_platform
from envbuild.images.sources.base import ImageSource
from envbuild.oci.digest import canonical_json, is_digest
from envbuild.oci.image import Image, Layer
from envbuild.oci.manifest import (
    CONFIG_LIMIT,
    INDEXES,
    ConfigDocument,
    parse_config,
    parse_index,
    parse_manifest,
)
from envbuild.platforms import Platform
from envbuild.registry.base import Manifest

CREATED_BY = "envbuild"
"""What the history of a layer that envbuild composed says; its comment is the layer's name."""
LOCK_LABEL = "dev.envbuild.lock"
"""Label and annotation: the lock digest of an image of ours."""
ENVIRONMENT_LABEL = "dev.envbuild.environment"
"""Label and annotation of an image that envbuild put code on: digest of the environment's own, below."""
_BASE_LABEL = "org.opencontainers.image.base.digest"
_COMPOSED = "L3"
"""The level of images that envbuild composed itself."""
_PLATFORMS = 64
"""Images of one index; each is a manifest and a config to be fetched, and a config may be large."""


def images_of(source: ImageSource, top: Manifest) -> tuple[Image, ...]:
    """All images for Linux below ``top``: itself, or those of an index, which may be one level deep.

    Manifests and configs are in the store afterwards; layers needn't be. Raises ``FetchError``.
    """
    if top.media_type not in INDEXES:
        return (image_of(source, top),)
    described: list[Image] = []
    for entry in parse_index(top.content, source.what):
        if entry.platform and not entry.platform.startswith("linux/"):
            continue
        manifest = source.manifest(entry.digest)
        if manifest.media_type in INDEXES:
            raise FetchError(f"{source.what}: indexes within indexes")
        if len(described) == _PLATFORMS:
            raise FetchError(f"{source.what}: an index with more than {_PLATFORMS} images")
        described.append(image_of(source, manifest))
    if not described:
        raise FetchError(f"{source.what}: an index without an image")
    return tuple(described)


def top_for(source: ImageSource, top: Manifest, platform: Platform | None) -> Manifest:
    """The manifest of ``platform`` below ``top``; ``top`` itself where ``platform`` is None. Raises
    ``FetchError`` that says which platforms there are."""
    if platform is None:
        return top
    manifest = for_platform(source, platform, top)
    if isinstance(manifest, Manifest):
        there = image_of(source, manifest).platform if manifest is top else platform
        if there == platform:
            return manifest
        manifest = (str(there),)
    raise FetchError(
        f"{source.what} has no image for {platform}, only for {', '.join(manifest) or 'none that it names'}"
    )


def image_of(source: ImageSource, top: Manifest) -> Image:
    """The single-platform image of the manifest ``top``. Lock, definition and level are empty where no label
    says them, and where the image has inherited its labels: they are those of another one."""
    what = f"{source.what} ({top.digest})"
    manifest = parse_manifest(top.content, what)
    if manifest.config.size > CONFIG_LIMIT:
        raise FetchError(f"{what}: its config is larger than {CONFIG_LIMIT} bytes")
    content = source.blob(manifest.config.digest, manifest.config.size).read_bytes()
    config = parse_config(content, what, len(manifest.layers))
    labels = config.labels if layers_of_others(top.content, config) is None else {}
    return Image(
        platform=Platform(*(str(config.document.get(key) or "") for key in ("os", "architecture"))),
        digest=top.digest,
        media_type=top.media_type,
        size=len(top.content),
        config_digest=manifest.config.digest,
        layers=tuple(
            Layer(
                digest=layer.digest, diff_id=diff_id, size=layer.size, media_type=layer.media_type, name=name
            )
            for layer, diff_id, name in zip(
                manifest.layers, config.diff_ids, _layer_names(config), strict=True
            )
        ),
        lock_digest=_digest(labels, LOCK_LABEL),
        definition_digest=_digest(labels, "dev.envbuild.definition"),
        level=labels.get("dev.envbuild.level", ""),
    )


def layers_of_others(manifest: bytes, config: ConfigDocument) -> int | None:
    """How many layers others have put on an image of ours, whose labels ``config`` then has inherited; 0
    where they changed settings only. None where nobody did, as far as ``manifest`` and ``config`` show, or
    where the image has no label of ours.

    An engine that stores or pushes an image of ours writes a manifest of its own but keeps the config. So a
    manifest that is ours to the byte is proof enough; else the history must end with what envbuild, or the
    Dockerfile that it rendered, did last."""
    labels, steps = config.labels, config.history
    lock = labels.get(LOCK_LABEL)
    if lock is None or is_our_manifest(manifest, lock):
        return None
    composed = [index for index, step in enumerate(steps) if step.get("created_by") == CREATED_BY]
    if composed:
        above = steps[composed[-1] + 1 :]
        return _filled(above) if above else None
    labelled = [index for index, step in enumerate(steps) if _is_our_label_step(step, lock)]
    if labelled:
        # The rendered Dockerfile goes on with settings.
        return _filled(steps[labelled[-1] + 1 :]) or None
    # What was composed says so in its history, unless it is another image as it is, which a label names.
    if labels.get("dev.envbuild.level") == _COMPOSED and _BASE_LABEL not in labels:
        return len(config.diff_ids)
    return None


def is_our_manifest(content: bytes, lock: str) -> bool:
    """Whether a manifest that says to be of ``lock`` is written as envbuild writes it. Others who take the
    annotations of their base over, as buildah does, write it in another way."""
    try:
        document = json.loads(content)
        return bool(document["annotations"][LOCK_LABEL] == lock) and canonical_json(document) == content
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_our_label_step(step: Mapping[str, Any], lock: str) -> bool:
    """Whether a Dockerfile's ``LABEL`` of ours was this step of a history."""
    command = str(step.get("created_by") or "")
    return "LABEL " in command and LOCK_LABEL in command and lock in command


def _filled(steps: Sequence[Mapping[str, Any]]) -> int:
    """How many of a history's ``steps`` made a layer."""
    return sum(1 for step in steps if not step.get("empty_layer"))


def _digest(labels: Mapping[str, str], key: str) -> str:
    value = labels.get(key, "")
    return value if is_digest(value) else ""


def _layer_names(config: ConfigDocument) -> Sequence[str]:
    """The name of each layer that envbuild composed; empty for another's, and for all where the history
    doesn't fit the layers."""
    filled = [step for step in config.history if not step.get("empty_layer")]
    if len(filled) != len(config.diff_ids):
        return [""] * len(config.diff_ids)
    return [
        comment
        if step.get("created_by") == CREATED_BY and isinstance(comment := step.get("comment"), str)
        else ""
        for step in filled
    ]
