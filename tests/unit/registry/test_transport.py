"""Logins, redirects, proxies, refusals and downloads, as a registry sees them and as people read them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from envbuild.errors import FetchError
from envbuild.http.policy import Retry, is_busy, proxy_of, retry_after
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient
from envbuild.registry.errors import complaints, refusal
from envbuild.registry.token import merged, parse_challenge
from envbuild.store.content import Store
from tests.fakes.fault_proxy import Fault, proxy
from tests.fakes.registry import Registry, serve

PROXIES = {
    "HTTPS_PROXY": "http://me:word@proxy.example:3128",
    "NO_PROXY": "inner.example, .dotted.example,10.0.0.0/8,ported.example:5000,[fd00::1]",
}


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[RegistryClient]:
    environ = {"HOME": str(tmp_path)}
    with RegistryClient(
        store, Silent(), RegistryCredentials(environ), sleep=lambda seconds: None, environ=environ
    ) as found:
        yield found


def reference(registry: Registry, name: str = "app") -> Reference:
    return Reference.parse(f"{registry.host}/{name}:1")


def manifest() -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()


@pytest.mark.parametrize(
    ("host", "port", "proxied"),
    [
        ("outer.example", None, True),
        ("inner.example", None, False),
        ("deep.inner.example", None, False),
        ("notinner.example", None, True),
        ("a.dotted.example", None, False),
        ("10.1.2.3", None, False),
        ("11.1.2.3", None, True),
        ("ported.example", 5000, False),
        ("ported.example", None, True),
        ("fd00::1", None, False),
        ("localhost", 5000, False),
        ("127.0.0.7", None, False),
        ("::1", None, False),
    ],
)
def test_who_is_reached_through_a_proxy(host: str, port: int | None, proxied: bool) -> None:
    assert (proxy_of(host, port, PROXIES) is not None) is proxied


def test_small_letters_and_a_star_go_first() -> None:
    assert proxy_of("a.example", None, {**PROXIES, "https_proxy": "inside:8080"}) == "http://inside:8080"
    assert proxy_of("a.example", None, {**PROXIES, "no_proxy": "*"}) is None
    assert proxy_of("a.example", None, {"ALL_PROXY": "http://all:1"}) == "http://all:1"
    assert proxy_of("a.example", None, {}) is None


def test_plain_http_has_a_variable_and_a_port_of_its_own() -> None:
    variables = {**PROXIES, "HTTP_PROXY": "http://plain:1", "NO_PROXY": "b.example:80"}
    assert proxy_of("a.example", None, variables, "http") == "http://plain:1"
    assert proxy_of("b.example", None, variables, "http") is None
    assert proxy_of("b.example", None, variables) == PROXIES["HTTPS_PROXY"]


def test_waits_double_and_are_bounded() -> None:
    assert [Retry().wait(failed) for failed in (1, 2, 3)] == [0.5, 1.0, None]
    assert Retry().wait(1, 7.0) == 7.0
    assert [retry_after(text) for text in ("7", "999", "soon", None)] == [7.0, 30.0, None, None]
    assert [status for status in (400, 404, 408, 413, 429, 500, 503) if is_busy(status)] == [
        408,
        429,
        500,
        503,
    ]


def test_a_challenge_is_read_whatever_its_form() -> None:
    stated = 'Basic realm="x", Bearer realm="https://a.example/t",service=s, scope="repository:a:pull,push"'
    assert parse_challenge(stated, "x") == (
        "bearer",
        {"realm": "https://a.example/t", "service": "s", "scope": "repository:a:pull,push"},
    )
    assert parse_challenge('bearer realm="a\\"b"', "x") == ("bearer", {"realm": 'a"b'})
    assert parse_challenge("Basic", "x") == ("basic", {})
    with pytest.raises(FetchError, match="asks for an unknown authentication 'Negotiate'"):
        parse_challenge("Negotiate", "who")


def test_scopes_are_joined() -> None:
    assert merged(("repository:a:pull,push",), "repository:a:pull,meta repository:b:pull") == (
        "repository:a:pull,push,meta",
        "repository:b:pull",
    )


def test_what_a_registry_says_holds_no_secret_and_no_escape() -> None:
    message = "no \x1b[31m at https://me:word@a.example/x?sig=abc for tok-en " + "y" * 900
    said = complaints(json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode(), ["tok-en"])
    text = refusal(403, "image", "a.example", said, logged_in=True).message
    assert text.startswith(
        "image: a.example refuses these credentials (HTTP 403): DENIED: no [31m at https://"
    )
    assert not any(each in text for each in ("word", "sig", "tok-en", "\x1b"))
    assert len(text) < 300
    for body in (b"", b"[]", b'{"errors": 3}', b'{"errors": ["x"]}', b"[" * 5000, None):
        assert complaints(body) == ()


def test_a_push_asks_for_one_token_and_a_mount_for_another(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    registry.auth = "token"
    blobs = [
        Descriptor(digest=store.add_blob(each), size=4, media_type=OCI_LAYER_GZIP)
        for each in (b"one.", b"two.", b"four", b"five")
    ]
    client.push_blobs(reference(registry), blobs)
    client.push_manifest(reference(registry), manifest(), OCI_MANIFEST)
    tokens = [path for path in registry.paths() if path.startswith("/token")]
    assert tokens == ["/token?scope=repository%3Aapp%3Apull%2Cpush&service=registry"]
    more = [Descriptor(digest=store.add_blob(b"more"), size=4, media_type=OCI_LAYER_GZIP)]
    client.push_blobs(reference(registry), more, mount_from=[reference(registry, "base")])
    tokens = [path for path in registry.paths() if path.startswith("/token")]
    assert tokens[1:] == [
        "/token?scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull&service=registry"
    ]


def test_a_manifest_that_is_there_costs_one_request(registry: Registry, client: RegistryClient) -> None:
    digest = digest_bytes(manifest())
    assert client.push_manifest(reference(registry), manifest(), OCI_MANIFEST) == digest
    registry.requests.clear()
    registry.states_digests = True
    assert client.push_manifest(reference(registry), manifest(), OCI_MANIFEST) == digest
    assert [method for method, _, _ in registry.requests] == ["HEAD"]


def test_a_manifest_whose_blobs_are_not_known_for_a_moment_is_put_again(
    registry: Registry, client: RegistryClient
) -> None:
    registry.unknown_blobs = 2
    digest = client.push_manifest(reference(registry), manifest(), OCI_MANIFEST)
    assert digest == digest_bytes(manifest())
    assert [method for method, _, _ in registry.requests] == ["HEAD", "PUT", "PUT", "PUT"]
    registry.manifests.clear()
    registry.unknown_blobs = 9
    with pytest.raises(FetchError, match="HTTP 400: MANIFEST_BLOB_UNKNOWN"):
        client.push_manifest(reference(registry), manifest(), OCI_MANIFEST)
    assert registry.unknown_blobs == 6


def test_a_manifest_under_another_digest_is_refused(registry: Registry, client: RegistryClient) -> None:
    with pytest.raises(FetchError, match="the manifest to be pushed has the digest"):
        client.push_manifest(reference(registry), manifest(), OCI_MANIFEST, "sha256:" + "1" * 64)
    assert registry.requests == []


def test_the_registry_is_asked_for_a_manifest_that_the_store_has(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    digest = store.add_blob(manifest())
    assert client.find_manifest(reference(registry), digest) is None
    registry.put_manifest("app", "1", OCI_MANIFEST, manifest())
    found = client.find_manifest(reference(registry), digest)
    assert found is not None
    assert found.content == manifest()
    assert [method for method, _, _ in registry.requests] == ["HEAD", "HEAD"]


def test_only_the_rest_of_a_broken_download_is_asked_for(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    digest = registry.put_blob(b"0123456789")
    registry.truncate = 1
    assert client.blob(reference(registry), digest, 10).read_bytes() == b"0123456789"
    assert [headers.get("range") for _, _, headers in registry.requests] == [None, "bytes=5-"]


def test_a_registry_that_sends_no_parts_is_asked_again_for_all(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    digest = registry.put_blob(b"0123456789")
    registry.truncate, registry.ranges = 1, False
    assert client.blob(reference(registry), digest, 10).read_bytes() == b"0123456789"


def test_several_blobs_are_pulled_and_each_once(
    registry: Registry, store: Store, client: RegistryClient
) -> None:
    contents = [bytes([each]) * 1000 for each in range(6)]
    blobs = [
        Descriptor(digest=registry.put_blob(each), size=1000, media_type=OCI_LAYER_GZIP) for each in contents
    ]
    threads = [
        threading.Thread(target=client.pull_blobs, args=(reference(registry), blobs)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.blob(blob.digest).read_bytes() for blob in blobs] == contents
    assert len(registry.requests) == 6


def test_one_blob_that_is_wrong_ends_a_pull(registry: Registry, store: Store, client: RegistryClient) -> None:
    wrong = "sha256:" + "2" * 64
    registry.blobs[wrong] = b"evil"
    blobs = [Descriptor(digest=wrong, size=4, media_type=OCI_LAYER_GZIP)]
    with pytest.raises(FetchError, match="the bytes that came have the digest"):
        client.pull_blobs(reference(registry), blobs)
    assert not store.has_blob(wrong)


def test_only_a_digest_is_deleted(registry: Registry, client: RegistryClient) -> None:
    digest = registry.put_manifest("app", "1", OCI_MANIFEST, manifest())
    with pytest.raises(FetchError, match="only what a digest names"):
        client.delete(reference(registry), "1")
    client.delete(reference(registry), digest)
    assert registry.manifests == {}


def test_a_registry_on_another_machine_leads_nobody_to_this_one(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    from envbuild.registry.token import scopes
    from envbuild.registry.transport import RegistryCall

    environ = {"HOME": str(tmp_path)}
    with RegistryClient(store, Silent(), RegistryCredentials(environ), environ=environ) as client:
        call = RegistryCall(
            reference=Reference.parse("registry.example/app:1"),
            method="GET",
            address=f"http://{registry.host}/v2/",
            what="image",
            scopes=scopes("app", "pull"),
        )
        with pytest.raises(FetchError, match="isn't safe"), client._transport.open(call):
            pass
    assert registry.requests == []


@pytest.mark.parametrize(
    "form", ["<http://{0}/v2/app/tags/list?n=2>", "<http://x//{0}/v2/>", "<//{0}//{0}/v2/>"]
)
def test_a_list_goes_on_at_its_own_registry_alone(
    registry: Registry, client: RegistryClient, form: str
) -> None:
    registry.put_manifest("app", "1", OCI_MANIFEST, manifest())
    with serve() as other, proxy(registry.host) as way:
        other.put_manifest("app", "evil", OCI_MANIFEST, manifest())
        link = {"Link": f'{form.format(other.host)}; rel="next"'}
        way.break_next(Fault(kind="header", path="/tags/list", headers=link))
        with suppress(FetchError):
            client.tags(Reference.parse(f"{way.host}/app"))
        # The link was followed, and led nowhere else.
        assert len(way.requests) == 2
        assert other.paths() == []
