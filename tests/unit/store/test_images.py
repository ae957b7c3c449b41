"""The index of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.oci.image import Image, Layer
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex

KEY = "0" * 64


def an_image(store: Store, name: str = "one") -> Image:
    layer = store.add_blob(f"layer of {name}".encode())
    return Image(
        platform=LINUX_AMD64,
        digest=store.add_blob(f"manifest of {name}".encode()),
        media_type="application/vnd.oci.image.manifest.v1+json",
        size=12 + len(name),
        config_digest=store.add_blob(f"config of {name}".encode()),
        layers=(
            Layer(
                digest=layer,
                diff_id="sha256:" + "d" * 64,
                size=9 + len(name),
                media_type="t",
                name="n",
                artifacts=("a 1",),
            ),
        ),
        lock_digest="sha256:" + "1" * 64,
        definition_digest="sha256:" + "2" * 64,
        level="L3",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_an_image_comes_back_as_it_was_and_its_use_is_noted(store: Store) -> None:
    image = an_image(store)
    ImageIndex(store, lambda: 1000.0).put(KEY, image, ("segments/b", "segments/a", "segments/a"))
    later = ImageIndex(store, lambda: 2000.0)
    assert [(one.used, one.uses) for one in later.entries()] == [(1000.0, ("segments/a", "segments/b"))]
    assert later.get(KEY) == image
    assert [one.used for one in later.entries()] == [2000.0]


@pytest.mark.parametrize("which", ["digest", "config_digest", "layer"])
def test_an_image_with_a_blob_missing_or_short_is_not_there(store: Store, which: str) -> None:
    index = ImageIndex(store, lambda: 0.0)
    for damage in (b"", None):
        image = an_image(store)
        index.put(KEY, image)
        path = store.blob(image.layers[0].digest if which == "layer" else getattr(image, which))
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
        assert index.get(KEY) is None


def test_a_layer_of_right_size_and_wrong_bytes_is_found_by_the_thorough_look(store: Store) -> None:
    index = ImageIndex(store, lambda: 0.0)
    image = an_image(store)
    index.put(KEY, image)
    store.blob(image.layers[0].digest).write_bytes(b"Layer of one")
    assert index.get(KEY) == image
    assert index.get(KEY, thorough=True) is None
    assert not store.has_blob(image.layers[0].digest)


def test_a_damaged_record_is_no_image(store: Store) -> None:
    index = ImageIndex(store, lambda: 0.0)
    index.put(KEY, an_image(store))
    index.path(KEY).write_bytes(index.path(KEY).read_bytes().replace(b"L3", b"L9"))
    assert index.get(KEY) is None
    assert index.entries() == ()
