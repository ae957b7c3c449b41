"""Signatures: in cosign's form, by keys that openssl made, and judged by openssl."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from envbuild.attest.sign import (
    PAYLOAD_TYPE,
    SIGNATURE,
    Signer,
    load_public_key,
    payload_of,
    sign_image,
    signature_tag,
    verify_signature,
)
from envbuild.errors import FetchError, UsageError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_INDEX, OCI_MANIFEST
from envbuild.oci.reference import Reference
from envbuild.registry.client import RegistryClient
from envbuild.store.content import Store
from tests.fakes.registry import Registry

DIGEST = digest_bytes(b"an image")
PASSWORD = "pw-of-key-51"
P256 = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
ED25519 = ("-algorithm", "ed25519")


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_key(directory: Path, name: str, *kind: str) -> tuple[Path, Path]:
    """Files of a private and its public key."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    openssl("genpkey", *kind, "-out", str(private))
    openssl("pkey", "-in", str(private), "-passin", f"pass:{PASSWORD}", "-pubout", "-out", str(public))
    return private, public


def app(registry: Registry) -> Reference:
    return Reference.parse(f"{registry.host}/team/app")


def layers(registry: Registry) -> list[dict[str, object]]:
    _, content = registry.manifests["team/app", signature_tag(DIGEST)]
    found = json.loads(content)["layers"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("kind", [P256, ED25519], ids=["p256", "ed25519"])
def test_openssl_accepts_what_was_signed(
    registry: Registry, client: RegistryClient, store: Store, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    private, public = make_key(tmp_path, "key", *kind)
    assert sign_image(client, store, app(registry), DIGEST, Signer.load(private, {}))
    (layer,) = layers(registry)
    assert layer["mediaType"] == PAYLOAD_TYPE
    payload, signature = tmp_path / "payload", tmp_path / "signature"
    payload.write_bytes(registry.blobs[str(layer["digest"])])
    annotations = layer["annotations"]
    assert isinstance(annotations, dict)
    signature.write_bytes(base64.b64decode(annotations[SIGNATURE]))
    if kind == P256:
        judged = openssl(
            "dgst", "-sha256", "-verify", str(public), "-signature", str(signature), str(payload)
        )
        assert judged == "Verified OK\n"
    else:
        judged = openssl(
            "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in", str(payload),
            "-sigfile", str(signature),
        )  # fmt: skip
        assert judged == "Signature Verified Successfully\n"


def test_the_signature_is_where_and_as_cosign_looks_for_it(
    registry: Registry, client: RegistryClient, store: Store, tmp_path: Path
) -> None:
    private, _ = make_key(tmp_path, "key", *ED25519)
    sign_image(client, store, app(registry), DIGEST, Signer.load(private, {}))
    assert signature_tag(DIGEST) == f"sha256-{DIGEST[7:]}.sig"
    media_type, content = registry.manifests["team/app", f"sha256-{DIGEST[7:]}.sig"]
    manifest = json.loads(content)
    assert (media_type, manifest["mediaType"]) == (OCI_MANIFEST, OCI_MANIFEST)
    (layer,) = manifest["layers"]
    payload = registry.blobs[layer["digest"]]
    assert len(payload) == layer["size"]
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": f"{registry.host}/team/app"},
            "image": {"docker-manifest-digest": DIGEST},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    config = json.loads(registry.blobs[manifest["config"]["digest"]])
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}


def test_docker_hub_has_the_name_that_cosign_writes() -> None:
    payload = json.loads(payload_of(Reference.parse("debian"), DIGEST))
    identity = payload["critical"]["identity"]["docker-reference"]
    assert identity == "index.docker.io/library/debian"


def test_signing_again_adds_nothing_and_another_key_adds_one(
    registry: Registry, client: RegistryClient, store: Store, tmp_path: Path
) -> None:
    mine, my_public = make_key(tmp_path, "mine", *P256)
    other, other_public = make_key(tmp_path, "other", *ED25519)
    stranger = make_key(tmp_path, "stranger", *ED25519)[1]
    assert sign_image(client, store, app(registry), DIGEST, Signer.load(mine, {}))
    first = layers(registry)
    assert not sign_image(client, store, app(registry), DIGEST, Signer.load(mine, {}))
    assert sign_image(client, store, app(registry), DIGEST, Signer.load(other, {}))
    assert layers(registry)[:1] == first
    assert len(layers(registry)) == 2
    for public, holds in ((my_public, True), (other_public, True), (stranger, False)):
        assert verify_signature(client, app(registry), DIGEST, load_public_key(public)) is holds


def test_an_unsigned_image_does_not_verify(
    registry: Registry, client: RegistryClient, tmp_path: Path
) -> None:
    _, public = make_key(tmp_path, "key", *P256)
    assert not verify_signature(client, app(registry), DIGEST, load_public_key(public))


def test_a_signature_of_another_image_does_not_count(
    registry: Registry, client: RegistryClient, store: Store, tmp_path: Path
) -> None:
    private, public = make_key(tmp_path, "key", *P256)
    sign_image(client, store, app(registry), DIGEST, Signer.load(private, {}))
    other = digest_bytes(b"another image")
    copied = registry.manifests["team/app", signature_tag(DIGEST)]
    registry.manifests["team/app", signature_tag(other)] = copied
    assert not verify_signature(client, app(registry), other, load_public_key(public))


@pytest.mark.parametrize("damage", ["signature", "base64", "annotation", "type"])
def test_a_damaged_signature_does_not_verify(
    registry: Registry, client: RegistryClient, store: Store, tmp_path: Path, damage: str
) -> None:
    private, public = make_key(tmp_path, "key", *ED25519)
    sign_image(client, store, app(registry), DIGEST, Signer.load(private, {}))
    tag = signature_tag(DIGEST)
    manifest = json.loads(registry.manifests["team/app", tag][1])
    (layer,) = manifest["layers"]
    good = layer["annotations"][SIGNATURE]
    if damage == "signature":
        layer["annotations"][SIGNATURE] = base64.b64encode(bytes(64)).decode()
    elif damage == "base64":
        layer["annotations"][SIGNATURE] = "!" + good
    elif damage == "annotation":
        layer["annotations"] = [good]
    else:
        layer["mediaType"] = "text/plain"
    registry.manifests["team/app", tag] = (OCI_MANIFEST, json.dumps(manifest).encode())
    assert not verify_signature(client, app(registry), DIGEST, load_public_key(public))


@pytest.mark.parametrize(
    ("media_type", "document", "words"),
    [
        (OCI_INDEX, {"manifests": []}, "no signatures, but application/vnd.oci.image.index"),
        (OCI_MANIFEST, {"layers": [1], "config": {}}, "a descriptor has no digest, size and type"),
        (OCI_MANIFEST, {"layers": [1], "manifests": []}, "not the form of signatures"),
    ],
)
def test_what_is_no_signature_is_refused(
    registry: Registry,
    client: RegistryClient,
    tmp_path: Path,
    media_type: str,
    document: object,
    words: str,
) -> None:
    _, public = make_key(tmp_path, "key", *ED25519)
    content = json.dumps(document).encode()
    registry.manifests["team/app", signature_tag(DIGEST)] = (media_type, content)
    with pytest.raises(FetchError, match=words):
        verify_signature(client, app(registry), DIGEST, load_public_key(public))


@pytest.mark.parametrize("variable", ["ENVBUILD_SIGN_PASSWORD", "COSIGN_PASSWORD"])
def test_a_password_comes_from_the_environment(tmp_path: Path, variable: str) -> None:
    private, _ = make_key(tmp_path, "key", *P256, "-aes256", "-pass", f"pass:{PASSWORD}")
    assert Signer.load(private, {variable: PASSWORD}).sign(b"text")
    with pytest.raises(UsageError, match="needs a password") as error:
        Signer.load(private, {})
    assert error.value.hint == "set ENVBUILD_SIGN_PASSWORD"
    with pytest.raises(UsageError, match="or the password is wrong") as error:
        Signer.load(private, {variable: "wrong-word"})
    assert "wrong-word" not in f"{error.value}{error.value.hint}{error.value.__cause__}"


def test_a_key_without_a_password_needs_none_though_one_is_set(tmp_path: Path) -> None:
    private, _ = make_key(tmp_path, "key", *ED25519)
    assert len(Signer.load(private, {"COSIGN_PASSWORD": PASSWORD}).sign(b"text")) == 64


def test_an_old_style_key_of_an_elliptic_curve_is_read(tmp_path: Path) -> None:
    private = tmp_path / "key.pem"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", str(private))
    assert b"BEGIN EC PARAMETERS" in private.read_bytes()
    assert Signer.load(private, {}).sign(b"text")


def test_no_representation_shows_the_key(tmp_path: Path) -> None:
    private, _ = make_key(tmp_path, "key", *ED25519)
    assert repr(Signer.load(private, {})) == "Signer()"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no key", "is no private key that can be read: expected a PEM file"),
        (b"", "is no private key that can be read"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nabc\n", "is a key in cosign's own form"),
        (b"x" * 70_000, "is too large for a key"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        Signer.load(path, {})


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "key", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
    for load in (lambda: Signer.load(private, {}), lambda: load_public_key(public)):
        with pytest.raises(UsageError, match="of another kind than ECDSA P-256 or Ed25519"):
            load()


def test_a_missing_key_is_said_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't read the key .*key\.pem: No such file"):
        Signer.load(tmp_path / "key.pem", {})
    with pytest.raises(UsageError, match=r"can't read the key .*key\.pub: No such file"):
        load_public_key(tmp_path / "key.pub")
