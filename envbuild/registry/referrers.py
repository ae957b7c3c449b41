"""What refers to an image of a registry, and attaching to it (OCI distribution-spec 1.1, referrers).

A registry that keeps no list of referrers has one in an index under the tag ``sha256-<hex>``, which clients
change themselves. Two that change it at once can lose an entry: it is read again after each change, which
notices the loss unless the other writes later still. Whoever attaches the same again restores it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envbuild.errors import FetchError
from envbuild.oci.digest import digest_bytes, is_digest
from envbuild.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, parts_of
from envbuild.oci.reference import Reference
from envbuild.registry.base import Remote
from envbuild.store.content import Store

CREATED = "org.opencontainers.image.created"
"""The annotation of a manifest that says when it was made; RFC 3339."""
COSIGN = (".sig", ".att", ".sbom")
"""What follows in a tag of cosign's, which attaches to an image by its name, without a list."""
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_MOST = 1000
"""Referrers of one image; more are no use to anybody."""
_ALIKE = 20
"""How many referrers of one artifact type are looked into for the same content."""
_TRIES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Referrer:
    """A manifest that says it is about an image. All of it is what strangers wrote."""

    digest: str
    size: int
    media_type: str
    artifact_type: str
    annotations: tuple[tuple[str, str], ...] = ()
    """Sorted pairs. A registry may not have taken them over from the manifest."""

    def annotation(self, key: str) -> str | None:
        return dict(self.annotations).get(key)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachedArtifact:
    """A document that is to refer to an image."""

    name: str
    """Of the file that a client would write it to."""
    artifact_type: str
    media_type: str
    content: bytes
    annotations: tuple[tuple[str, str], ...] = ()
    """Of its manifest."""


def fallback_tag(digest: str) -> str:
    """The tag of the index that lists the referrers of ``digest`` where the registry keeps no list."""
    return digest.replace(":", "-", 1)


def referrers(
    remote: Remote, reference: Reference, digest: str, artifact_type: str | None = None
) -> tuple[Referrer, ...]:
    """Everything that refers to ``digest``, or what is of ``artifact_type``, each once, in the registry's
    order. Raises ``FetchError``, also for a list that is longer than any honest one."""
    pages = remote.referrers(reference, digest, artifact_type)
    what = f"{reference.name}@{digest}"
    if pages is not None:
        entries = [entry for page in pages for entry in _entries(page, what)]
    else:
        entries = _entries_by_tag(remote, reference, digest)
    if len(entries) > _MOST:
        raise FetchError(f"{what}: more than {_MOST} artifacts refer to it")
    listed: dict[str, Referrer] = {}
    for entry in entries:
        referrer = _referrer(entry, what)
        if artifact_type is None or referrer.artifact_type == artifact_type:
            listed.setdefault(referrer.digest, referrer)
    return tuple(listed.values())


def attach(
    remote: Remote,
    store: Store,
    reference: Reference,
    subject: Descriptor,
    artifacts: Sequence[AttachedArtifact],
) -> tuple[str, ...]:
    """Makes each of ``artifacts`` refer to ``subject`` and returns the digests of their manifests.

    One whose content is attached already, under the same artifact type, stays as it is, whatever its
    annotations say. Raises ``FetchError``.
    """
    present = referrers(remote, reference, subject.digest)
    there = {artifact: _same(remote, reference, present, artifact) for artifact in artifacts}
    missing = [artifact for artifact, referrer in there.items() if referrer is None]
    if missing:
        new = dict(zip(missing, _pushed(remote, store, reference, subject, missing), strict=True))
        enlist(remote, reference, subject.digest, list(new.values()))
        there |= new
    return tuple(attached.digest for artifact in artifacts if (attached := there[artifact]) is not None)


def enlist(remote: Remote, reference: Reference, digest: str, new: Sequence[Referrer]) -> None:
    """Makes the list of what refers to ``digest`` have ``new``, whose manifests the repository has."""
    known = {referrer.digest for referrer in referrers(remote, reference, digest)}
    # A registry may keep a list, but not look at the subject of what is pushed.
    missing = [referrer for referrer in new if referrer.digest not in known]
    if missing:
        _list_by_tag(remote, reference, digest, missing)


def artifact_manifest(subject: Descriptor, artifact: AttachedArtifact, config: str, layer: str) -> bytes:
    """The manifest of ``artifact``, whose config and layer have these digests: same input, same bytes."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact.artifact_type,
        "config": {"mediaType": EMPTY_CONFIG, "digest": config, "size": 2},
        "layers": [
            {
                "mediaType": artifact.media_type,
                "digest": layer,
                "size": len(artifact.content),
                "annotations": {"org.opencontainers.image.title": artifact.name},
            }
        ],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
    }
    if artifact.annotations:
        document["annotations"] = dict(artifact.annotations)
    return _json(document)


def _pushed(
    remote: Remote,
    store: Store,
    reference: Reference,
    subject: Descriptor,
    artifacts: Sequence[AttachedArtifact],
) -> Iterator[Referrer]:
    config = store.add_blob(b"{}")
    layers = [store.add_blob(artifact.content) for artifact in artifacts]
    blobs = {config: Descriptor(digest=config, size=2, media_type=EMPTY_CONFIG)}
    for artifact, layer in zip(artifacts, layers, strict=True):
        blobs[layer] = Descriptor(digest=layer, size=len(artifact.content), media_type=artifact.media_type)
    remote.push_blobs(reference, list(blobs.values()))
    for artifact, layer in zip(artifacts, layers, strict=True):
        content = artifact_manifest(subject, artifact, config, layer)
        digest = store.add_blob(content)
        remote.push_manifest(reference, content, OCI_MANIFEST, digest)
        yield Referrer(
            digest=digest,
            size=len(content),
            media_type=OCI_MANIFEST,
            artifact_type=artifact.artifact_type,
            annotations=tuple(sorted(artifact.annotations)),
        )


def _same(
    remote: Remote, reference: Reference, present: Sequence[Referrer], artifact: AttachedArtifact
) -> Referrer | None:
    """The one of ``present`` that holds the artifact's content."""
    wanted = digest_bytes(artifact.content)
    alike = [referrer for referrer in present if referrer.artifact_type == artifact.artifact_type]
    for candidate in alike[:_ALIKE]:
        manifest = remote.find_manifest(reference, candidate.digest)
        if manifest is None or manifest.media_type != OCI_MANIFEST:
            continue
        try:
            layers = parts_of(manifest.content, candidate.digest).layers
        except FetchError:
            continue  # Whatever somebody attached there, it isn't ours.
        if [layer.digest for layer in layers] == [wanted]:
            return candidate
    return None


def _entries_by_tag(remote: Remote, reference: Reference, digest: str) -> list[Any]:
    tag = fallback_tag(digest)
    top = remote.find_manifest(reference, tag)
    if top is None:
        return []
    what = f"{reference.name}:{tag}"
    if top.media_type != OCI_INDEX:
        raise FetchError(f"{what}: no list of what refers to {digest}, but {top.media_type}")
    return _entries(top.content, what)


def _list_by_tag(remote: Remote, reference: Reference, digest: str, new: Sequence[Referrer]) -> None:
    """Adds ``new`` to the index under the fallback tag, until a look finds all of them there."""
    for _ in range(_TRIES):
        entries = _entries_by_tag(remote, reference, digest)
        known = {entry.get("digest") for entry in entries if isinstance(entry, dict)}
        missing = [_descriptor(referrer) for referrer in new if referrer.digest not in known]
        if not missing:
            return
        if len(entries) + len(missing) > _MOST:
            raise FetchError(f"{reference.name}@{digest}: more than {_MOST} artifacts would refer to it")
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, *missing]}
        remote.push_manifest(reference, _json(index), OCI_INDEX, fallback_tag(digest))
    raise FetchError(
        f"{reference.name}:{fallback_tag(digest)}: others keep changing the list of what is attached",
        hint="push again: what is there already stays",
    )


def _entries(content: bytes, what: str) -> list[Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{what}: the list of what is attached is no JSON") from error
    entries = document.get("manifests") if isinstance(document, dict) else None
    if entries is None and isinstance(document, dict):
        return []
    if not isinstance(entries, list):
        raise FetchError(f"{what}: not the form of a list of what is attached")
    return entries


def _referrer(entry: Any, what: str) -> Referrer:
    if isinstance(entry, dict):
        digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType")
        named = isinstance(digest, str) and is_digest(digest) and isinstance(media_type, str)
        if named and type(size) is int and size >= 0:
            kind = entry.get("artifactType")
            annotations = entry.get("annotations")
            return Referrer(
                digest=str(digest),
                size=size,
                media_type=str(media_type),
                artifact_type=kind if isinstance(kind, str) else "",
                annotations=_texts(annotations if isinstance(annotations, dict) else {}),
            )
    raise FetchError(f"{what}: something attached has no digest, size and type")


def _texts(annotations: Mapping[object, object]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(key), value) for key, value in annotations.items() if isinstance(value, str)))


def _descriptor(referrer: Referrer) -> dict[str, Any]:
    descriptor: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
        "artifactType": referrer.artifact_type,
    }
    if referrer.annotations:
        descriptor["annotations"] = dict(referrer.annotations)
    return descriptor


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
