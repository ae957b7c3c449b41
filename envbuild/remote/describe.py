"""An image that exists somewhere, as the values that the store's own images have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envbuild.digest import is_digest
from envbuild.errors import FetchError
from envbuild.platforms import Platform
from envbuild.publish.base import Image, LayerRecord
from envbuild.remote.base import Manifest
from envbuild.remote.manifest import CONFIG_LIMIT, parse_config, parse_index, parse_manifest
from envbuild.remote.media import INDEXES
from envbuild.remote.source import ImageSource, for_platform

CREATED_BY = "envbuild"
"""What the history of a layer that envbuild composed says; its comment is the layer's name."""
_PLATFORMS = 64
"""Images of one index; each is a manifest and a config to be fetched, and a config may be large."""


def images_of(source: ImageSource, top: Manifest) -> tuple[Image, ...]:
    """All images for Linux below ``top``: itself, or those of an index, which may be one level deep.

    Manifests and configs are in the store afterwards; layers needn't be. Raises ``FetchError``.
    """
    if top.media_type not in INDEXES:
        return (image_of(source, top),)
    found: list[Image] = []
    for entry in parse_index(top.content, source.what):
        if entry.platform and not entry.platform.startswith("linux/"):
            continue
        manifest = source.manifest(entry.digest)
        if manifest.media_type in INDEXES:
            raise FetchError(f"{source.what}: indexes within indexes")
        if len(found) == _PLATFORMS:
            raise FetchError(f"{source.what}: an index with more than {_PLATFORMS} images")
        found.append(image_of(source, manifest))
    if not found:
        raise FetchError(f"{source.what}: an index without an image")
    return tuple(found)


def top_for(source: ImageSource, top: Manifest, platform: Platform | None) -> Manifest:
    """The manifest of ``platform`` below ``top``; ``top`` itself where ``platform`` is None. Raises
    ``FetchError`` that says which platforms there are."""
    if platform is None:
        return top
    found = for_platform(source, platform, top)
    if isinstance(found, Manifest):
        there = image_of(source, found).platform if found is top else platform
        if there == platform:
            return found
        found = (str(there),)
    raise FetchError(
        f"{source.what} has no image for {platform}, only for {', '.join(found) or 'none that it names'}"
    )


def image_of(source: ImageSource, top: Manifest) -> Image:
    """The single-platform image of the manifest ``top``. What no label says is empty; the level of an image
    that isn't ours is empty too."""
    what = f"{source.what} ({top.digest})"
    manifest = parse_manifest(top.content, what)
    if manifest.config.size > CONFIG_LIMIT:
        raise FetchError(f"{what}: its config is larger than {CONFIG_LIMIT} bytes")
    content = source.blob(manifest.config.digest, manifest.config.size).read_bytes()
    document, diff_ids = parse_config(content, what, len(manifest.layers))
    labels = labels_of(document)
    names = _layer_names(document, len(diff_ids))
    return Image(
        platform=Platform(str(document.get("os") or ""), str(document.get("architecture") or "")),
        digest=top.digest,
        media_type=top.media_type,
        size=len(top.content),
        config_digest=manifest.config.digest,
        layers=tuple(
            LayerRecord(
                digest=layer.digest, diff_id=diff_id, size=layer.size, media_type=layer.media_type, name=name
            )
            for layer, diff_id, name in zip(manifest.layers, diff_ids, names, strict=True)
        ),
        lock_digest=_digest(labels, "dev.envbuild.lock"),
        definition_digest=_digest(labels, "dev.envbuild.definition"),
        level=labels.get("dev.envbuild.level", ""),
    )


def labels_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a config document, those that are text."""
    settings = config.get("config")
    labels = settings.get("Labels") if isinstance(settings, dict) else None
    return {str(key): value for key, value in (labels or {}).items() if isinstance(value, str)}


def _digest(labels: Mapping[str, str], key: str) -> str:
    value = labels.get(key, "")
    return value if is_digest(value) else ""


def _layer_names(config: Mapping[str, Any], count: int) -> Sequence[str]:
    """The name of each layer that envbuild composed; empty for another's, and for all where the history
    doesn't fit the layers."""
    filled = [item for item in config.get("history") or () if not item.get("empty_layer")]
    if len(filled) != count:
        return [""] * count
    return [
        comment
        if item.get("created_by") == CREATED_BY and isinstance(comment := item.get("comment"), str)
        else ""
        for item in filled
    ]
