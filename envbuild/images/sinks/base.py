"""What brings images elsewhere; and what a set of images is in files: blobs, index.json, manifest.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from envbuild.errors import PublishError, UsageError
from envbuild.oci.digest import canonical_json
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import OCI_INDEX
from envbuild.oci.reference import Reference
from envbuild.progress import Progress
from envbuild.store.content import Store

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
"""Content of ``oci-layout`` (OCI image-spec, image-layout)."""
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"

Result = TypeVar("Result", covariant=True)


class Sink(Protocol[Result]):
    """Brings images to one place: a layout, an archive, a Docker engine, a repository."""

    def publish(self, image_set: ImageSet) -> Result:
        """Returns what it came to: of a repository a ``PushResult``, else a line for people that says where
        the images now are. Raises ``PublishError``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """One ``repository:tag`` that an image is published under."""

    text: str
    """As given: ``train:3f2a…``; also the annotation ``org.opencontainers.image.ref.name``."""
    full: str
    """With registry: what containerd calls it."""
    familiar: str
    """As Docker shows it."""


def names(image_set: ImageSet) -> tuple[Name, ...]:
    """The set's names, checked, each once; raises ``PublishError`` with all that no engine would
    take."""
    names: dict[str, Name] = {}
    problems: list[str] = []
    for text in image_set.names:
        try:
            reference = Reference.parse(text)
        except UsageError as error:
            problems.append(str(error))
            continue
        familiar = f"{reference.familiar}:{reference.tag or 'latest'}"
        # ``app`` and ``app:latest`` are one name.
        names.setdefault(reference.tagged, Name(text=text, full=reference.tagged, familiar=familiar))
    if problems:
        raise PublishError("\n".join(problems), hint="choose another name with --tag")
    return tuple(names.values())


def note_names(image_set: ImageSet, where: str, progress: Progress) -> None:
    """Tells how others read ``where``, a layout or an archive of one, where the set has several
    names: podman, buildah and skopeo take none of several unasked."""
    named = names(image_set)
    if len(named) > 1:
        what = f"{where} has {len(named)} names"
        progress.note(f"{what}; podman and skopeo take one: {where}:{named[0].text}")


def blobs(image_set: ImageSet, store: Store) -> tuple[str, ...]:
    """Digests of all blobs, sorted, each once. Raises ``PublishError`` where the store lacks one."""
    wanted = {digest for image in image_set.images for digest in image.blobs}
    if image_set.index_digest:
        wanted.add(image_set.index_digest)
    if image_set.whole is not None:
        wanted = set(image_set.whole.blobs)
    missing = sorted(digest for digest in wanted if not store.has_blob(digest))
    if missing:
        raise PublishError(
            "the store lacks parts of the image: " + ", ".join(missing),
            hint="build it again with --no-cache",
        )
    return tuple(sorted(wanted))


def descriptors(image_set: ImageSet, store: Store) -> tuple[dict[str, object], ...]:
    """The entries of index.json for this image set: one a name, or one unnamed where it has none."""
    top: dict[str, object]
    if image_set.whole is not None:
        whole = image_set.whole
        top = {"mediaType": whole.media_type, "digest": whole.digest, "size": whole.size}
    elif image_set.index_digest:
        top = {
            "mediaType": OCI_INDEX,
            "digest": image_set.index_digest,
            "size": store.blob(image_set.index_digest).stat().st_size,
        }
    else:
        image = image_set.images[0]
        top = {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.size,
            "platform": {"architecture": image.platform.architecture, "os": image.platform.os},
        }
    entries: list[dict[str, object]] = [
        {**top, "annotations": {REF_NAME: name.text, CONTAINERD_NAME: name.full}} for name in names(image_set)
    ]
    return tuple(entries) or (top,)


def index_json(entries: tuple[Mapping[str, object], ...]) -> bytes:
    """The bytes of index.json with these descriptors, in this order."""
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)})


def manifest_json(image: Image, tags: tuple[str, ...]) -> bytes:
    """Docker's manifest.json for one image, pointing at the blobs of the OCI layout beside it."""
    entry = {
        "Config": blob_path(image.config_digest),
        "RepoTags": list(tags) or None,
        "Layers": [blob_path(layer.digest) for layer in image.layers],
    }
    return json.dumps([entry], sort_keys=True, separators=(",", ":")).encode()


def blob_path(digest: str) -> str:
    """Where an OCI layout has the blob: ``blobs/sha256/<hex>``."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def check_images(image_set: ImageSet) -> None:
    """Raises ``PublishError`` for a set that holds no image, or several and no index."""
    if image_set.whole is not None:
        return
    if not image_set.images:
        raise PublishError("there is no image to publish")
    if len(image_set.images) > 1 and image_set.index_digest is None:
        raise PublishError("several platforms need an index", hint="this is a fault of envbuild: report it")
