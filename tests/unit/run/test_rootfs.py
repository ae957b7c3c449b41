from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import RunError
from envbuild.oci.image import Image
from envbuild.run.rootfs import held_rootfs, image_rootfs
from envbuild.store.content import Store
from envbuild.store.leases import in_use
from envbuild.store.prune import prune
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
    assert [path.name for path in (store.root / "rootfs").iterdir()] == [image.digest[7:]]
    assert list((store.root / "scratch").iterdir()) == []


def test_a_tree_is_held_from_before_it_is_unpacked_until_the_context_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    image = put_image(store, [put_layer(store, [Item(name="f", content=b"1")])])
    digests = (image.digest, image.config_digest, image.layers[0].digest)
    names = {f"rootfs/{image.digest[7:]}", *(f"blobs/sha256/{digest[7:]}" for digest in digests)}

    def unpack(image: Image, store: Store) -> Path:
        with in_use(store) as busy:
            assert (set(busy.names), busy.since) == (names, None)
        assert prune(store).removed == ()
        return image_rootfs(image, store)

    monkeypatch.setattr("envbuild.run.rootfs.image_rootfs", unpack)
    for _ in range(2):
        with held_rootfs(image, store) as root:
            assert prune(store, keep_last=0, max_bytes=0).removed == ()
            assert (root / "f").read_bytes() == b"1"
    assert prune(store).trees == (f"rootfs/{image.digest[7:]}",)
    assert not root.exists()
