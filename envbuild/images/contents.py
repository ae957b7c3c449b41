"""A single-platform image as others made it: its layers and config, brought into the store and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envbuild.errors import FetchError
from envbuild.images.diff_ids import check_diff_ids
from envbuild.images.sources.base import LAYOUT_PREFIX, ImageSource, LayoutSource, RegistrySource
from envbuild.oci.manifest import CONFIG_LIMIT, Descriptor, parse_config, parse_manifest
from envbuild.oci.media import MANIFESTS
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.registry.base import Remote
from envbuild.store.content import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageContents:
    """What others' image consists of. ``layers`` and ``diff_ids`` are lowest first and equally many."""

    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    config: Mapping[str, Any]
    """The whole config document (OCI image-spec, config)."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The inner ``config`` object: ``Env``, ``Entrypoint``, ``WorkingDir``…"""
        inner = self.config.get("config")
        return inner if isinstance(inner, dict) else {}


def image_source(reference: str, store: Store, client: Remote, directory: Path) -> ImageSource:
    """The source that a base's reference means. Raises ``FetchError`` or ``UsageError``."""
    if reference.startswith(LAYOUT_PREFIX):
        return LayoutSource.in_directory(reference, store, directory)
    return RegistrySource(Reference.parse(reference), client)


def read_image(
    source: ImageSource,
    digest: str,
    store: Store,
    *,
    platform: Platform | None = None,
    expected: tuple[str, ...] = (),
    layers: bool = True,
) -> ImageContents:
    """The single-platform image with this digest. Each layer is uncompressed once, to see that it holds what
    the config says. Raises ``FetchError``."""
    what = f"{source.what} ({digest})"
    top = source.manifest(digest)
    if top.media_type not in MANIFESTS:
        raise FetchError(f"{what}: an index, not an image of one platform", hint="lock it again")
    manifest = parse_manifest(top.content, what)
    if manifest.config.size > CONFIG_LIMIT:
        raise FetchError(f"{what}: its config is larger than {CONFIG_LIMIT} bytes")
    content = source.blob(manifest.config.digest, manifest.config.size).read_bytes()
    document, diff_ids = parse_config(content, what, len(manifest.layers))
    if platform is not None:
        found = f"{document.get('os')}/{document.get('architecture')}"
        if found != str(platform):
            raise FetchError(f"{what}: it is for {found}, not {platform}")
    if expected and diff_ids != expected:
        raise FetchError(f"{what}: its layers are not those in the lock", hint="lock it again with --upgrade")
    if layers:
        source.pull(manifest.layers)
        check_diff_ids(store, zip(manifest.layers, diff_ids, strict=True), what)
    return ImageContents(layers=manifest.layers, diff_ids=diff_ids, config=document)
