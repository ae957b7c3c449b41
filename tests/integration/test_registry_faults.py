"""What a registry, or the way to it, may do wrong: it is tried again or said, and nothing wrong is kept."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.errors import EnvbuildError, FetchError
from envbuild.oci.manifest import OCI_MANIFEST
from envbuild.oci.reference import Reference
from envbuild.store.content import Store
from tests.fakes import registry_server, token_server
from tests.fakes.fault_proxy import Fault, FaultProxy, proxy, tunnel
from tests.fakes.registry_server import WRITER, RegistryServer, needs_registry
from tests.fakes.token_server import TokenServer
from tests.integration.driver import tmpfs
from tests.integration.registry import blobs, make_client, pull, push, same_blobs, small_image

pytestmark = [needs_registry()]

TRIES = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def way(server: RegistryServer) -> Iterator[FaultProxy]:
    with proxy(server.host) as running:
        yield running


REQUESTS = (
    ("HEAD", "/blobs/sha256"),
    ("POST", "/blobs/uploads/"),
    ("PUT", "/blobs/uploads/"),
    ("PUT", "/manifests/"),
)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_registry_is_asked_again(
    way: FaultProxy, server: RegistryServer, store: Store, tmp_path: Path, status: int
) -> None:
    """Each request of a push once, all in one push; the registry says how long to wait."""
    image = small_image(store)
    slept: list[float] = []
    way.faults = [
        Fault(kind="status", method=method, path=path, status=status, headers={"Retry-After": "7"})
        for method, path in REQUESTS
    ]
    with make_client(tmp_path, store, slept=slept) as client:
        push(client, store, image, f"{way.host}/busy{status}:1")
    assert [seen.status for seen in way.requests].count(status) == len(REQUESTS)
    assert slept == [7.0] * len(REQUESTS)
    assert server.complete(f"busy{status}", "1")


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_a_registry_that_stays_busy_ends_the_push(
    way: FaultProxy, server: RegistryServer, store: Store, tmp_path: Path, status: int, method: str, path: str
) -> None:
    image = small_image(store)
    way.faults = [Fault(kind="status", method=method, path=path, status=status, times=None)]
    slept: list[float] = []
    repository = f"broken{status}/{method.lower()}{len(path)}"
    with make_client(tmp_path, store, slept=slept) as client:
        with pytest.raises(FetchError) as error:
            push(client, store, image, f"{way.host}/{repository}:1")
        assert f"HTTP {status}" in error.value.message
        assert way.host in error.value.message
        # Several blobs may be under way at once.
        assert TRIES <= len([seen for seen in way.requests if seen.fault]) <= TRIES * 4
        assert sum(slept) < 60
        assert server.manifest(repository, "1") is None
        way.break_next()
        push(client, store, image, f"{way.host}/{repository}:1")
    assert server.complete(repository, "1")


@pytest.mark.parametrize("status", [400, 403, 405, 413])
@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_a_refusal_is_not_asked_again(
    way: FaultProxy, store: Store, tmp_path: Path, status: int, method: str, path: str
) -> None:
    image = small_image(store, sizes=(100,))
    way.faults = [Fault(kind="status", method=method, path=path, status=status, times=None)]
    slept: list[float] = []
    with make_client(tmp_path, store, slept=slept) as client, pytest.raises(FetchError) as error:
        push(client, store, image, f"{way.host}/refused{status}/{method.lower()}{len(path)}:1")
    assert f"HTTP {status}" in error.value.message
    assert slept == []


def test_a_refusal_before_all_was_sent_is_heard(way: FaultProxy, store: Store, tmp_path: Path) -> None:
    """Not the broken connection, but why it was broken."""
    image = small_image(store, 1, sizes=(8_000_000,))
    way.faults = [Fault(kind="status", method="PUT", path="uploads", status=413, early=True, times=None)]
    with make_client(tmp_path, store) as client, pytest.raises(FetchError, match="HTTP 413"):
        push(client, store, image, f"{way.host}/early:1")


def test_a_damaged_upload_is_never_taken(
    way: FaultProxy, server: RegistryServer, store: Store, tmp_path: Path
) -> None:
    image = small_image(store, 2)
    way.faults = [Fault(kind="corrupt request", method="PUT", path="/uploads/", times=None)]
    with make_client(tmp_path, store) as client:
        with pytest.raises(FetchError, match="HTTP 400"):
            push(client, store, image, f"{way.host}/damaged:1")
        assert server.manifest("damaged", "1") is None
        way.break_next(Fault(kind="corrupt request", method="PUT", path="/manifests/", times=None))
        with pytest.raises(FetchError):
            push(client, store, image, f"{way.host}/damaged:1")
        assert server.manifest("damaged", "1") is None
        way.break_next()
        push(client, store, image, f"{way.host}/damaged:1")
    assert server.complete("damaged", "1")


@pytest.fixture
def pushed(server: RegistryServer, tmp_path: Path) -> Store:
    """Holds what the registry has as ``pulled:1``."""
    store = Store(tmp_path / "pushed")
    with make_client(tmp_path, store) as client:
        push(client, store, small_image(store, 3), f"{server.host}/pulled:1")
    return store


@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
def test_damaged_bytes_never_reach_the_store(
    way: FaultProxy, pushed: Store, store: Store, tmp_path: Path, path: str
) -> None:
    image = small_image(pushed, 3)
    way.faults = [Fault(kind="corrupt answer", method="GET", path=path, times=None)]
    with make_client(tmp_path, store) as client:
        with pytest.raises(FetchError, match=r"digest sha256:[0-9a-f]{64}"):
            pull(client, image, f"{way.host}/pulled:1", pushed)
        wrong = {blob.digest for blob in blobs(pushed, image)} if path == "/blobs/" else {image.digest}
        assert not any(store.has_blob(each) for each in wrong)
        way.break_next()
        pull(client, image, f"{way.host}/pulled:1", pushed)
    assert same_blobs(pushed, store, image)
    assert len(list(store.directory("blobs/sha256").iterdir())) == 5


@pytest.mark.parametrize("amount", [5, -5])
@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
def test_a_wrong_length_is_noticed(
    way: FaultProxy, pushed: Store, store: Store, tmp_path: Path, path: str, amount: int
) -> None:
    image = small_image(pushed, 3)
    way.faults = [Fault(kind="length", method="GET", path=path, amount=amount, times=None)]
    with make_client(tmp_path, store) as client:
        with pytest.raises(FetchError):
            pull(client, image, f"{way.host}/pulled:1", pushed)
        way.break_next()
        pull(client, image, f"{way.host}/pulled:1", pushed)
    assert same_blobs(pushed, store, image)
    assert len(list(store.directory("blobs/sha256").iterdir())) == 5


def test_another_digest_in_the_header_is_not_believed(
    way: FaultProxy, pushed: Store, store: Store, tmp_path: Path
) -> None:
    image = small_image(pushed, 3)
    wrong = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    way.faults = [Fault(kind="header", path="/manifests/", headers=wrong, times=None)]
    with make_client(tmp_path, store) as client:
        with pytest.raises(FetchError, match=r"says sha256:0{64} but sent bytes with the digest"):
            pull(client, image, f"{way.host}/pulled:1", pushed)
        assert not store.has_blob(image.digest)
    with make_client(tmp_path, pushed) as client, pytest.raises(FetchError, match=r"sha256:0{64}"):
        push(client, pushed, image, f"{way.host}/headers:1")


def test_no_digest_in_the_header_is_no_reason_to_stop(way: FaultProxy, pushed: Store, tmp_path: Path) -> None:
    image = small_image(pushed, 3)
    gone = {"Docker-Content-Digest": ""}
    way.faults = [Fault(kind="header", path="/v2/", headers=gone, times=None)]
    with make_client(tmp_path, pushed) as client:
        push(client, pushed, image, f"{way.host}/headless:1")
        push(client, pushed, image, f"{way.host}/headless:1")


def test_a_slow_registry_is_waited_for(way: FaultProxy, pushed: Store, store: Store, tmp_path: Path) -> None:
    image = small_image(pushed, 3)
    way.faults = [Fault(kind="slow", times=None, amount=5)]
    with make_client(tmp_path, store) as client:
        pull(client, image, f"{way.host}/pulled:1", pushed)
    assert same_blobs(pushed, store, image)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """A way to a registry with passwords, and one to another without any that has the same storage."""
    with (
        registry_server.serve(tmp_path / "registry", htpasswd=True) as guarded,
        registry_server.serve(tmp_path / "registry") as free,
        proxy(guarded.host) as first,
        proxy(free.host) as second,
    ):
        yield first, second


def authorized(way: FaultProxy) -> set[bool]:
    return {"authorization" in seen.headers for seen in way.requests}


def test_uploads_elsewhere_are_sent_without_credentials(
    stores: tuple[FaultProxy, FaultProxy], store: Store, tmp_path: Path
) -> None:
    guarded, free = stores
    image = small_image(store, 4)
    guarded.faults = [Fault(kind="move", method="POST", elsewhere=free.host, times=None)]
    with make_client(tmp_path, store, {guarded.host: WRITER}) as client:
        push(client, store, image, f"{guarded.host}/moved:1")
    assert authorized(free) == {False}
    assert sum(seen.body for seen in free.requests) == sum(blob.size for blob in blobs(store, image))
    assert True in authorized(guarded)


@pytest.mark.parametrize("status", [302, 307, 308])
def test_downloads_elsewhere_are_asked_for_without_credentials(
    stores: tuple[FaultProxy, FaultProxy], store: Store, tmp_path: Path, status: int
) -> None:
    guarded, free = stores
    image = small_image(store, 5)
    target = Store(tmp_path / "target")
    with make_client(tmp_path, store, {guarded.host: WRITER}) as client:
        push(client, store, image, f"{guarded.host}/away:1")
    guarded.break_next(
        *(
            Fault(
                kind="status",
                status=status,
                method="GET",
                path=blob.digest,
                headers={"Location": f"http://{free.host}/v2/away/blobs/{blob.digest}"},
            )
            for blob in blobs(store, image)
        )
    )
    with make_client(tmp_path, target, {guarded.host: WRITER}) as client:
        pull(client, image, f"{guarded.host}/away:1", store)
    assert same_blobs(store, target, image)
    assert len(free.requests) == 4
    assert authorized(free) == {False}


def test_a_circle_of_redirects_ends(way: FaultProxy, pushed: Store, store: Store, tmp_path: Path) -> None:
    image = small_image(pushed, 3)
    circle = {"Location": f"http://{way.host}/v2/pulled/blobs/x"}
    way.faults = [Fault(kind="status", path="/blobs/", status=307, headers=circle, times=None)]
    with make_client(tmp_path, store) as client, pytest.raises(FetchError, match="redirects"):
        client.blob(Reference.parse(f"{way.host}/pulled:1"), image.config_digest, 1)
    assert len(way.requests) < 10


def test_http_is_spoken_to_this_machine_alone(server: RegistryServer, store: Store, tmp_path: Path) -> None:
    """A name that leads here is asked over TLS, and who doesn't understand it is named."""
    with tunnel(server.host) as led:
        proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), f"http://{led.host}")
        with make_client(tmp_path, store, environ=proxies) as client, pytest.raises(FetchError) as error:
            push(client, store, small_image(store, sizes=(10,)), "registry.example:5000/app:1")
        assert {place for place, _ in led.asked} == {"registry.example:5000"}
    assert "registry.example:5000" in error.value.message
    assert server.manifest("app", "1") is None


def test_one_image_is_pushed_by_four_at_once(server: RegistryServer, store: Store, tmp_path: Path) -> None:
    image = small_image(store, 6)
    failed: list[BaseException] = []

    def one() -> None:
        try:
            with make_client(tmp_path, store) as client:
                push(client, store, image, f"{server.host}/crowd:1")
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert server.complete("crowd", "1")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount file systems")
def test_a_registry_whose_disk_is_full(store: Store, tmp_path: Path) -> None:
    image = small_image(store, 7, sizes=(1_500_000, 100))
    with (
        tmpfs(tmp_path / "small", "1m") as disk,
        registry_server.serve(disk) as server,
        make_client(tmp_path, store) as client,
    ):
        with pytest.raises(EnvbuildError, match="HTTP 5"):
            push(client, store, image, f"{server.host}/full:1")
        assert server.manifest("full", "1") is None
        # What came of the blob is still there.
        shutil.rmtree(server.storage / "docker/registry/v2/repositories/full/_uploads")
        small = small_image(store, 8, sizes=(100,))
        push(client, store, small, f"{server.host}/full:1")
        assert server.complete("full", "1")


def test_a_token_server_that_is_busy_or_away(store: Store, tmp_path: Path) -> None:
    image = small_image(store, 6)
    state = TokenServer(users={WRITER[0]: (WRITER[1], frozenset({"pull", "push"}))})
    with (
        token_server.serve(state) as tokens,
        registry_server.serve(tmp_path / "registry", tokens=tokens) as server,
        make_client(tmp_path, store, {server.host: WRITER}) as client,
    ):
        tokens.faults = [503, 429]
        push(client, store, image, f"{server.host}/busy:1")
        tokens.faults = [500] * 20
        with pytest.raises(FetchError, match=r"127\.0\.0\.1.*500"):
            push(client, store, image, f"{server.host}/other:2")
        assert len(tokens.faults) >= 10


def test_a_registry_that_sends_no_place_to_upload(way: FaultProxy, store: Store, tmp_path: Path) -> None:
    image = small_image(store, 9, sizes=(10,))
    for place in ("", "http://", "file:///etc/passwd", "http://registry.example/v2/", "//[", "\tx"):
        way.break_next(Fault(kind="header", method="POST", headers={"Location": place}, times=None))
        with make_client(tmp_path, store) as client, pytest.raises(FetchError):
            push(client, store, image, f"{way.host}/nowhere:1")


def test_a_manifest_that_the_registry_refuses(server: RegistryServer, store: Store, tmp_path: Path) -> None:
    image = small_image(store, 10)
    content = store.blob(image.digest).read_bytes()
    with make_client(tmp_path, store) as client, pytest.raises(FetchError, match="HTTP 400"):
        client.push_manifest(Reference.parse(f"{server.host}/blobless:1"), content, OCI_MANIFEST)
