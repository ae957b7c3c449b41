"""Layers are uncompressed once to see what they hold, and never trusted unseen."""

from __future__ import annotations

import pytest

from envbuild.errors import FetchError
from envbuild.images.contents import check_diff_ids
from envbuild.oci.manifest import OCI_LAYER, OCI_LAYER_GZIP, Descriptor
from envbuild.store.content import Store
from tests.fakes.image import Item, put_layer

OTHER = "sha256:" + "0" * 64


def layer(store: Store, media_type: str = OCI_LAYER_GZIP) -> tuple[Descriptor, str]:
    made = put_layer(store, [Item(name="file", content=b"x")], media_type)
    return Descriptor(digest=made.digest, size=made.size, media_type=media_type), made.diff_id


def test_a_layer_is_uncompressed_once(store: Store) -> None:
    blob, diff_id = layer(store)
    check_diff_ids(store, [(blob, diff_id), (blob, diff_id)], "image")
    # What it could not be uncompressed from any more.
    store.blob(blob.digest).write_bytes(bytes(blob.size))

    check_diff_ids(store, [(blob, diff_id)], "image")


def test_a_config_that_lies_is_found_each_time(store: Store) -> None:
    blob, diff_id = layer(store)
    for _ in range(2):
        with pytest.raises(FetchError, match="but its config says sha256:0000"):
            check_diff_ids(store, [(blob, OTHER)], "image")
    check_diff_ids(store, [(blob, diff_id)], "image")
    with pytest.raises(FetchError, match="but its config says sha256:0000"):
        check_diff_ids(store, [(blob, OTHER)], "image")


def test_one_layer_has_one_diff_id(store: Store) -> None:
    blob, diff_id = layer(store)
    with pytest.raises(FetchError, match="there twice, with two diff_ids"):
        check_diff_ids(store, [(blob, diff_id), (blob, OTHER)], "image")


def test_the_same_bytes_read_another_way_are_another_layer(store: Store) -> None:
    blob, diff_id = layer(store)
    check_diff_ids(store, [(blob, diff_id)], "image")
    plain = Descriptor(digest=blob.digest, size=blob.size, media_type=OCI_LAYER)

    with pytest.raises(FetchError, match=f"holds {blob.digest}, but its config says"):
        check_diff_ids(store, [(plain, diff_id)], "image")
