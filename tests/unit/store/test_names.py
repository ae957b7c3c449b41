"""Names of the store: what they stand for, damaged records, and what goes with the images."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from envbuild.store.leases import Lease
from envbuild.store.names import NamedImage, Names
from envbuild.store.prune import prune
from tests.fakes.image import Item, put_image, put_index, put_layer

NAME = "docker.io/library/train:3f2ab4c5d6e7"
ONE, TWO = digest_bytes(b"1"), digest_bytes(b"2")


def clock() -> float:
    return 1000.0


def image(store: Store, content: bytes) -> Image:
    return put_image(store, [put_layer(store, [Item(name="file", content=content)])])


def kept(store: Store, content: bytes, used: float = 1000.0) -> Image:
    made = image(store, content)
    ImageIndex(store, lambda: used).put(digest_bytes(content).removeprefix("sha256:"), made)
    return made


def test_a_name_stands_for_what_was_put_last(store: Store) -> None:
    names = Names(store, clock)
    names.put(NAME, ONE, [ONE])
    names.put(NAME, TWO, [ONE, ONE], [TWO])

    assert names.get(NAME) == NamedImage(name=NAME, digest=TWO, images=(ONE,), others=(TWO,))
    assert names.entries() == (names.get(NAME),)
    assert names.get("docker.io/library/train:other") is None


def test_a_use_is_noted(store: Store) -> None:
    names = Names(store, clock)
    names.put(NAME, ONE, [ONE])
    names.get(NAME)

    assert names.path(NAME).stat().st_mtime == 1000.0


def test_no_name_leads_out_of_the_directory(store: Store) -> None:
    names = Names(store, clock)
    names.put("../../escape:1", ONE, [ONE])

    assert names.path("../../escape:1").parent == store.root / "names"
    assert names.get("../../escape:1") is not None


def test_a_damaged_record_is_none(store: Store) -> None:
    names = Names(store, clock)
    names.put(NAME, ONE, [ONE])
    path = names.path(NAME)
    path.write_bytes(path.read_bytes().replace(b"train", b"other"))

    assert names.get(NAME) is None
    assert names.entries() == ()


def test_a_record_under_another_names_file_is_none(store: Store) -> None:
    names = Names(store, clock)
    names.put(NAME, ONE, [ONE])
    names.path(NAME).rename(names.path("docker.io/library/other:1"))

    assert names.get("docker.io/library/other:1") is None
    assert names.entries() == ()


def test_several_may_write_at_once(store: Store) -> None:
    names = Names(store, clock)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: names.put(NAME, digest_bytes(b"%d" % number), [ONE]), range(50)))

    found = names.get(NAME)
    assert found is not None
    assert found.digest in {digest_bytes(b"%d" % number) for number in range(50)}


def test_prune_forgets_the_name_with_the_image(store: Store) -> None:
    names = Names(store, clock)
    old, new = kept(store, b"old", 1.0), kept(store, b"new", 2.0)
    names.put("docker.io/library/old:1", old.digest, [old.digest])
    names.put("docker.io/library/new:1", new.digest, [new.digest])

    prune(store, clock=clock, keep_last=1)

    assert [entry.name for entry in names.entries()] == ["docker.io/library/new:1"]


def test_a_dry_run_forgets_no_name(store: Store) -> None:
    names = Names(store, clock)
    old = kept(store, b"old")
    names.put(NAME, old.digest, [old.digest])

    prune(store, clock=clock, keep_last=0, dry_run=True)

    assert names.get(NAME) is not None


def test_an_index_stays_while_all_its_images_do(store: Store) -> None:
    names = Names(store, clock)
    one, two = kept(store, b"one", 1.0), kept(store, b"two", 2.0)
    publication = put_index(store, [one, two], [])
    attestation = store.add_blob(b"{}")
    names.put(NAME, publication.digest, [one.digest, two.digest], [publication.digest, attestation])

    prune(store, clock=clock)
    assert store.has_blob(publication.digest)
    assert store.has_blob(attestation)

    prune(store, clock=clock, keep_last=1)
    assert not store.has_blob(publication.digest)
    assert not store.has_blob(attestation)
    assert names.entries() == ()


def test_a_name_that_a_running_build_gave_stays(store: Store) -> None:
    names = Names(store, clock)
    with Lease(store):
        names.put(NAME, ONE, [ONE])
        prune(store, clock=clock, keep_last=0)
        assert names.get(NAME) is not None
    os.utime(names.path(NAME), (0, 0))

    prune(store, clock=clock, keep_last=0)
    assert names.get(NAME) is None
