"""Two images that hold the same: what alone differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from envbuild.cli.show.inspection import difference_json, difference_lines
from envbuild.inspect.compare import compared
from envbuild.inspect.model import ImageDifference
from envbuild.oci.digest import canonical_json
from envbuild.oci.image import Image, Layer
from envbuild.oci.manifest import OCI_LAYER, OCI_LAYER_GZIP
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer

ITEMS = [Item(name="a", content=b"text")]


def changed(image: Image, store: Store, **fields: object) -> Image:
    """The same image with other fields of its config document."""
    document = json.loads(store.blob(image.config_digest).read_bytes())
    config = store.add_blob(canonical_json({**document, **fields}))
    manifest = json.loads(store.blob(image.digest).read_bytes())
    manifest["config"]["digest"] = config
    return replace(image, config_digest=config, digest=store.add_blob(canonical_json(manifest)))


def annotated(image: Image, store: Store) -> Image:
    manifest = json.loads(store.blob(image.digest).read_bytes())
    return replace(image, digest=store.add_blob(canonical_json({**manifest, "annotations": {"a": "b"}})))


def difference(before: Image, after: Image, store: Store) -> ImageDifference:
    def bring(layers: Sequence[Layer]) -> None:
        raise AssertionError("no layer is needed")

    return compared(before, after, store, bring_before=bring, bring_after=bring, files=False)


@pytest.fixture
def image(store: Store) -> Image:
    return put_image(store, [put_layer(store, ITEMS, OCI_LAYER)])


def test_only_the_compression(image: Image, store: Store) -> None:
    packed = put_image(store, [put_layer(store, ITEMS, OCI_LAYER_GZIP)])
    result = difference(image, packed, store)
    assert (result.only, result.differs) == (("compression",), True)
    assert difference_lines([result], color=False)[0] == (
        f"{image.platform}: the same files and settings; only compression differs"
    )
    shown = json.loads(json.dumps(difference_json("a", "b", [result])))
    assert shown["images"][0]["only"] == ["compression"]


def test_only_the_history_or_both(image: Image, store: Store) -> None:
    history = [{"created_by": "COPY a /"}]
    assert difference(image, changed(image, store, history=history), store).only == ("history",)
    packed = put_image(store, [put_layer(store, ITEMS, OCI_LAYER_GZIP)])
    both = difference(image, changed(packed, store, history=history), store)
    assert both.only == ("compression", "history")
    assert difference_lines([both], color=False)[0].endswith("only compression and history differ")


def test_only_how_it_is_written(image: Image, store: Store) -> None:
    assert difference(image, annotated(image, store), store).only == ("the form of the manifest",)


def test_nothing_alone_where_settings_differ_or_it_is_the_same(image: Image, store: Store) -> None:
    assert difference(image, image, store).only == ()
    assert difference(image, changed(image, store, config={"User": "1"}, history=[{}]), store).only == ()
