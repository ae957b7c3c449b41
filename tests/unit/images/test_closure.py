"""Which image of an index is a platform's, where the index itself doesn't say."""

from __future__ import annotations

import json
from typing import Any

from envbuild.images.closure import for_platform, tree_of
from envbuild.images.sources.base import StoreSource
from envbuild.oci.manifest import OCI_INDEX, OCI_MANIFEST
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.registry.base import Manifest
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer


def index_of(store: Store, entries: list[dict[str, Any]]) -> tuple[StoreSource, Manifest]:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    source = StoreSource(store.add_blob(json.dumps(document).encode()), store, "an index")
    return source, source.manifest()


def test_an_entry_without_a_platform_is_that_of_its_image(store: Store) -> None:
    layer = put_layer(store, [Item(name="file", content=b"x")])
    images = [put_image(store, [layer], platform=platform) for platform in (LINUX_ARM64, LINUX_AMD64)]
    entries = [{"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.size} for image in images]
    source, top = index_of(store, entries)
    chosen = for_platform(source, LINUX_AMD64, top)
    assert isinstance(chosen, Manifest)
    assert chosen.digest == images[1].digest

    source, top = index_of(store, entries[:1])
    assert for_platform(source, LINUX_AMD64, top) == ("linux/arm64",)


def test_an_entry_that_says_its_platform_goes_first(store: Store) -> None:
    layer = put_layer(store, [Item(name="file", content=b"x")])
    unsaid, said = (
        put_image(store, [layer], {"Labels": {"n": name}}, platform=LINUX_AMD64) for name in ("a", "b")
    )
    entries: list[dict[str, Any]] = [
        {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.size} for image in (unsaid, said)
    ]
    entries[1]["platform"] = {"os": "linux", "architecture": "amd64"}
    source, top = index_of(store, entries)
    chosen = for_platform(source, LINUX_AMD64, top)
    assert isinstance(chosen, Manifest)
    assert chosen.digest == said.digest


def test_what_is_no_image_has_no_platform(store: Store) -> None:
    config = store.add_blob(b"{}")
    artifact = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [],
        }
    ).encode()
    entry = {"mediaType": OCI_MANIFEST, "digest": store.add_blob(artifact), "size": len(artifact)}
    source, top = index_of(store, [entry])
    assert for_platform(source, LINUX_AMD64, top) == ()


def test_what_an_index_names_often_is_read_once(store: Store) -> None:
    image = put_image(store, [put_layer(store, [Item(name="file", content=b"x")])])
    entry = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.size}
    _, top = index_of(store, [entry] * 20_000)
    read: list[str | None] = []

    class Counted(StoreSource):
        def manifest(self, digest: str | None = None) -> Manifest:
            read.append(digest)
            return super().manifest(digest)

    tree = tree_of(Counted(top.digest, store, "an index"), top)
    assert [manifest.digest for manifest in tree.manifests] == [image.digest, top.digest]
    assert read == [image.digest]
