"""A single-platform image as others made it: its layers and config, brought into the store and checked."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import FetchError
from envbuild.images.locator import ImageLocator
from envbuild.images.sources.archive import archive_source
from envbuild.images.sources.base import ImageSource, RegistrySource, for_each_blob
from envbuild.images.sources.layout import LAYOUT_PREFIX, LayoutSource
from envbuild.oci.digest import canonical_digest
from envbuild.oci.layer import check_diff_id
from envbuild.oci.manifest import (
    CONFIG_LIMIT,
    MANIFESTS,
    ConfigDocument,
    Descriptor,
    parse_config,
    parse_manifest,
)
from envbuild.oci.reference import Reference, is_local
from envbuild.platforms import Platform
from envbuild.registry.base import Remote
from envbuild.store.content import Store
from envbuild.store.layers import LayerCache, LayerFile


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageContents:
    """What others' image consists of. ``layers`` and ``diff_ids`` are lowest first and equally many."""

    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    config: ConfigDocument


def image_source(reference: str, store: Store, client: Remote, directory: Path) -> ImageSource:
    """The source that a base's reference means. Raises ``FetchError`` or ``UsageError``."""
    if reference.startswith(LAYOUT_PREFIX):
        return LayoutSource.in_directory(reference, store, directory)
    if is_local(reference):
        place = ImageLocator.parse(reference, directory)
        assert place.path is not None
        scratch = Path(tempfile.mkdtemp(prefix="envbuild-"))
        try:
            source = archive_source(place.path, place.name, reference, store, scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        # What a compressed one was expanded to lasts as long as somebody may read it.
        weakref.finalize(source, shutil.rmtree, scratch, ignore_errors=True)
        return source
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
    config = parse_config(content, what, len(manifest.layers))
    if platform is not None and config.stated_platform != str(platform):
        raise FetchError(f"{what}: it is for {config.stated_platform}, not {platform}")
    if expected and config.diff_ids != expected:
        raise FetchError(f"{what}: its layers are not those in the lock", hint="lock it again with --upgrade")
    if layers:
        source.pull(manifest.layers)
        check_diff_ids(store, zip(manifest.layers, config.diff_ids, strict=True), what)
    return ImageContents(layers=manifest.layers, diff_ids=config.diff_ids, config=config)


_FORMAT = 1


def check_diff_ids(store: Store, layers: Iterable[tuple[Descriptor, str]], what: str) -> None:
    """Returns if every layer, all of which are in the store, has the diff_id beside it.

    Uncompresses a layer unless that was done before. Raises ``FetchError``."""
    cache = LayerCache(store)
    expected: dict[str, str] = {}
    unknown = []
    for layer, diff_id in layers:
        if expected.setdefault(layer.digest, diff_id) != diff_id:
            raise FetchError(f"{what}: the layer {layer.digest} is there twice, with two diff_ids")
        known = cache.get(_key(layer))
        if known is None or known.diff_id != diff_id:
            unknown.append(layer)

    def check(layer: Descriptor) -> None:
        diff_id = expected[layer.digest]
        check_diff_id(store.blob(layer.digest), layer.media_type, diff_id, what)
        with store.scratch() as scratch:
            cache.put(_key(layer), LayerFile(digest=layer.digest, diff_id=diff_id, size=layer.size), scratch)

    for_each_blob(check, unknown)


def _key(layer: Descriptor) -> str:
    """The media type counts: the same bytes are another tar where they are read another way."""
    return canonical_digest("diff-id", _FORMAT, [layer.digest, layer.media_type]).removeprefix("sha256:")
