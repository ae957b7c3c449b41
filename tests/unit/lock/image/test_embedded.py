"""The lock inside an image, read back from its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from envbuild.errors import LockError
from envbuild.lock.files import SELF_DESCRIPTION, dump_lock
from envbuild.lock.image.embedded import embedded_lock
from envbuild.lock.model import Lock
from envbuild.oci.image import Image
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, hardlink, put_image, put_layer, symlink
from tests.unit.lock.sample import AMD64, LOCK


@pytest.fixture
def lock() -> Lock:
    """Of one platform, as an image has it."""
    return Lock(definition=LOCK.definition, platforms=(AMD64,), runtime=LOCK.runtime, channels=LOCK.channels)


def items(lock: Lock) -> list[Item]:
    files = dump_lock(lock)
    return [
        directory(SELF_DESCRIPTION),
        *(Item(name=f"{SELF_DESCRIPTION}/{name}", content=data) for name, data in files.items()),
    ]


def image(store: Store, *layers: Sequence[Item]) -> Image:
    return put_image(store, [put_layer(store, layer) for layer in layers], platform=LINUX_AMD64)


OTHER = [directory("opt"), Item(name="opt/file", content=b"x")]


def test_the_lock_comes_back_whatever_lies_above_it(store: Store, lock: Lock) -> None:
    assert embedded_lock(image(store, OTHER, items(lock), OTHER), store) == lock


def test_an_image_without_one_has_none(store: Store) -> None:
    assert embedded_lock(image(store, OTHER, OTHER), store) is None


def test_the_uppermost_counts(store: Store, lock: Lock) -> None:
    newer = replace(lock, as_of="2026-01-02")
    assert embedded_lock(image(store, items(lock), items(newer)), store) == newer


def test_only_the_layers_down_to_it_are_brought(store: Store, lock: Lock) -> None:
    found = image(store, OTHER, items(lock), [Item(name="top")])
    brought: list[str] = []
    embedded_lock(found, store, bring=lambda layer: brought.append(layer.digest))
    assert brought == [found.layers[2].digest, found.layers[1].digest]


@pytest.mark.parametrize(
    "above",
    [
        Item(name="usr/.wh.share"),
        Item(name="usr/share/.wh.envbuild"),
        Item(name=".wh.usr"),
        Item(name=".wh..wh..opq"),
        Item(name="usr/share/envbuild/.wh..wh..opq"),
        Item(name="./usr/share/envbuild/.wh.envbuild.lock"),
        symlink("usr/share", "/elsewhere"),
        Item(name="usr/share/envbuild", content=b"a file"),
    ],
    ids=lambda item: item.name,
)
def test_what_an_upper_layer_took_away_is_not_there(store: Store, lock: Lock, above: Item) -> None:
    assert embedded_lock(image(store, items(lock), [above]), store) is None


def test_a_whiteout_leaves_what_its_own_layer_brings(store: Store, lock: Lock) -> None:
    newer = replace(lock, as_of="2026-01-02")
    opaque = Item(name="usr/share/envbuild/.wh..wh..opq")
    assert embedded_lock(image(store, items(lock), [*items(newer), opaque]), store) == newer


@pytest.mark.parametrize(
    "bad",
    [
        symlink(f"{SELF_DESCRIPTION}/envbuild.lock", "/etc/shadow"),
        hardlink(f"{SELF_DESCRIPTION}/envbuild.lock", "etc/shadow"),
        Item(name=f"{SELF_DESCRIPTION}/envbuild.lock", content=b"{}"),
        Item(name=f"{SELF_DESCRIPTION}/envbuild.lock", content=b"[" * 100_000),
        Item(name=f"{SELF_DESCRIPTION}/requirements.linux-64.txt", content=b"changed"),
    ],
    ids=["symlink", "hard link", "no lock", "deep", "changed beside it"],
)
def test_what_is_no_sound_lock_is_refused(store: Store, lock: Lock, bad: Item) -> None:
    with pytest.raises(LockError, match="of the image"):
        embedded_lock(image(store, items(lock), [items(lock)[-1], bad]), store)


def test_a_file_that_is_named_and_missing_is_refused(store: Store, lock: Lock) -> None:
    without = [item for item in items(lock) if not item.name.endswith(".txt")]
    with pytest.raises(LockError, match=r"names requirements\.linux-64\.txt"):
        embedded_lock(image(store, without), store)


def test_the_lock_of_another_platform_is_refused(store: Store, lock: Lock) -> None:
    found = put_image(store, [put_layer(store, items(lock))], platform=LINUX_ARM64)
    with pytest.raises(LockError, match=r"of linux/amd64, and the image of linux/arm64"):
        embedded_lock(found, store)


def test_a_file_larger_than_any_lock_is_refused(store: Store) -> None:
    huge = Item(name=f"{SELF_DESCRIPTION}/envbuild.lock", content=bytes((64 << 20) + 1))
    with pytest.raises(LockError, match="larger than any lock"):
        embedded_lock(image(store, [huge]), store)


def test_a_damaged_layer_is_an_error_and_no_missing_lock(store: Store, lock: Lock) -> None:
    found = image(store, items(lock))
    store.blob(found.layers[0].digest).write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(LockError, match="can't be read"):
        embedded_lock(found, store)
