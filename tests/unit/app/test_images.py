"""Session by reference: which source a name means, what comes into the store, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.app.images import (
    copy_image,
    open_image,
    pull_image,
    push_image,
)
from envbuild.app.session import Session
from envbuild.errors import FetchError, UsageError
from envbuild.images.sinks.layout import LayoutSink
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.oci.manifest import OCI_INDEX, OCI_MANIFEST
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from envbuild.store.names import Names
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.registry import Registry, serve


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve() as state:
        yield state


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with make(tmp_path) as session:
        yield session


def make(root: Path, *, offline: bool = False) -> Session:
    settings = Settings(cache_dir=root / "cache", offline=offline)
    return Session(settings, Silent(), environ={"HOME": str(root)}, directory=root)


def image(store: Store, content: bytes, platform: object = LINUX_AMD64) -> Image:
    layer = put_layer(store, [Item(name="file", content=content)])
    return put_image(store, [layer], {}, platform if platform is LINUX_ARM64 else LINUX_AMD64)


def upload(registry: Registry, store: Store, made: Image, repository: str, tag: str) -> None:
    for digest in (made.config_digest, *(layer.digest for layer in made.layers)):
        registry.put_blob(store.blob(digest).read_bytes())
    registry.put_manifest(repository, tag, made.media_type, store.blob(made.digest).read_bytes())


def named(store: Store, name: str, made: Image) -> None:
    Names(store, lambda: 0.0).put(name, made.digest, [made.digest])


def test_a_short_name_is_the_stores(session: Session, store: Store) -> None:
    made = image(store, b"mine")
    named(store, "docker.io/library/train:3f2a", made)

    for reference in ("train:3f2a", f"train:3f2a@{made.digest}", f"train@{made.digest}", made.digest):
        opened = open_image(session, reference)
        assert (opened.top.digest, opened.reference) == (made.digest, reference)
        assert [each.digest for each in opened.images] == [made.digest]
        assert opened.pull() == opened.images


def test_a_name_whose_layers_went_is_not_the_stores(tmp_path: Path, store: Store) -> None:
    made = image(store, b"mine")
    named(store, "docker.io/library/train:3f2a", made)
    store.blob(made.layers[0].digest).unlink()

    with make(tmp_path, offline=True) as session, pytest.raises(FetchError) as caught:
        open_image(session, "train:3f2a")
    assert "train:3f2a: the store has no image of that name, and" in caught.value.message
    assert "offline" in caught.value.message


def test_a_registrys_name_is_the_registrys_where_it_has_it(
    session: Session, registry: Registry, store: Store, tmp_path: Path
) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    old, new = image(store, b"old"), image(elsewhere, b"new")
    named(store, f"{registry.host}/app:1", old)
    named(store, f"{registry.host}/app:2", old)
    upload(registry, elsewhere, new, "app", "1")

    assert open_image(session, f"{registry.host}/app:1").top.digest == new.digest
    assert open_image(session, f"{registry.host}/app:2").top.digest == old.digest
    with pytest.raises(FetchError, match="app:2"):
        open_image(session, f"docker://{registry.host}/app:2")


def test_offline_a_registrys_name_is_the_stores(tmp_path: Path, registry: Registry, store: Store) -> None:
    old = image(store, b"old")
    named(store, f"{registry.host}/app:1", old)

    with make(tmp_path, offline=True) as session:
        assert open_image(session, f"{registry.host}/app:1").top.digest == old.digest
    assert registry.requests == []


def test_a_pinned_name_is_not_asked_for_where_the_store_has_it(
    session: Session, registry: Registry, store: Store
) -> None:
    made = image(store, b"mine")

    assert open_image(session, f"{registry.host}/app:1@{made.digest}").top.digest == made.digest
    assert registry.requests == []


def test_to_open_brings_no_layer(session: Session, registry: Registry, store: Store, tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    made = image(elsewhere, b"there")
    upload(registry, elsewhere, made, "app", "1")

    opened = open_image(session, f"{registry.host}/app:1")
    assert not store.has_blob(made.layers[0].digest)
    opened.pull()
    assert store.blob(made.layers[0].digest).read_bytes() == registry.blobs[made.layers[0].digest]


def test_of_an_index_one_platform_or_all(session: Session, tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    one, two = image(elsewhere, b"1"), image(elsewhere, b"2", LINUX_ARM64)
    publication = put_index(elsewhere, [one, two], ["app:1"])
    LayoutSink(tmp_path / "layout", elsewhere, Silent()).publish(publication)

    opened = open_image(session, "oci:layout")
    assert [each.platform for each in opened.images] == [LINUX_AMD64, LINUX_ARM64]
    assert opened.image(LINUX_ARM64).digest == two.digest
    assert [each.digest for each in opened.pull(LINUX_ARM64)] == [two.digest]
    assert open_image(session, "oci:layout:app:1", LINUX_AMD64).top.digest == one.digest
    with pytest.raises(FetchError, match="has no image for linux/arm64, only for linux/amd64"):
        open_image(session, one.digest, LINUX_ARM64)


def test_platforms_that_are_not_linux_and_attestations_are_no_images(session: Session, store: Store) -> None:
    made = image(store, b"1")
    other = {"mediaType": OCI_MANIFEST, "digest": store.add_blob(b"{}"), "size": 2}
    mine = {"mediaType": OCI_MANIFEST, "digest": made.digest, "size": made.size}
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {**mine, "platform": {"os": "linux", "architecture": "amd64"}},
            {**other, "platform": {"os": "windows", "architecture": "amd64"}},
            {**other, "platform": {"os": "unknown", "architecture": "unknown"}},
        ],
    }

    opened = open_image(session, store.add_blob(json.dumps(content).encode()))

    assert [each.digest for each in opened.images] == [made.digest]


def test_what_is_pulled_is_kept_under_its_name(
    session: Session, registry: Registry, store: Store, tmp_path: Path
) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    made = image(elsewhere, b"there")
    upload(registry, elsewhere, made, "app", "1")
    size = sum(len(blob) for blob in registry.blobs.values())

    first = pull_image(session, f"{registry.host}/app:1", outputs=("oci:" + str(tmp_path / "out"),))
    again = pull_image(session, f"{registry.host}/app:1")

    assert first.reference == f"{registry.host}/app:1@{made.digest}"
    assert (first.fetched, first.present, again.fetched, again.present) == (size, 0, 0, size)
    assert first.published == (f"oci:{tmp_path / 'out'}",)
    kept = Names(store, lambda: 0.0).get(f"{registry.host}/app:1")
    assert kept is not None
    assert (kept.digest, kept.images) == (made.digest, (made.digest,))
    stored = [entry.image.digest for entry in ImageIndex(store, lambda: 0.0).entries()]
    assert stored == [made.digest]
    # It is no answer to a build: nobody has seen that it is what its labels say.
    assert ImageIndex(store, lambda: 0.0).get(made.lock_digest.removeprefix("sha256:")) is None


def test_a_layer_that_its_config_denies_is_refused(session: Session, store: Store) -> None:
    layer = put_layer(store, [Item(name="file")])
    lying = put_image(
        store,
        [
            type(layer)(
                digest=layer.digest,
                diff_id=digest_bytes(b"other"),
                size=layer.size,
                media_type=layer.media_type,
            )
        ],
        {},
        LINUX_AMD64,
    )

    with pytest.raises(FetchError, match="but its config says"):
        pull_image(session, lying.digest)
    assert ImageIndex(store, lambda: 0.0).entries() == ()


def test_a_push_takes_the_stores_own_before_the_registrys(
    session: Session, registry: Registry, store: Store, tmp_path: Path
) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    old, new = image(elsewhere, b"old"), image(store, b"new")
    upload(registry, elsewhere, old, "app", "1")
    named(store, f"{registry.host}/app:1", new)

    (done,) = push_image(session, f"{registry.host}/app:1", [f"{registry.host}/app"])

    assert done.reference == f"{registry.host}/app:1@{new.digest}"
    assert registry.manifests["app", "1"] == (new.media_type, store.blob(new.digest).read_bytes())


def test_an_image_without_a_tag_gets_that_of_its_lock_or_must_be_given_one(
    session: Session, registry: Registry, store: Store
) -> None:
    layer = put_layer(store, [Item(name="file")])
    lock = digest_bytes(b"lock")
    ours = put_image(store, [layer], {"Labels": {"dev.envbuild.lock": lock}}, LINUX_AMD64)
    other = put_image(store, [layer], {}, LINUX_AMD64)

    (done,) = push_image(session, ours.digest, [f"{registry.host}/app"])
    assert done.reference == f"{registry.host}/app:{lock[7:19]}@{ours.digest}"
    with pytest.raises(UsageError, match="no tag of its own"):
        push_image(session, other.digest, [f"{registry.host}/app"])


def test_an_archive_of_one_platform_keeps_no_index(session: Session, store: Store, tmp_path: Path) -> None:
    made = image(store, b"1")
    index = put_index(store, [made], []).digest

    done = copy_image(session, index, f"docker-archive:{tmp_path / 'out.tar'}:app:1")

    assert done.digest == made.digest
    assert open_image(session, "docker-archive:out.tar:app:1").top.digest == made.digest


def test_layouts_of_names_are_added_to(session: Session, store: Store, tmp_path: Path) -> None:
    one, two = image(store, b"1"), image(store, b"2")
    copy_image(session, one.digest, "oci:out:app:1")
    copy_image(session, two.digest, "oci:out:app:2")

    assert open_image(session, "oci:out:app:1").top.digest == one.digest
    assert open_image(session, "oci:out:app:2").top.digest == two.digest


def test_what_is_no_manifest_is_refused(session: Session, store: Store) -> None:
    made = image(store, b"1")
    for digest in (made.config_digest, made.layers[0].digest):
        with pytest.raises(FetchError, match=f"{digest} is no manifest or index of a known type"):
            open_image(session, digest)


def test_a_layer_that_no_registry_holds_is_neither_pulled_nor_pushed(
    session: Session, registry: Registry, store: Store
) -> None:
    config = store.add_blob(b"{}")
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/x", "digest": config, "size": 2},
        "layers": [{"mediaType": foreign, "digest": digest_bytes(b"windows"), "size": 7}],
    }
    digest = store.add_blob(json.dumps(content).encode())

    (done,) = push_image(session, digest, [f"{registry.host}/app:1"])

    assert done.digest == digest
    assert list(registry.blobs) == [config]
