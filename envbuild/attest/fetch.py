"""Documents that are attached to an image of a registry, fetched."""

from __future__ import annotations

import json

from envbuild.attest.attach import DOCUMENT
from envbuild.attest.base import AttachedDocument
from envbuild.errors import FetchError
from envbuild.oci.digest import is_digest
from envbuild.oci.manifest import parts_of
from envbuild.oci.reference import Reference
from envbuild.registry.base import Remote
from envbuild.registry.referrers import Referrer, referrers

_LARGEST = 256 << 20
"""Bytes of a document; a bill of a whole distribution has a tenth of it."""
_MOST = 20
"""How many of one kind are looked at."""


def attached_document(
    remote: Remote, repository: Reference, digest: str, artifact_type: str
) -> AttachedDocument | None:
    """The document of this type that is attached to ``digest``, envbuild's own before others'; None where
    there is none. Its bytes are what the registry's digests say; who wrote them isn't known. Raises
    ``FetchError``."""
    assert is_digest(digest)
    candidates = [
        referrer
        for referrer in referrers(remote, repository, digest, artifact_type)
        if referrer.artifact_type == artifact_type
    ]
    for referrer in sorted(candidates, key=lambda one: (not one.annotation(DOCUMENT), one.digest))[:_MOST]:
        document = _document(remote, repository, digest, referrer)
        if document is not None:
            return document
    return None


def _document(
    remote: Remote, repository: Reference, digest: str, referrer: Referrer
) -> AttachedDocument | None:
    """None for what isn't about the image, or is no single document."""
    manifest = remote.find_manifest(repository, referrer.digest)
    if manifest is None:
        return None
    what = f"{repository.name}@{referrer.digest}"
    layers = parts_of(manifest.content, what).layers
    subject = json.loads(manifest.content).get("subject")
    if not isinstance(subject, dict) or subject.get("digest") != digest or len(layers) != 1:
        return None
    if layers[0].size > _LARGEST:
        raise FetchError(f"{what}: the document has {layers[0].size} bytes, more than any has")
    return AttachedDocument(
        name=referrer.annotation(DOCUMENT) or "",
        media_type=layers[0].media_type,
        artifact_type=referrer.artifact_type,
        content=remote.blob(repository, layers[0].digest, layers[0].size).read_bytes(),
    )
