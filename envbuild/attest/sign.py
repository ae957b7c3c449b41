"""Signatures of images by a key of one's own, in the form of cosign's simple signing, and checking them.

A signature is a layer of the image ``<repository>:sha256-<hex>.sig``: its payload names the digest, an
annotation holds the signature of the payload. ``cosign verify --key PUB --insecure-ignore-tlog`` accepts it,
since no transparency log is told (``https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md``).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.errors import FetchError, UsageError
from envbuild.lazy import lazy
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, parts_of
from envbuild.oci.reference import DEFAULT_REGISTRY, Reference
from envbuild.registry.base import Remote
from envbuild.store.content import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
    PublicKey = EllipticCurvePublicKey | Ed25519PublicKey
    from cryptography import exceptions
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
else:
    exceptions = lazy("cryptography.exceptions")
    ec = lazy("cryptography.hazmat.primitives.asymmetric.ec")
    ed25519 = lazy("cryptography.hazmat.primitives.asymmetric.ed25519")
    hashes = lazy("cryptography.hazmat.primitives.hashes")
    serialization = lazy("cryptography.hazmat.primitives.serialization")

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PASSWORDS = ("ENVBUILD_SIGN_PASSWORD", "COSIGN_PASSWORD")
"""The variables that a key's password is taken from, the first that is set."""
_KIND = "cosign container image signature"
_KEY_LIMIT = 64 << 10
_PAYLOAD_LIMIT = 64 << 10
_MOST = 50
"""Signatures of one image."""
_KEYS = "ECDSA P-256 or Ed25519"


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """Signs with one private key, which shows in no message and no representation."""

    _key: PrivateKey = field(repr=False)

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str]) -> Signer:
        """The signer with the PEM key in a file, its password from ``environ``. Raises ``UsageError``."""
        _needed()

        content = _read(path)
        if b"ENCRYPTED COSIGN" in content or b"ENCRYPTED SIGSTORE" in content:
            raise UsageError(
                f"{path} is a key in cosign's own form, which isn't read",
                hint="make one with: openssl genpkey -algorithm ed25519 -aes256 -out FILE",
            )
        password = next((environ[name] for name in PASSWORDS if environ.get(name)), None)
        locked = b"ENCRYPTED" in content
        try:
            key = serialization.load_pem_private_key(
                content, password.encode() if password and locked else None
            )
        except TypeError:
            raise UsageError(f"the key {path} needs a password", hint=f"set {PASSWORDS[0]}") from None
        except (ValueError, exceptions.UnsupportedAlgorithm):
            # The library's own words may quote what it read.
            why = "or the password is wrong" if locked else f"expected a PEM file with an {_KEYS} key"
            raise UsageError(f"{path} is no private key that can be read: {why}") from None
        if not _fits(key):
            raise UsageError(f"the key {path} is of another kind than {_KEYS}")
        return cls(_key=key)  # type: ignore[arg-type]

    def sign(self, payload: bytes) -> bytes:
        """ECDSA over SHA-256 in ASN.1, or plain Ed25519, as cosign does."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(payload, ec.ECDSA(hashes.SHA256()))
        return self._key.sign(payload)

    @property
    def public_key(self) -> PublicKey:
        return self._key.public_key()


def load_public_key(path: Path) -> PublicKey:
    """The public key in a PEM file. Raises ``UsageError``."""
    _needed()

    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, exceptions.UnsupportedAlgorithm):
        raise UsageError(
            f"{path} is no public key that can be read",
            hint="write it with: openssl pkey -in KEY -pubout -out FILE",
        ) from None
    if not _fits(key):
        raise UsageError(f"the key {path} is of another kind than {_KEYS}")
    return key  # type: ignore[return-value]


def signature_tag(digest: str) -> str:
    """The tag that the signatures of ``digest`` are under."""
    return f"{digest.replace(':', '-', 1)}.sig"


def payload_of(reference: Reference, digest: str) -> bytes:
    """What is signed: the same for the same repository and digest."""
    # go-containerregistry's name of Docker's registry, which cosign writes.
    registry = "index.docker.io" if reference.registry == DEFAULT_REGISTRY else reference.registry
    return _json(
        {
            "critical": {
                "identity": {"docker-reference": f"{registry}/{reference.repository}"},
                "image": {"docker-manifest-digest": digest},
                "type": _KIND,
            },
            "optional": None,
        }
    )


def sign_image(remote: Remote, store: Store, reference: Reference, digest: str, signer: Signer) -> bool:
    """Adds a signature of ``digest`` to those it has; False where it has one by this key.

    Others' stay. Raises ``FetchError``."""
    present = _signatures(remote, reference, digest)
    if _verified(remote, reference, digest, present, signer.public_key):
        return False
    if len(present) >= _MOST:
        raise FetchError(f"{reference.name}@{digest} has {len(present)} signatures already")
    payload = payload_of(reference, digest)
    layer = {
        "mediaType": PAYLOAD_TYPE,
        "digest": store.add_blob(payload),
        "size": len(payload),
        "annotations": {SIGNATURE: base64.b64encode(signer.sign(payload)).decode()},
    }
    layers = [*present, layer]
    config = _json(
        {
            "architecture": "",
            "created": "0001-01-01T00:00:00Z",
            "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
            "config": {},
        }
    )
    config_digest = store.add_blob(config)
    remote.push_blobs(
        reference,
        [
            Descriptor(digest=str(layer["digest"]), size=len(payload), media_type=PAYLOAD_TYPE),
            Descriptor(digest=config_digest, size=len(config), media_type=OCI_CONFIG),
        ],
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": len(config)},
        "layers": layers,
    }
    remote.push_manifest(reference, _json(manifest), OCI_MANIFEST, signature_tag(digest))
    return True


def verify_signature(remote: Remote, reference: Reference, digest: str, public_key: PublicKey) -> bool:
    """Whether ``digest`` has a signature by this key there. Raises ``FetchError``.

    As with cosign, the repository's name in the payload doesn't count: images are copied."""
    return _verified(remote, reference, digest, _signatures(remote, reference, digest), public_key)


def _signatures(remote: Remote, reference: Reference, digest: str) -> list[dict[str, Any]]:
    """The layers of the signatures' image as they stand there, checked for digest, size and type."""
    tag = signature_tag(digest)
    manifest = remote.find_manifest(reference, tag)
    if manifest is None:
        return []
    what = f"{reference.name}:{tag}"
    if manifest.media_type != OCI_MANIFEST:
        raise FetchError(f"{what}: no signatures, but {manifest.media_type}")
    checked = parts_of(manifest.content, what).layers
    layers = json.loads(manifest.content).get("layers") or []
    if len(layers) > 2 * _MOST:
        raise FetchError(f"{what}: more than {2 * _MOST} signatures")
    if len(checked) != len(layers):
        raise FetchError(f"{what}: not the form of signatures")
    return list(layers)


def _verified(
    remote: Remote,
    reference: Reference,
    digest: str,
    layers: Sequence[Mapping[str, Any]],
    public_key: PublicKey,
) -> bool:
    for layer in layers:
        annotations = layer.get("annotations")
        text = annotations.get(SIGNATURE) if isinstance(annotations, dict) else None
        if layer["mediaType"] != PAYLOAD_TYPE or not isinstance(text, str) or layer["size"] > _PAYLOAD_LIMIT:
            continue
        payload = remote.blob(reference, layer["digest"], layer["size"]).read_bytes()
        if digest_bytes(payload) != layer["digest"] or not _is_about(payload, digest):
            continue
        try:
            _verify(public_key, base64.b64decode(text, validate=True), payload)
        except (exceptions.InvalidSignature, binascii.Error, ValueError):
            continue
        return True
    return False


def _verify(public_key: PublicKey, signature: bytes, payload: bytes) -> None:
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
    else:
        public_key.verify(signature, payload)


def _is_about(payload: bytes, digest: str) -> bool:
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["type"] == _KIND and critical["image"]["docker-manifest-digest"] == digest)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _fits(key: object) -> bool:
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return key.curve.name == "secp256r1"
    return isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey))


def _needed() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "signatures need the package cryptography", hint="install it with: pip install 'envbuild[sign]'"
        ) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_KEY_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"can't read the key {path}: {error.strerror}") from error
    if len(content) > _KEY_LIMIT:
        raise UsageError(f"{path} is too large for a key")
    return content


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
