"""What a manifest or an index leads to: all of it, byte for byte, and the manifest of one platform."""

from __future__ import annotations

import json
from dataclasses import dataclass

from envbuild.errors import FetchError
from envbuild.images.sources.base import ImageSource
from envbuild.oci.manifest import (
    CONFIG_LIMIT,
    INDEXES,
    ConfigDocument,
    Descriptor,
    matches,
    parse_index,
    parse_manifest,
    parts_of,
)
from envbuild.platforms import Platform
from envbuild.registry.base import Manifest

_MANIFESTS = 1000
_DEPTH = 3
_UNNAMED = 16
"""Entries of an index without a platform that are looked into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """A manifest or index with everything below it, attestations and what we can't read included."""

    manifests: tuple[Manifest, ...]
    """Each once, what an index names before the index itself; the top is the last."""
    blobs: tuple[Descriptor, ...]
    """Of all of them, each once: configs and layers."""

    @property
    def top(self) -> Manifest:
        return self.manifests[-1]

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all manifests and blobs, sorted."""
        manifests = {manifest.digest for manifest in self.manifests}
        return tuple(sorted(manifests | {blob.digest for blob in self.blobs}))


def tree_of(source: ImageSource, top: Manifest) -> Tree:
    """All that ``top`` leads to. Its manifests are in the store afterwards; blobs needn't be. Raises
    ``FetchError``."""
    manifests: dict[str, Manifest] = {}
    blobs: dict[str, Descriptor] = {}

    def visit(manifest: Manifest, depth: int) -> None:
        if depth > _DEPTH or len(manifests) >= _MANIFESTS:
            raise FetchError(f"{source.what}: indexes within indexes without end")
        parts = parts_of(manifest.content, f"{source.what} ({manifest.digest})")
        if manifest.media_type in INDEXES:
            for entry in parts.manifests:
                # What an index names ten thousand times is read once.
                if entry.digest not in manifests:
                    visit(source.manifest(entry.digest), depth + 1)
        for blob in (*parts.layers, *parts.configs):
            blobs.setdefault(blob.digest, blob)
        manifests[manifest.digest] = manifest

    visit(top, 0)
    return Tree(manifests=tuple(manifests.values()), blobs=tuple(blobs.values()))


def for_platform(source: ImageSource, platform: Platform, top: Manifest) -> Manifest | tuple[str, ...]:
    """The manifest of ``platform`` below ``top``, or, where an index lacks it, the platforms it has."""
    depth = 0
    while top.media_type in INDEXES:
        depth += 1
        if depth > _DEPTH:
            raise FetchError(f"{source.what}: indexes within indexes")
        entries = parse_index(top.content, source.what)
        fitting = next((entry for entry in entries if matches(platform, entry.platform)), None)
        if fitting is not None:
            top = source.manifest(fitting.digest)
            continue
        # Where an index doesn't say, the images do, as for containerd.
        unnamed = [entry for entry in entries if not entry.platform][:_UNNAMED]
        manifests = [source.manifest(entry.digest) for entry in unnamed]
        stated = [_stated_platform(source, manifest) for manifest in manifests]
        chosen = next((number for number, text in enumerate(stated) if matches(platform, text)), None)
        if chosen is None:
            return tuple(sorted({text for text in (*stated, *(entry.platform for entry in entries)) if text}))
        return manifests[chosen]
    return top


def _stated_platform(source: ImageSource, manifest: Manifest) -> str:
    """What an image's config says; empty for what isn't an image."""
    what = f"{source.what} ({manifest.digest})"
    if manifest.media_type in INDEXES:
        return ""
    try:
        config = parse_manifest(manifest.content, what).config
    except FetchError:
        return ""
    if config.size > CONFIG_LIMIT:
        raise FetchError(f"{what}: its config is larger than {CONFIG_LIMIT} bytes")
    try:
        document = json.loads(source.blob(config.digest, config.size).read_bytes())
    except (ValueError, RecursionError):
        return ""
    return ConfigDocument(document).stated_platform if isinstance(document, dict) else ""
