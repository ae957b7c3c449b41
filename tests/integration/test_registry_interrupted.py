"""Pushes and pulls that break at every single request: they end right, and no tag is ever wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from envbuild.errors import EnvbuildError, PublishError
from envbuild.images.sinks.registry import RegistrySink
from envbuild.oci.image import ImageSet
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.store.content import Store
from tests.fakes import registry_server
from tests.fakes.fault_proxy import CUTS, Fault, FaultProxy, proxy
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.registry_server import RegistryServer, needs_registry
from tests.integration.registry import blobs, make_client, pull, same_blobs, small_image

pytestmark = [pytest.mark.slow, needs_registry()]

MOST = 80
"""Requests that pushing the image of these tests may take."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def way(server: RegistryServer) -> Iterator[FaultProxy]:
    with proxy(server.host) as running:
        yield running


def both(store: Store) -> ImageSet:
    """An index of two platforms that share a layer."""
    shared = put_layer(store, [Item(name="shared", content=b"shared" * 100)])
    images = [
        put_image(store, [shared, put_layer(store, [Item(name=name)])], platform=Platform("linux", name))
        for name in ("amd64", "arm64")
    ]
    return put_index(store, images, ())


def push(root: Path, store: Store, publication: ImageSet, host: str, repository: str, *tags: str) -> str:
    with make_client(root, store) as client:
        reference = Reference.parse(f"{host}/{repository}")
        sink = RegistrySink(remote=client, store=store, repository=reference, tags=tags or ("1",))
        return sink.publish(publication).digest


@pytest.mark.parametrize("kind", CUTS)
def test_one_cut_is_made_good_by_the_very_same_push(
    server: RegistryServer, way: FaultProxy, store: Store, tmp_path: Path, kind: str
) -> None:
    image = small_image(store)
    publication = ImageSet(images=(image,), names=())
    for number in count():
        repository = f"once/{kind.replace(' ', '-')}/{number}"
        way.break_next(Fault(kind=kind, number=number))
        assert push(tmp_path, store, publication, way.host, repository) == image.digest
        assert server.manifest(repository, "1") == store.blob(image.digest).read_bytes()
        assert server.complete(repository, "1")
        if not any(seen.fault for seen in way.requests):
            assert 9 <= number <= MOST
            return


def test_a_registry_that_is_gone_from_some_request_on(
    server: RegistryServer, way: FaultProxy, store: Store, tmp_path: Path
) -> None:
    """What the tag named before, it names until all of the new is there; the next push goes on."""
    old = ImageSet(images=(small_image(store, 1, (500, 90)),), names=())
    new = both(store)
    contents = {each.digest: store.blob(each.digest).read_bytes() for each in (old, new)}
    for number in count():
        repository = f"gone/{number}"
        push(tmp_path, store, old, server.host, repository)
        # Of each kind every third; the tests above have all of them at every request.
        kind = ("cut before", "cut in request", "cut after")[number % 3]
        way.break_next(Fault(kind=kind, since=number, times=None))
        failed = ""
        try:
            push(tmp_path, store, new, way.host, repository)
        except PublishError as error:
            failed = error.message
        assert server.complete(repository, "1")
        if not any(seen.fault for seen in way.requests):
            assert failed == ""
            assert 12 <= number <= MOST
            assert server.manifest(repository, "1") == contents[new.digest]
            return
        assert f"the push to {way.host}/{repository} failed" in failed
        # Where only the last answer was lost, the tag may have moved.
        assert server.manifest(repository, "1") in contents.values()
        way.break_next()
        assert push(tmp_path, store, new, way.host, repository) == new.digest
        assert server.manifest(repository, "1") == contents[new.digest]
        assert server.complete(repository, "1")


@pytest.mark.parametrize("kind", CUTS)
def test_one_cut_is_made_good_by_the_very_same_pull(
    server: RegistryServer, way: FaultProxy, store: Store, tmp_path: Path, kind: str
) -> None:
    image = small_image(store, 2)
    push(tmp_path, store, ImageSet(images=(image,), names=()), server.host, "pulled")
    for number in count():
        target = Store(tmp_path / f"pulled-{number}")
        way.break_next(Fault(kind=kind, number=number))
        with make_client(tmp_path, target) as client:
            pull(client, image, f"{way.host}/pulled:1", store)
        assert same_blobs(store, target, image)
        assert list(target.directory("scratch").iterdir()) == []
        if not any(seen.fault for seen in way.requests):
            assert number == 5
            return


@pytest.mark.parametrize("kind", CUTS)
def test_a_pull_that_fails_leaves_only_what_is_right(
    server: RegistryServer, way: FaultProxy, store: Store, tmp_path: Path, kind: str
) -> None:
    image = small_image(store, 3)
    push(tmp_path, store, ImageSet(images=(image,), names=()), server.host, "failed")
    for number in range(5):
        target = Store(tmp_path / f"target-{number}")
        way.break_next(Fault(kind=kind, since=number, times=None))
        with make_client(tmp_path, target) as client, pytest.raises(EnvbuildError):
            pull(client, image, f"{way.host}/failed:1", store)
        for path in target.directory("blobs/sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert list(target.directory("scratch").iterdir()) == []
        way.break_next()
        with make_client(tmp_path, target) as client:
            pull(client, image, f"{way.host}/failed:1", store)
        assert same_blobs(store, target, image)


def test_what_an_interrupted_push_sent_is_not_sent_again(
    way: FaultProxy, store: Store, tmp_path: Path
) -> None:
    image = small_image(store, 4)
    publication = ImageSet(images=(image,), names=())
    way.break_next(Fault(kind="cut before", method="PUT", path="/manifests/", times=None))
    with pytest.raises(PublishError):
        push(tmp_path, store, publication, way.host, "again")
    way.break_next()
    push(tmp_path, store, publication, way.host, "again")
    assert [seen for seen in way.requests if seen.method in ("POST", "PATCH")] == []
    assert sum(seen.body for seen in way.requests) == image.size


def test_a_download_goes_on_where_it_broke(
    server: RegistryServer, way: FaultProxy, store: Store, tmp_path: Path
) -> None:
    """docker-registry can't do that with uploads: it forgets what came of one that broke off."""
    image = small_image(store, 6, sizes=(4_000_000,))
    (layer,) = image.layers
    push(tmp_path, store, ImageSet(images=(image,), names=()), server.host, "large")
    target = Store(tmp_path / "target")
    way.break_next(*[Fault(kind="cut in answer", path=layer.digest)] * 2)
    with make_client(tmp_path, target) as client:
        pull(client, image, f"{way.host}/large:1", store)
    assert same_blobs(store, target, image)
    ranges = [seen.headers.get("range", "bytes=0-") for seen in way.requests if layer.digest in seen.path]
    starts = [int(range_.removeprefix("bytes=").removesuffix("-")) for range_ in ranges]
    assert starts[0] == 0
    # What came last may be lost, up to a buffer's size.
    assert layer.size // 2 - (1 << 20) <= starts[1] <= layer.size // 2 < starts[2] < layer.size


@pytest.mark.parametrize("kind", CUTS)
def test_one_cut_of_a_push_that_mounts(
    server: RegistryServer, way: FaultProxy, store: Store, tmp_path: Path, kind: str
) -> None:
    """What another repository of the registry has is never sent, but where the answer to that was lost."""
    image = small_image(store, 7, sizes=(3_000, 400))
    publication = ImageSet(images=(image,), names=())
    lender = Reference.parse(f"{way.host}/lender")
    push(tmp_path, store, publication, server.host, "lender")
    for number in count():
        way.break_next(Fault(kind=kind, number=number))
        name = f"mounted/{kind.replace(' ', '-')}/{number}"
        with make_client(tmp_path, store) as client:
            done = RegistrySink(
                remote=client,
                store=store,
                repository=Reference.parse(f"{way.host}/{name}"),
                tags=("1",),
                near=(lender,),
            ).publish(publication)
        assert server.complete(name, "1")
        assert done.sent + done.mounted + done.present == sum(blob.size for blob in blobs(store, image))
        if not any(seen.fault for seen in way.requests):
            assert (done.sent, done.present) == (0, 0)
            assert sum(seen.body for seen in way.requests) == image.size
            assert number >= 7
            return


def test_a_registry_that_is_killed_and_comes_back(store: Store, tmp_path: Path) -> None:
    image = small_image(store, 5, sizes=(2_000_000, 1_000_000, 500))
    publication = ImageSet(images=(image,), names=())
    with registry_server.serve(tmp_path / "registry") as server, proxy(server.host) as way:
        way.faults = [Fault(kind="none", method="PUT", path="uploads", first=server.kill)]
        with pytest.raises(PublishError) as error:
            push(tmp_path, store, publication, way.host, "app")
        assert way.host in error.value.message
        with pytest.raises(PublishError, match="can't be reached"):
            push(tmp_path, store, publication, server.host, "app")
        server.start()
        assert server.manifest("app", "1") is None
        assert push(tmp_path, store, publication, way.host, "app") == image.digest
        assert server.complete("app", "1")
