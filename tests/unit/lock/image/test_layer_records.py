"""What is kept of each layer, so that of a new image only the new layers are read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

import pytest

from envbuild.errors import BuildError
from envbuild.lock.image.inventory import inventory
from envbuild.lock.image.layer_records import RecordLimits, layer_records, read_layer
from envbuild.oci.image import Layer
from envbuild.oci.manifest import OCI_LAYER
from envbuild.store.content import Store
from tests.fakes.image import Item, hardlink, put_image, put_layer

SITE = "usr/lib/python3/dist-packages"


def metadata(name: str, version: str) -> Item:
    return Item(
        name=f"{SITE}/{name}-{version}.dist-info/METADATA",
        content=f"Name: {name}\nVersion: {version}\n".encode(),
    )


def versions(store: Store, *layers: Layer) -> dict[str, tuple[str, int]]:
    found = inventory(put_image(store, layers), store)
    return {
        distribution.name: (distribution.version, distribution.layer) for distribution in found.distributions
    }


def test_a_layer_that_was_read_once_is_not_read_again(store: Store) -> None:
    below = put_layer(store, [metadata("six", "1"), metadata("idna", "3")])
    middle = put_layer(store, [Item(name=f"{SITE}/.wh.idna-3.dist-info"), metadata("new", "1")])
    assert versions(store, below, middle) == {"six": ("1", 0), "new": ("1", 1)}
    for each in (below, middle):
        store.blob(each.digest).unlink()
    above = put_layer(store, [Item(name=f"{SITE}/.wh.six-1.dist-info")])
    assert versions(store, below, middle, above) == {"new": ("1", 1)}
    # What a layer takes away is kept as well, and counts only for what lies below it.
    assert versions(store, middle, below) == {"six": ("1", 1), "idna": ("3", 1), "new": ("1", 0)}


@pytest.mark.parametrize("damage", [b"", b"[]", b"x\x9c"])
def test_a_damaged_answer_is_made_again(store: Store, damage: bytes) -> None:
    layer = put_layer(store, [metadata("six", "1")])
    found = layer_records(layer.digest, layer.media_type, store)
    (kept,) = store.directory("metadata/layers").iterdir()
    kept.write_bytes(damage)
    assert layer_records(layer.digest, layer.media_type, store) == found


def test_a_hard_link_leads_to_a_layer_below(store: Store) -> None:
    cache = Item(name="root/.cache/x.dist-info/METADATA", content=b"Name: linked\nVersion: 5\n")
    below = put_layer(store, [cache])
    above = put_layer(store, [hardlink(f"{SITE}/linked-1.dist-info/METADATA", f"/{cache.name}")])
    assert versions(store, below, above) == {"linked": ("5", 1)}


def test_of_two_entries_of_one_path_the_later_counts(store: Store) -> None:
    both = [metadata("six", "1"), Item(name=f"{SITE}/six-1.dist-info", content=b"a file now")]
    assert versions(store, put_layer(store, both)) == {}
    assert versions(store, put_layer(store, [*both, metadata("six", "1")])) == {"six": ("1", 0)}


@pytest.mark.parametrize(
    ("items", "limits", "message"),
    [
        (
            [metadata("a", "1"), Item(name=f"{SITE}/a-1.dist-info")] * 3,
            RecordLimits(turned=2),
            "makes more than 2 directories files",
        ),
        (
            [Item(name="a" * 60), Item(name="b" * 60)],
            RecordLimits(paths=100),
            "have more than 100 characters",
        ),
    ],
)
def test_a_layer_that_takes_forever_is_refused(
    store: Store, items: Sequence[Item], limits: RecordLimits, message: str
) -> None:
    layer = put_layer(store, items)
    with pytest.raises(BuildError, match=message):
        read_layer(store.blob(layer.digest), layer.media_type, limits)


def test_a_tar_that_ends_early_is_damaged(store: Store) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("large")
        info.size = 5000
        archive.addfile(info, io.BytesIO(bytes(5000)))
    digest = store.add_blob(buffer.getvalue()[:2000])
    with pytest.raises(BuildError, match="can't be read: it ends within an entry"):
        read_layer(store.blob(digest), OCI_LAYER, RecordLimits())
