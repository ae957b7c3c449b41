from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import RunError
from envbuild.run.rootfs import image_rootfs
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, put_image, put_layer


def test_an_image_is_unpacked_once_and_only_if_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = put_image(store, [put_layer(store, [directory("d"), Item(name="d/f", content=b"1")])])
    root = image_rootfs(image, store)
    assert root == store.root / "rootfs" / image.digest[7:]
    assert (root / "d/f").read_bytes() == b"1"
    inode = root.stat().st_ino
    assert image_rootfs(image, store).stat().st_ino == inode
    bad = put_image(store, [put_layer(store, [Item(name="../f")])])
    with pytest.raises(RunError):
        image_rootfs(bad, store)
    assert [each.name for each in (store.root / "rootfs").iterdir()] == [image.digest[7:]]
    assert list((store.root / "scratch").iterdir()) == []
