"""Blobs into a registry: asked for, mounted, sent as a whole, and what becomes of an upload that breaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest

from envbuild.errors import FetchError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_LAYER_GZIP, Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Silent, Task
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.base import Pushed
from envbuild.registry.client import RegistryClient, RegistryOptions
from envbuild.store.content import Store
from tests.fakes.registry import Registry, serve

LARGE = bytes(range(256)) * (9 << 12)
"""9 MiB."""


@dataclass
class Told(Silent):
    """What a progress display is told, in bytes."""

    amounts: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        return _Told(self)


@dataclass
class _Told:
    told: Told

    def advance(self, amount: int) -> None:
        with self.told.lock:
            self.told.amounts.append(amount)

    def __enter__(self) -> _Told:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def client(store: Store, tmp_path: Path, told: Told) -> Iterator[RegistryClient]:
    environ = {"HOME": str(tmp_path)}
    with RegistryClient(
        store,
        told,
        RegistryCredentials(environ),
        sleep=lambda seconds: None,
        environ=environ,
        options=RegistryOptions(certificates=()),
    ) as found:
        yield found


def put(store: Store, *contents: bytes) -> list[Descriptor]:
    return [
        Descriptor(digest=store.add_blob(each), size=len(each), media_type=OCI_LAYER_GZIP)
        for each in contents
    ]


def reference(registry: Registry, name: str = "app") -> Reference:
    return Reference.parse(f"{registry.host}/{name}:1")


def methods(registry: Registry) -> list[str]:
    return [method for method, _, _ in registry.requests]


def test_what_is_missing_is_sent_once_and_as_a_whole(
    registry: Registry, store: Store, client: RegistryClient, told: Told
) -> None:
    registry.put_blob(b"there")
    blobs = put(store, b"there", b"missing", b"missing", LARGE)
    assert client.push_blobs(reference(registry), blobs) == Pushed(sent=7 + len(LARGE), present=5)
    assert registry.blobs[digest_bytes(LARGE)] == LARGE
    assert registry.blobs[digest_bytes(b"missing")] == b"missing"
    assert sorted(methods(registry)) == ["HEAD"] * 3 + ["POST"] * 2 + ["PUT"] * 2
    assert sum(told.amounts) == 7 + len(LARGE)


def test_a_blob_is_mounted_from_another_repository(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    (blob,) = put(store, b"lent")
    registry.lent["base/b", blob.digest] = b"lent"
    lenders = [
        Reference.parse("elsewhere.example/base/b:1"),
        reference(registry),
        reference(registry, "base/b"),
    ]
    assert client.push_blobs(reference(registry), [blob], mount_from=lenders) == Pushed(mounted=4)
    assert registry.paths("POST") == [
        f"/v2/app/blobs/uploads/?mount={blob.digest.replace(':', '%3A')}&from=base%2Fb"
    ]


def test_the_upload_that_a_failed_mount_begins_is_used(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    blobs = put(store, b"not lent")
    lenders = [reference(registry, "base/b")]
    assert client.push_blobs(reference(registry), blobs, mount_from=lenders) == Pushed(sent=8)
    assert methods(registry) == ["HEAD", "POST", "PUT"]


def test_a_registry_that_refuses_mounts_is_sent_the_blob(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    blobs = put(store, b"not lent")
    registry.faults = [404, 403]
    lenders = [reference(registry, "base/b")]
    assert client.push_blobs(reference(registry), blobs, mount_from=lenders) == Pushed(sent=8)
    assert methods(registry) == ["HEAD", "POST", "POST", "PUT"]


def test_a_damaged_file_is_never_published(registry: Registry, store: Store, client: RegistryClient) -> None:
    (blob,) = put(store, LARGE)
    path = store.blob(blob.digest)
    path.write_bytes(LARGE[:-1] + b"!")
    with pytest.raises(FetchError, match="its file in the store is damaged") as caught:
        client.push_blobs(reference(registry), [blob])
    assert blob.digest in caught.value.message
    assert registry.blobs == {}
    assert path.exists()
    path.write_bytes(LARGE[:-1])
    with pytest.raises(FetchError, match="damaged"):
        client.push_blobs(reference(registry), [blob])
    path.unlink()
    with pytest.raises(FetchError, match="not in the store"):
        client.push_blobs(reference(registry), [blob])
    assert registry.blobs == {}


def test_only_the_rest_of_a_broken_upload_is_sent(
    registry: Registry, store: Store, client: RegistryClient, told: Told
) -> None:
    registry.cut_after = [3 << 20]
    blobs = put(store, LARGE)
    assert client.push_blobs(reference(registry), blobs) == Pushed(sent=len(LARGE))
    assert registry.blobs[blobs[0].digest] == LARGE
    assert methods(registry) == ["HEAD", "POST", "PUT", "HEAD", "GET", "PATCH", "PUT"]
    spans = [headers.get("content-range") for method, _, headers in registry.requests if method == "PATCH"]
    assert spans == [f"{3 << 20}-{len(LARGE) - 1}"]
    assert sum(told.amounts) == len(LARGE)


def test_an_upload_that_breaks_three_times_is_an_error(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    registry.cut_after = [10, 10, 10]
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:\d+ can't be reached"):
        client.push_blobs(reference(registry), put(store, b"x" * 1000))
    assert registry.blobs == {}


def test_a_request_that_is_too_large_goes_in_parts(
    registry: Registry, store: Store, client: RegistryClient, told: Told
) -> None:
    registry.largest = 5 << 20
    blobs = put(store, LARGE)
    assert client.push_blobs(reference(registry), blobs) == Pushed(sent=len(LARGE))
    assert registry.blobs[blobs[0].digest] == LARGE
    spans = [headers["content-range"] for method, _, headers in registry.requests if method == "PATCH"]
    part = 4 << 20
    assert spans[-3:] == [
        f"0-{part - 1}",
        f"{part}-{2 * part - 1}",
        f"{2 * part}-{len(LARGE) - 1}",
    ]
    assert sum(told.amounts) == len(LARGE)


def test_a_registry_that_takes_no_part_either_says_so(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    registry.largest = 10
    with pytest.raises(FetchError, match="HTTP 413"):
        client.push_blobs(reference(registry), put(store, b"x" * 1000))


def test_the_address_of_an_upload_may_have_a_query(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    registry.upload_query = "?_state=abc%3D"
    client.push_blobs(reference(registry), put(store, b"data"))
    digest = digest_bytes(b"data").replace(":", "%3A")
    assert registry.paths("PUT") == [f"/v2/app/blobs/uploads/1?_state=abc%3D&digest={digest}"]


def test_an_upload_to_another_host_gets_no_credentials(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    (tmp_path / ".docker").mkdir()
    environ = {"HOME": str(tmp_path)}
    with serve() as other:
        other.uploads["1"] = bytearray()
        registry.upload_base = f"http://{other.host}"
        registry.auth, registry.user = "basic", ("me", "word")
        (tmp_path / ".docker/config.json").write_text(
            f'{{"auths": {{"{registry.host}": {{"username": "me", "password": "word"}}}}}}'
        )
        with RegistryClient(store, Silent(), RegistryCredentials(environ), environ=environ) as client:
            client.push_blobs(reference(registry), put(store, b"data"))
        assert other.blobs == {digest_bytes(b"data"): b"data"}
        assert [("authorization" in headers) for _, _, headers in other.requests] == [False]
        assert "authorization" in registry.requests[-1][2]


def test_the_first_error_ends_all_uploads(registry: Registry, store: Store, client: RegistryClient) -> None:
    """The others hang in the registry, and would for a minute."""
    release, hanging = threading.Event(), threading.Barrier(4, timeout=20)
    blobs = put(store, *(bytes([each]) * (1000 + each) for each in range(5)))

    def fetch(blob: Descriptor) -> None:
        if blob.size == 1000:
            return
        hanging.wait()
        if blob.size == 1004:
            raise FetchError("the fourth can't be had")
        release.wait(0.2)

    with pytest.raises(FetchError, match="the fourth can't be had"):
        client.push_blobs(reference(registry), blobs, fetch=fetch)
    assert set(registry.blobs) == {digest_bytes(bytes([0]) * 1000)}


def test_what_the_registry_has_is_not_brought_into_the_store(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    asked: list[int] = []
    registry.put_blob(b"there")
    blobs = [
        Descriptor(digest=digest_bytes(each), size=len(each), media_type=OCI_LAYER_GZIP)
        for each in (b"there", b"elsewhere")
    ]

    def fetch(blob: Descriptor) -> None:
        asked.append(blob.size)
        store.add_blob(b"elsewhere")

    assert client.push_blobs(reference(registry), blobs, fetch=fetch) == Pushed(sent=9, present=5)
    assert asked == [9]
