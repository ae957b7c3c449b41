"""Push and pull with Debian's docker-registry of every kind, and with skopeo on the other side."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from envbuild.errors import FetchError
from envbuild.images.describe import images_of
from envbuild.images.sources.base import RegistrySource
from envbuild.oci.manifest import OCI_INDEX
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.registry.client import RegistryClient
from envbuild.store.content import Store
from tests.fakes import registry_server, token_server
from tests.fakes.fault_proxy import Fault, proxy, tunnel
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.registry_server import READER, WRITER, RegistryServer, needs_registry
from tests.fakes.token_server import TokenServer
from tests.integration.registry import (
    blobs,
    docker_config,
    make_client,
    pull,
    push,
    same_blobs,
    skopeo,
    small_image,
)

pytestmark = [needs_registry()]
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

TLS_NAME = "registry.example"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path_factory.mktemp("guarded"), htpasswd=True) as server:
        yield server


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenServer]:
    state = TokenServer(
        users={
            WRITER[0]: (WRITER[1], frozenset({"pull", "push", "delete"})),
            READER[0]: (READER[1], frozenset({"pull"})),
        },
        identities={"identity-of-writer": WRITER[0]},
    )
    with token_server.serve(state) as running:
        yield running


@pytest.fixture(scope="module")
def tokened(tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path_factory.mktemp("tokened"), tokens=tokens) as server:
        yield server


@dataclass(kw_only=True)
class Secure:
    """A registry with TLS, reached as ``TLS_NAME`` through a tunnel."""

    server: RegistryServer
    ca: Path
    proxy: str

    @property
    def environ(self) -> dict[str, str]:
        return {"HTTPS_PROXY": self.proxy}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    root = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(root / "ca.crt"))
    issued = authority.issue_cert(TLS_NAME, "127.0.0.1")
    (root / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(root / "key.pem"))
    tls = (root / "cert.pem", root / "key.pem")
    with (
        registry_server.serve(root / "registry", tls=tls, htpasswd=True) as server,
        tunnel(server.host) as way,
    ):
        yield Secure(server=server, ca=root / "ca.crt", proxy=f"http://{way.host}")


def there_and_back(client: RegistryClient, store: Store, name: str) -> None:
    """Pushes an image as ``name``, and pulls it when the store of the client has been emptied."""
    image = small_image(store)
    total = sum(blob.size for blob in blobs(store, image))
    pushed = push(client, store, image, name)
    assert (pushed.sent, pushed.mounted, pushed.present) == (total, 0, 0)
    again = push(client, store, image, name)
    assert (again.sent, again.mounted, again.present) == (0, 0, total)
    before = Store(store.root.with_name("before"))
    store.root.rename(before.root)
    pull(client, image, name, before)
    assert same_blobs(before, store, image)


def test_plain(plain: RegistryServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store) as client:
        there_and_back(client, store, f"{plain.host}/team/app:1")
        image = small_image(store)
        assert plain.manifest("team/app", "1") == store.blob(image.digest).read_bytes()
        assert plain.complete("team/app", "1")
        assert client.tags(Reference.parse(f"{plain.host}/team/app")) == ("1",)
        assert client.tags(Reference.parse(f"{plain.host}/team/nothing")) == ()
        assert client.find_manifest(Reference.parse(f"{plain.host}/team/app:2")) is None


def test_a_deleted_manifest_is_gone_with_its_tags(plain: RegistryServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store) as client:
        image = small_image(store, 1)
        reference = Reference.parse(f"{plain.host}/deleted:1")
        push(client, store, image, str(reference))
        push(client, store, image, f"{plain.host}/deleted:2")
        assert client.tags(reference) == ("1", "2")
        client.delete(reference, image.digest)
        assert client.tags(reference) == ()
        assert plain.manifest("deleted", "1") is None
        with pytest.raises(FetchError):
            client.delete(reference, image.digest)


def test_basic_authentication(guarded: RegistryServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store, {guarded.host: WRITER}) as client:
        there_and_back(client, store, f"{guarded.host}/app:1")


@pytest.mark.parametrize(
    ("user", "words"), [(None, "anonymous access"), (("writer", "x"), "these credentials")]
)
def test_who_is_not_known_is_refused(
    guarded: RegistryServer, tmp_path: Path, user: tuple[str, str] | None, words: str
) -> None:
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store, {guarded.host: user} if user else {}) as client:
        image = small_image(store, 2)
        with pytest.raises(FetchError) as error:
            push(client, store, image, f"{guarded.host}/refused:1")
        assert f"{guarded.host} refuses {words} (HTTP 401)" in error.value.message
        assert error.value.hint is not None
        assert f"docker login {guarded.host}" in error.value.hint
    assert not any("refused" in str(path) for path in guarded.storage.rglob("*"))


def test_tokens(tokened: RegistryServer, tokens: TokenServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    tokens.asked.clear()
    with make_client(tmp_path, store, {tokened.host: WRITER}) as client:
        there_and_back(client, store, f"{tokened.host}/team/app:1")
    assert {who for who, _ in tokens.asked} == {WRITER[0]}
    # Never more than the one repository, and few round trips: one for pulling, one for pushing, at the most.
    assert {scope.rpartition(":")[0] for _, scopes in tokens.asked for scope in scopes} == {
        "repository:team/app"
    }
    assert len(tokens.asked) <= 4


def test_tokens_of_azure(tokened: RegistryServer, tokens: TokenServer, tmp_path: Path) -> None:
    """The answer's other field name, and an identity token instead of a password."""
    store = Store(tmp_path / "store")
    docker_config(tmp_path, {})
    tokens.field_name = "access_token"
    try:
        with make_client(tmp_path, store) as client:
            (tmp_path / ".docker/config.json").write_text(
                json.dumps({"auths": {tokened.host: {"identitytoken": "identity-of-writer"}}})
            )
            there_and_back(client, store, f"{tokened.host}/azure:1")
    finally:
        tokens.field_name = "token"


def test_a_token_for_reading_only(tokened: RegistryServer, tokens: TokenServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = small_image(store, 3)
    name = f"{tokened.host}/readonly:1"
    with make_client(tmp_path, store, {tokened.host: WRITER}) as client:
        push(client, store, image, name)
    other = Store(tmp_path / "other")
    with make_client(tmp_path, other, {tokened.host: READER}) as client:
        pull(client, image, name, store)
        changed = small_image(other, 4)
        tokens.asked.clear()
        with pytest.raises(FetchError) as error:
            push(client, other, changed, name)
        assert f"{tokened.host} refuses these credentials (HTTP 401)" in error.value.message
        assert len(tokens.asked) <= 2
        pull(client, image, name, store)


def test_a_token_that_expires_in_the_middle(
    tokened: RegistryServer, tokens: TokenServer, tmp_path: Path
) -> None:
    """Each token is good for a second or two, and the proxy passes the manifest on when it is no more; and a
    blob's body is refused after it was sent."""
    store = Store(tmp_path / "store")
    image = small_image(store, 5)
    tokens.lifetime = 2
    try:
        with proxy(tokened.host) as way, make_client(tmp_path, store, {way.host: WRITER}) as client:
            # The registry counts whole seconds.
            way.faults = [
                Fault(kind="none", path="/manifests/", first=lambda: time.sleep(2.1)),
                Fault(kind="strip", method="PUT", path="uploads", times=1),
            ]
            push(client, store, image, f"{way.host}/expiring:1")
            refused = [(seen.method, "manifests" in seen.path) for seen in way.requests if seen.status == 401]
            assert ("PUT", False) in refused
            assert {each for each in refused if each[1]}
            assert len(refused) <= 5
    finally:
        tokens.lifetime = 3600
    with make_client(tmp_path, Store(tmp_path / "other"), {tokened.host: WRITER}) as client:
        pull(client, image, f"{tokened.host}/expiring:1", store)


def test_tls(secure: Secure, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with make_client(
        tmp_path, store, {TLS_NAME: WRITER}, ca_bundle=secure.ca, environ=secure.environ
    ) as client:
        there_and_back(client, store, f"{TLS_NAME}/app:1")


def test_tls_of_an_unknown_authority(secure: Secure, tmp_path: Path) -> None:
    slept: list[float] = []
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store, {TLS_NAME: WRITER}, slept=slept, environ=secure.environ) as client:
        with pytest.raises(FetchError) as error:
            push(client, store, small_image(store), f"{TLS_NAME}/app:1")
        assert TLS_NAME in error.value.message
        assert "its TLS certificate is not trusted" in error.value.message
        assert error.value.hint is not None
        assert "SSL_CERT_FILE" in error.value.hint
    # Another try would not change it.
    assert slept == []


def test_tls_on_this_machine(secure: Secure, tmp_path: Path) -> None:
    """A registry on loopback that says it wants TLS gets it, and the password only then."""
    store = Store(tmp_path / "store")
    host = secure.server.host
    with proxy(host) as way, make_client(tmp_path, store, {way.host: WRITER}, ca_bundle=secure.ca) as client:
        with pytest.raises(FetchError):
            push(client, store, small_image(store), f"{way.host}/plain:1")
        assert {"authorization" in seen.headers for seen in way.requests} <= {False}
    with make_client(tmp_path, store, {host: WRITER}, ca_bundle=secure.ca) as client:
        there_and_back(client, store, f"{host}/loopback:1")


@needs_skopeo
def test_skopeo_takes_what_was_pushed_and_brings_it_back(plain: RegistryServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = small_image(store, 7)
    name = f"{plain.host}/judged"
    with make_client(tmp_path, store) as client:
        push(client, store, image, f"{name}:1")
    content = store.blob(image.digest).read_bytes()
    raw = skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}:1")
    assert raw.encode() == content
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}:1"))
    assert (seen["Digest"], seen["Layers"]) == (image.digest, [layer.digest for layer in image.layers])
    skopeo(
        "copy", "--preserve-digests", "--src-tls-verify=false", f"docker://{name}:1", f"oci:{tmp_path}/out:1"
    )
    skopeo(
        "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{tmp_path}/out:1", f"docker://{name}:2"
    )
    assert plain.manifest("judged", "2") == content
    other = Store(tmp_path / "other")
    with make_client(tmp_path, other) as client:
        pull(client, image, f"{name}:2", store)
    assert same_blobs(store, other, image)


@needs_skopeo
@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_images_that_skopeo_pushed(plain: RegistryServer, tmp_path: Path, form: str) -> None:
    """Docker's schema 2 too: manifest and blobs come byte for byte as the registry has them."""
    made = Store(tmp_path / "made")
    with make_client(tmp_path, made) as client:
        push(client, made, small_image(made, 8), f"{plain.host}/foreign:start")
    skopeo(
        "copy", f"--format={form}", "--src-tls-verify=false", "--dest-tls-verify=false",
        f"docker://{plain.host}/foreign:start", f"docker://{plain.host}/foreign:{form}",
    )  # fmt: skip
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store) as client:
        reference = Reference.parse(f"{plain.host}/foreign:{form}")
        top = client.manifest(reference)
        assert top.content == plain.manifest("foreign", form)
        assert top.media_type == json.loads(top.content)["mediaType"]
        assert ("docker" in top.media_type) == (form == "v2s2")
        (image,) = images_of(RegistrySource(reference, client), top)
        client.pull_blobs(reference, blobs(store, image))
        # And on to another repository, with the same digest.
        name = f"{plain.host}/copied:{form}"
        push(client, store, image, name)
    assert plain.manifest("copied", form) == top.content
    assert plain.complete("copied", form)


@needs_skopeo
def test_an_index_of_two_platforms(plain: RegistryServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    images = [
        put_image(
            store,
            [put_layer(store, [Item(name=name, content=name.encode())])],
            platform=Platform("linux", name),
        )
        for name in ("amd64", "arm64")
    ]
    both = put_index(store, images, ())
    reference = Reference.parse(f"{plain.host}/both:1")
    with make_client(tmp_path, store) as client:
        for image in images:
            client.push_blobs(reference, blobs(store, image))
            content = store.blob(image.digest).read_bytes()
            client.push_manifest(reference, content, image.media_type, image.digest)
        content = store.blob(both.digest).read_bytes()
        assert client.push_manifest(reference, content, OCI_INDEX) == both.digest
        assert client.tags(reference) == ("1",)
    assert plain.complete("both", "1")
    skopeo(
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        f"docker://{reference}",
        f"oci:{tmp_path}/out:1",
    )
    arm = skopeo(
        "--override-arch", "arm64", "inspect", "--tls-verify=false", "--config", f"docker://{reference}"
    )
    assert json.loads(arm)["architecture"] == "arm64"
    assert {path.name for path in (tmp_path / "out/blobs/sha256").iterdir()} >= {
        layer.digest.removeprefix("sha256:") for image in images for layer in image.layers
    }


def test_an_index_before_its_images_is_refused(plain: RegistryServer, tmp_path: Path) -> None:
    """By the registry, and said so: nobody can find a tag that names what isn't there."""
    store = Store(tmp_path / "store")
    images = [small_image(store, 20)]
    both = put_index(store, images, ())
    with make_client(tmp_path, store) as client, pytest.raises(FetchError, match="400"):
        client.push_manifest(
            Reference.parse(f"{plain.host}/early:1"), store.blob(both.digest).read_bytes(), OCI_INDEX
        )
    assert plain.manifest("early", "1") is None


@needs_skopeo
def test_skopeo_reads_with_a_password_and_tls(secure: Secure, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = small_image(store, 9)
    with make_client(
        tmp_path, store, {TLS_NAME: WRITER}, ca_bundle=secure.ca, environ=secure.environ
    ) as client:
        push(client, store, image, f"{TLS_NAME}/judged:1")
    raw = skopeo(
        "inspect", "--raw", "--cert-dir", str(secure.ca.parent), "--creds", ":".join(WRITER),
        f"docker://{TLS_NAME}/judged:1", env=secure.environ,
    )  # fmt: skip
    assert raw.encode() == store.blob(image.digest).read_bytes()


def test_credentials_of_a_helper(guarded: RegistryServer, tmp_path: Path) -> None:
    helper = tmp_path / "bin" / "docker-credential-tests"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": guarded.host, "Username": WRITER[0], "Secret": WRITER[1]})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    store = Store(tmp_path / "store")
    path = f"{helper.parent}:{os.environ['PATH']}"
    with make_client(tmp_path, store, environ={"PATH": path}) as client:
        docker_config(tmp_path, {}, credHelpers={guarded.host: "tests"})
        there_and_back(client, store, f"{guarded.host}/helped:1")


@needs_skopeo
def test_a_login_of_skopeo_is_used(guarded: RegistryServer, tmp_path: Path) -> None:
    auth, stdin = tmp_path / "auth.json", ("--password-stdin", guarded.host)
    subprocess.run(
        ["skopeo", "login", "--tls-verify=false", f"--authfile={auth}", "-u", WRITER[0], *stdin],
        input=WRITER[1],
        text=True,
        check=True,
        capture_output=True,
    )
    assert base64.b64encode(":".join(WRITER).encode()).decode() in auth.read_text()
    store = Store(tmp_path / "store")
    with make_client(tmp_path, store, environ={"REGISTRY_AUTH_FILE": str(auth)}) as client:
        there_and_back(client, store, f"{guarded.host}/login:1")
