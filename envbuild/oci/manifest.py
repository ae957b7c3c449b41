"""Manifests, indexes and configs of images, read with distrust: OCI's and Docker's schema 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envbuild.errors import FetchError
from envbuild.oci.digest import is_diff_id, is_digest
from envbuild.platforms import Platform

MANIFEST_LIMIT = 4 << 20
"""Bytes; the distribution specification asks registries for this much."""
CONFIG_LIMIT = 8 << 20
"""Bytes of a config that is believed to be one."""
_LAYERS = 127
_SIZES = 1 << 63
_SHOWN = 100
"""Characters of a name of others' in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """One blob as a manifest names it. ``size`` is in bytes."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexEntry:
    """One image of an index. ``platform`` is ``os/architecture[/variant]`` as it stands there."""

    digest: str
    platform: str
    name: str | None = None
    """The annotation ``org.opencontainers.image.ref.name``."""
    full_name: str | None = None
    """The annotation ``io.containerd.image.name``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageManifest:
    """A single-platform image: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """All that a manifest or index names directly, of any type, in its order."""

    manifests: tuple[Descriptor, ...] = ()
    configs: tuple[Descriptor, ...] = ()
    layers: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """An image's config (OCI image-spec, config), of which nothing needs to have the right form."""

    document: Mapping[str, Any]
    """The whole, as it was written."""

    @property
    def stated_platform(self) -> str:
        """``os/architecture``."""
        return f"{self.document.get('os')}/{self.document.get('architecture')}"

    @property
    def created(self) -> str:
        created = self.document.get("created")
        return created if isinstance(created, str) else ""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        rootfs = self.document.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        return tuple(map(str, diff_ids)) if isinstance(diff_ids, list) else ()

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """The steps that made it, the first one first."""
        history = self.document.get("history")
        return tuple(step for step in history if isinstance(step, dict)) if isinstance(history, list) else ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The inner ``config`` object: ``Env``, ``Entrypoint``, ``WorkingDir``…"""
        inner = self.document.get("config")
        return inner if isinstance(inner, dict) else {}

    @property
    def labels(self) -> dict[str, str]:
        """Those that are text."""
        labels = self.settings.get("Labels")
        items = labels.items() if isinstance(labels, dict) else ()
        return {str(key): value for key, value in items if isinstance(value, str)}

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables."""
        lines = self.settings.get("Env")
        return dict(str(line).partition("=")[::2] for line in lines) if isinstance(lines, list) else {}


def media_type_of(content: bytes) -> str:
    """The media type that a manifest or index states, or that its shape shows. Raises ``FetchError``."""
    try:
        document = json.loads(content)
        stated = document.get("mediaType")
    except (ValueError, AttributeError, RecursionError) as error:
        raise FetchError("the registry sent a manifest that is no JSON object") from error
    if stated in (*INDEXES, *MANIFESTS):
        return str(stated)
    if stated is None and isinstance(document.get("manifests"), list):
        return INDEXES[0]
    if stated is None and isinstance(document.get("layers"), list):
        return MANIFESTS[0]
    if document.get("schemaVersion") == 1 or _SCHEMA_1 in str(stated):
        raise FetchError(
            "an image of Docker's schema 1, which no engine of today reads",
            hint="whoever made it pulls it with an older tool and pushes it again",
        )
    raise FetchError(f"the registry sent a manifest of the unknown type {str(stated)[:_SHOWN]!r}")


def parse_index(content: bytes, what: str) -> tuple[IndexEntry, ...]:
    """The images of an index, attestations left out. Raises ``FetchError``."""
    document = _object(content, what)
    index_entries = []
    for item in _list(document.get("manifests"), what):
        if not isinstance(item, dict) or not is_digest(str(item.get("digest"))):
            raise _no_digest(item, what, "an entry of the index has no sha256 digest")
        platform = item.get("platform")
        annotations = item.get("annotations")
        annotations = annotations if isinstance(annotations, dict) else {}
        if annotations.get("vnd.docker.reference.type"):
            continue  # An attestation of BuildKit, not an image.
        text = ""
        if isinstance(platform, dict):
            parts = [str(platform.get(key) or "") for key in ("os", "architecture", "variant")]
            text = "/".join(part for part in parts if part)
        name = annotations.get("org.opencontainers.image.ref.name")
        full = annotations.get("io.containerd.image.name")
        index_entries.append(
            IndexEntry(
                digest=str(item["digest"]),
                platform=text,
                name=name if isinstance(name, str) else None,
                full_name=full if isinstance(full, str) else None,
            )
        )
    return tuple(index_entries)


def matches(platform: Platform, text: str) -> bool:
    """Whether an index's ``os/architecture[/variant]`` is ``platform``; arm64 has the variant v8 or none."""
    return text in (str(platform), f"{platform}/v8" if platform.architecture == "arm64" else str(platform))


def parse_manifest(content: bytes, what: str) -> ImageManifest:
    """The blobs of an image. Raises ``FetchError`` for what isn't one, and for layers of unknown types."""
    document = _object(content, what)
    config = _descriptor(document.get("config"), what)
    kind = _artifact(str(document.get("artifactType") or ""), config.media_type)
    if kind is not None:
        raise FetchError(f"{what}: {kind}, not an image", hint="name an image of the repository, by its tag")
    layers = tuple(_descriptor(item, what) for item in _list(document.get("layers"), what))
    if len(layers) > _LAYERS:
        raise FetchError(f"{what}: {len(layers)} layers are more than any engine mounts ({_LAYERS})")
    for layer in layers:
        if layer.media_type not in LAYERS:
            raise FetchError(
                f"{what}: a layer has the type {layer.media_type[:_SHOWN]!r}, which can't be used",
                hint="layers that may not be distributed (Windows) and encrypted ones don't work",
            )
    return ImageManifest(config=config, layers=layers)


def _artifact(artifact_type: str, config_type: str) -> str | None:
    """What a manifest holds that isn't an image's; None for an image."""
    if config_type in _CONFIGS:
        return None
    if config_type.startswith(_HELM):
        return "a Helm chart"
    # An artifact without a config says what it is beside it (image-spec, guidelines for artifact usage).
    shown = artifact_type or config_type
    return f"an OCI artifact of the type {shown[:_SHOWN]}"


def parts_of(content: bytes, what: str) -> Parts:
    """What must be pushed before this manifest or index can be: attestations and other artifacts too, but not
    what no registry holds. Raises ``FetchError`` for what isn't one."""
    document = _object(content, what)
    if isinstance(document.get("manifests"), list):
        return Parts(manifests=tuple(_descriptor(item, what) for item in document["manifests"]))
    layers = [_descriptor(item, what) for item in _list(document.get("layers"), what)]
    return Parts(
        configs=(_descriptor(document.get("config"), what),),
        layers=tuple(layer for layer in layers if not layer.media_type.startswith(ELSEWHERE)),
    )


def parse_config(content: bytes, what: str, layers: int) -> ConfigDocument:
    """The config of an image, which has one diff_id for each of ``layers``. Raises ``FetchError``."""
    document = _object(content, what)
    config, rootfs = ConfigDocument(document), document.get("rootfs")
    _list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, what)
    if not all(map(is_diff_id, config.diff_ids)) or len(config.diff_ids) != layers:
        raise FetchError(f"{what}: the config names {len(config.diff_ids)} layers, the manifest has {layers}")
    _check_form(document, what)
    return config


def _check_form(document: Mapping[str, Any], what: str) -> None:
    """Raises ``FetchError`` unless what is taken over from a config has the image-spec's form."""
    settings = document.get("config")
    settings = {} if settings is None else settings
    good = isinstance(settings, dict)
    if isinstance(settings, dict):
        good = all(isinstance(settings.get(key) or {}, dict) for key in ("ExposedPorts", "Labels", "Volumes"))
        good = good and all(isinstance(entry, str) for entry in _list(settings.get("Env"), what))
    good = good and all(isinstance(entry, dict) for entry in _list(document.get("history"), what))
    if not good:
        raise FetchError(f"{what}: not the form of an image config")


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{what}: not valid JSON") from error
    if not isinstance(document, dict):
        raise FetchError(f"{what}: not a JSON object")
    return document


def _list(value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise FetchError(f"{what}: not the form of an image manifest")
    return value


def _descriptor(value: object, what: str) -> Descriptor:
    if isinstance(value, dict):
        digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType")
        named = isinstance(digest, str) and is_digest(digest) and isinstance(media_type, str)
        if named and type(size) is int and 0 <= size < _SIZES:
            return Descriptor(digest=str(digest), size=size, media_type=str(media_type))
    raise _no_digest(value, what, "a descriptor has no digest, size and type")


def _no_digest(value: object, what: str, otherwise: str) -> FetchError:
    """Why a descriptor can't be used: its digest is of the other registered algorithm, or ``otherwise``."""
    digest = value.get("digest") if isinstance(value, dict) else None
    if not isinstance(digest, str) or is_digest(digest) or not is_diff_id(digest):
        return FetchError(f"{what}: {otherwise}")
    return FetchError(
        f"{what}: it names a blob by SHA-512 ({digest[:19]}…), which only diff_ids may have here",
        hint="whoever made the image writes it again with sha256 digests, which all engines take",
    )


OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream")
"""Types of an image's config; Docker 1.10 wrote the last one."""
_HELM = "application/vnd.cncf.helm."
_SCHEMA_1 = "docker.distribution.manifest.v1+"

IN_TOTO = "application/vnd.in-toto+json"
"""An in-toto statement, such as an image's provenance."""

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)

LAYERS = {
    OCI_LAYER: OCI_LAYER,
    OCI_LAYER_GZIP: OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD: OCI_LAYER_ZSTD,
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": OCI_LAYER_ZSTD,
}
"""Every layer type envbuild reads, and the OCI name of the same bytes."""

ELSEWHERE = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)
"""How the types of layers begin that registries needn't hold: Windows' own, which its maker serves."""
