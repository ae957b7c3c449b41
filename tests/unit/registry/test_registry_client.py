from __future__ import annotations

import base64
import json
import socket
import time
from pathlib import Path

import pytest

from envbuild.errors import FetchError, ResolveError
from envbuild.http.connection import BrokenError, Connections, Trust
from envbuild.images.describe import images_of
from envbuild.images.sources.base import RegistrySource
from envbuild.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, parts_of
from envbuild.oci.reference import Reference
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient, RegistryOptions
from envbuild.store.content import Store
from tests.fakes.image import put_image
from tests.fakes.registry import Registry, serve

SECRET = "s3cret-word"


def _client(store: Store, tmp_path: Path, *, offline: bool = False) -> RegistryClient:
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
    return RegistryClient(
        store,
        Silent(),
        RegistryCredentials(environ),
        sleep=lambda seconds: None,
        options=RegistryOptions(offline=offline),
    )


def _reference(registry: Registry, rest: str = "app:1") -> Reference:
    return Reference.parse(f"{registry.host}/{rest}")


def _manifest(registry: Registry, media_type: str = OCI_MANIFEST) -> tuple[bytes, str]:
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, "layers": []}).encode()
    return content, registry.put_manifest("app", "1", media_type, content)


def _log_in(tmp_path: Path, registry: Registry, document: object | None = None) -> None:
    auth = base64.b64encode(f"me:{SECRET}".encode()).decode()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(
        json.dumps(document or {"auths": {registry.host: {"auth": auth}}})
    )


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_comes_byte_for_byte(
    registry: Registry, store: Store, tmp_path: Path, media_type: str
) -> None:
    content, digest = _manifest(registry, media_type)
    with _client(store, tmp_path) as client:
        found = client.manifest(_reference(registry))
    assert (found.content, found.digest, found.media_type) == (content, digest, media_type)
    assert store.blob(digest).read_bytes() == content


def test_a_manifest_by_digest_comes_from_the_store_and_works_offline(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    content, digest = _manifest(registry)
    store.add_blob(content)
    with _client(store, tmp_path, offline=True) as client:
        assert client.manifest(_reference(registry), digest).content == content
        with pytest.raises(FetchError, match="offline run"):
            client.manifest(_reference(registry))
    assert registry.requests == []


def test_other_bytes_than_the_digest_are_refused(registry: Registry, store: Store, tmp_path: Path) -> None:
    wanted = "sha256:" + "1" * 64
    registry.manifests["app", wanted] = (OCI_MANIFEST, b'{"layers": []}')
    registry.blobs[wanted] = b"evil"
    with _client(store, tmp_path) as client:
        with pytest.raises(FetchError, match="sent other bytes"):
            client.manifest(_reference(registry), wanted)
        with pytest.raises(FetchError, match="the bytes that came have the digest"):
            client.blob(_reference(registry), wanted, 4)
    assert not store.has_blob(wanted)


def test_a_blob_is_streamed_into_the_store_once(registry: Registry, store: Store, tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    digest = registry.put_blob(content)
    with _client(store, tmp_path) as client:
        for _ in range(2):
            assert client.blob(_reference(registry), digest, len(content)).read_bytes() == content
    assert len(registry.paths()) == 1


@pytest.mark.parametrize("size", [9, 11])
def test_a_blob_of_another_size_is_refused(
    registry: Registry, store: Store, tmp_path: Path, size: int
) -> None:
    digest = registry.put_blob(b"0123456789")
    with _client(store, tmp_path) as client, pytest.raises(FetchError):
        client.blob(_reference(registry), digest, size)
    assert not store.has_blob(digest)


def test_a_transfer_that_breaks_off_is_tried_again(registry: Registry, store: Store, tmp_path: Path) -> None:
    digest = registry.put_blob(b"0123456789")
    registry.truncate = 2
    with _client(store, tmp_path) as client:
        assert client.blob(_reference(registry), digest, 10).read_bytes() == b"0123456789"
    assert len(registry.paths()) == 3


def test_three_broken_transfers_are_an_error(registry: Registry, store: Store, tmp_path: Path) -> None:
    digest = registry.put_blob(b"0123456789")
    registry.truncate = 3
    with _client(store, tmp_path) as client, pytest.raises(FetchError, match="tried 3 times"):
        client.blob(_reference(registry), digest, 10)


def test_a_busy_registry_is_tried_three_times(registry: Registry, store: Store, tmp_path: Path) -> None:
    _, digest = _manifest(registry)
    registry.faults = [503, 429]
    with _client(store, tmp_path) as client:
        assert client.manifest(_reference(registry)).digest == digest
        registry.faults = [503, 503, 503]
        with pytest.raises(FetchError, match="answered HTTP 503"):
            client.manifest(_reference(registry))


def test_what_is_not_there_says_so(registry: Registry, store: Store, tmp_path: Path) -> None:
    with _client(store, tmp_path) as client, pytest.raises(FetchError, match="no such image") as caught:
        client.manifest(_reference(registry, "nothing:2"))
    assert caught.value.hint == "check the name and the tag"


def test_an_unreachable_registry_is_named(store: Store, tmp_path: Path) -> None:
    with (
        _client(store, tmp_path) as client,
        pytest.raises(FetchError, match=r"127\.0\.0\.1:9 can't be reached"),
    ):
        client.manifest(Reference.parse("127.0.0.1:9/app:1"))


def test_an_anonymous_token_is_fetched_once(registry: Registry, store: Store, tmp_path: Path) -> None:
    _, digest = _manifest(registry)
    registry.auth = "token"
    with _client(store, tmp_path) as client:
        for _ in range(2):
            assert client.manifest(_reference(registry)).digest == digest
    assert registry.paths() == [
        "/v2/app/manifests/1",
        "/token?scope=repository%3Aapp%3Apull&service=registry",
        "/v2/app/manifests/1",
        "/v2/app/manifests/1",
    ]


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_dockers_credentials_are_used(registry: Registry, store: Store, tmp_path: Path, auth: str) -> None:
    _, digest = _manifest(registry)
    registry.auth, registry.user = auth, ("me", SECRET)
    _log_in(tmp_path, registry)
    with _client(store, tmp_path) as client:
        assert client.manifest(_reference(registry)).digest == digest


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_wrong_credentials_are_refused_and_never_told(
    registry: Registry, store: Store, tmp_path: Path, auth: str
) -> None:
    _manifest(registry)
    registry.auth, registry.user = auth, ("me", "another")
    _log_in(tmp_path, registry)
    with _client(store, tmp_path) as client, pytest.raises(FetchError) as caught:
        client.manifest(_reference(registry))
    assert "refuses these credentials (HTTP 401)" in caught.value.message
    assert SECRET not in f"{caught.value!r}{caught.value.hint}{caught.value.__cause__!r}"


def test_a_credential_helper_is_asked(registry: Registry, store: Store, tmp_path: Path) -> None:
    _, digest = _manifest(registry)
    registry.auth, registry.user = "basic", ("me", SECRET)
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(
        f'#!/bin/sh\nread -r server\n[ "$server" = "{registry.host}" ] || exit 1\n'
        f'echo \'{{"ServerURL":"x","Username":"me","Secret":"{SECRET}"}}\'\n'
    )
    helper.chmod(0o755)
    _log_in(tmp_path, registry, {"credHelpers": {registry.host: "test"}})
    with _client(store, tmp_path) as client:
        assert client.manifest(_reference(registry)).digest == digest


def test_a_missing_credential_helper_is_named(registry: Registry, store: Store, tmp_path: Path) -> None:
    _manifest(registry)
    registry.auth, registry.user = "basic", ("me", SECRET)
    _log_in(tmp_path, registry, {"credsStore": "absent"})
    with (
        _client(store, tmp_path) as client,
        pytest.raises(ResolveError, match="docker-credential-absent is not"),
    ):
        client.manifest(_reference(registry))


def test_podmans_auth_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / ".config/containers/auth.json"
    file.parent.mkdir(parents=True)
    auth = base64.b64encode(b"you:word").decode()
    file.write_text(json.dumps({"auths": {"quay.io/org": {"auth": auth}}}))
    credentials = RegistryCredentials({"HOME": str(tmp_path)})
    found = credentials.find("quay.io", "org/app")
    assert found is not None
    assert (found.username, found.password) == ("you", "word")
    assert "word" not in repr(found)
    assert credentials.find("quay.io", "other/app") is None


@pytest.mark.parametrize(("named", "user"), [(False, "file"), (True, "docker")])
def test_a_file_that_a_variable_names_goes_before_dockers_default(
    tmp_path: Path, named: bool, user: str
) -> None:
    for name in ("docker", "file"):
        entry = {"quay.io": {"username": name, "password": "word"}}
        path = tmp_path / (".docker/config.json" if name == "docker" else "auth.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"auths": entry}))
    environ = {"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    if named:
        environ["DOCKER_CONFIG"] = str(tmp_path / ".docker")
    found = RegistryCredentials(environ).find("quay.io")
    assert found is not None
    assert found.username == user


def test_a_damaged_config_is_named_without_its_text(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(f'{{"auths": "{SECRET}')
    with pytest.raises(ResolveError, match=r"config\.json is not valid JSON") as caught:
        RegistryCredentials({"HOME": str(tmp_path)}).find("quay.io")
    assert SECRET not in str(caught.value)


def test_a_redirect_to_another_host_gets_no_credentials(store: Store, tmp_path: Path) -> None:
    with serve() as registry, serve() as other:
        digest = registry.put_blob(b"layer")
        other.put_blob(b"layer")
        registry.redirect = f"http://{other.host}"
        registry.auth, registry.user = "basic", ("me", SECRET)
        _log_in(tmp_path, registry)
        with _client(store, tmp_path) as client:
            assert client.blob(_reference(registry), digest, 5).read_bytes() == b"layer"
        assert "authorization" in registry.requests[-1][2]
        assert [("authorization" in headers) for _, _, headers in other.requests] == [False]


def test_a_redirect_to_plain_http_elsewhere_is_refused(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    digest = registry.put_blob(b"layer")
    registry.redirect = "http://example.invalid"
    with _client(store, tmp_path) as client, pytest.raises(FetchError, match="isn't safe"):
        client.blob(_reference(registry), digest, 5)


def test_an_endless_manifest_is_cut_off(registry: Registry, store: Store, tmp_path: Path) -> None:
    registry.put_manifest("app", "1", OCI_MANIFEST, b"{" + b" " * (5 << 20) + b"}")
    with _client(store, tmp_path) as client, pytest.raises(FetchError, match="larger than"):
        client.manifest(_reference(registry))


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b'{"mediaType": "text/x", "layers": []}',
        b"{}",
        b'{"layers":' + b"[" * 200_000,
        b'{"mediaType": "' + b"x" * 1_000_000 + b'"}',
    ],
    ids=["list", "half", "type", "empty", "deep", "long"],
)
def test_what_is_no_manifest_is_an_error(
    registry: Registry, store: Store, tmp_path: Path, content: bytes
) -> None:
    registry.put_manifest("app", "1", "application/json", content)
    with _client(store, tmp_path) as client, pytest.raises(FetchError) as caught:
        client.manifest(_reference(registry))
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("size", [-1, 1 << 63, 1e3, True, "7", None])
def test_a_size_that_is_none_is_an_error(size: object) -> None:
    layer = {"mediaType": OCI_LAYER, "digest": f"sha256:{'0' * 64}", "size": size}
    content = json.dumps({"config": layer, "layers": [layer]}).encode()
    with pytest.raises(FetchError, match="no digest, size and type"):
        parts_of(content, "app:1")


def test_an_index_that_lists_an_image_without_end_is_an_error(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    """Though each is the same one, and small."""
    elsewhere = Store(tmp_path / "elsewhere")
    image = put_image(elsewhere, [])
    registry.put_blob(elsewhere.blob(image.config_digest).read_bytes())
    registry.put_manifest("app", image.digest, OCI_MANIFEST, elsewhere.blob(image.digest).read_bytes())
    entry = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.size}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] * 20_000})
    registry.put_manifest("app", "1", OCI_INDEX, index.encode())
    with _client(store, tmp_path) as client:
        source = RegistrySource(_reference(registry), client)
        with pytest.raises(FetchError, match="more than 64 images"):
            images_of(source, source.manifest())


def test_a_thread_that_connects_after_the_others_were_cut_does_not_wait(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections = Connections(Trust(None, environ), environ, (5.0, 20.0))
        connections.cut()
        began = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v2/"
        with pytest.raises(BrokenError), connections.exchange("GET", url, {}):
            pass
        assert time.monotonic() - began < 10
        connections.close()
