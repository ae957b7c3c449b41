"""Layers are uncompressed once to see what they hold, and never trusted unseen."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from envbuild.errors import FetchError
from envbuild.images.contents import check_diff_ids
from envbuild.oci.layer import open_layer
from envbuild.oci.manifest import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from envbuild.store.content import Store
from tests.fakes.image import Item, put_layer, tar

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


TYPES = (OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD)


@pytest.mark.parametrize("stated", TYPES)
@pytest.mark.parametrize("real", TYPES)
def test_what_compresses_a_layer_is_told_by_its_content(store: Store, real: str, stated: str) -> None:
    blob, diff_id = layer(store, real)
    check_diff_ids(store, [(replace(blob, media_type=stated), diff_id)], "image")
    with open_layer(store.blob(blob.digest), stated) as archive:
        assert [member.name for member in archive] == ["file"]


def test_a_frame_of_zstd_that_is_skipped_may_lead(store: Store) -> None:
    blob, diff_id = layer(store, OCI_LAYER_ZSTD)
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + store.blob(blob.digest).read_bytes()
    chunked = Descriptor(digest=store.add_blob(skipped), size=len(skipped), media_type=OCI_LAYER_ZSTD)
    check_diff_ids(store, [(chunked, diff_id)], "image")


def test_a_diff_id_may_be_of_sha512(store: Store) -> None:
    blob, _ = layer(store)
    data = tar([Item(name="file", content=b"x")])
    check_diff_ids(store, [(blob, f"sha512:{hashlib.sha512(data).hexdigest()}")], "image")
    with pytest.raises(FetchError, match=r"holds sha512:[0-9a-f]{128}, but its config says sha512:0000"):
        check_diff_ids(store, [(blob, f"sha512:{'0' * 128}")], "image")
