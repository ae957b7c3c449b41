"""Config, manifest and index of an image as bytes: same plan, same bytes (OCI image-spec 1.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from envbuild.errors import BuildError
from envbuild.images.describe import CREATED_BY
from envbuild.lock.model import ImageBase
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image, Layer
from envbuild.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from envbuild.plan.activation import Activation
from envbuild.plan.make import DEFAULT_PATH
from envbuild.plan.model import ArtifactKind, Plan
from envbuild.store.content import Store
from envbuild.store.images import read_config

NOT_ACTIVATED = Activation()


def image_json(value: object) -> bytes:
    """``value`` as the JSON of an image's documents: sorted keys, no spaces, UTF-8, no floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def timestamp(seconds: int) -> str:
    """RFC 3339 in UTC: ``1970-01-01T00:00:00Z``."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)
    except (OverflowError, ValueError, OSError) as error:
        raise BuildError(f"{seconds} is no time", hint="check SOURCE_DATE_EPOCH") from error


def manifest_annotations(plan: Plan) -> dict[str, str]:
    """What a manifest says of where it came from (docs/design.md §6)."""
    annotations = {
        "org.opencontainers.image.created": timestamp(plan.created),
        "dev.envbuild.definition": plan.definition_digest,
        "dev.envbuild.lock": plan.lock_digest,
        "dev.envbuild.level": plan.level,
    }
    if isinstance(plan.base, ImageBase):
        annotations["org.opencontainers.image.base.name"] = plan.base.reference
        annotations["org.opencontainers.image.base.digest"] = plan.base.digest
    return annotations


def config_json(
    plan: Plan,
    layers: Sequence[Layer],
    *,
    below: Sequence[Layer] = (),
    inherited: Mapping[str, Any] | None = None,
    activation: Activation = NOT_ACTIVATED,
) -> bytes:
    """The image config. ``inherited`` is the base's own config document: its variables, working directory,
    volumes and history stay unless the plan says otherwise; where the base says nothing, neither do we.
    ``activation`` is what the packages themselves set."""
    inherited = inherited or {}
    if plan.config.inherit:
        return image_json(_as_it_is(plan, inherited))
    base_config: Mapping[str, Any] = inherited.get("config") or {}
    ours = plan.config
    env = {**config_env(plan, below=bool(below), inherited=inherited), **activation.env}
    config: dict[str, Any] = {
        key: base_config[key] for key in ("Volumes", "StopSignal", "WorkingDir") if base_config.get(key)
    }
    config["Env"] = [f"{key}={value}" for key, value in sorted(env.items())]
    ports = dict(base_config.get("ExposedPorts") or {})
    ports.update((port, {}) for port in ours.exposed_ports)
    labels = dict(base_config.get("Labels") or {})
    labels.update(activation.with_labels(dict(ours.labels)))
    for key, value in (
        ("User", ours.user or base_config.get("User")),
        ("Cmd", list(ours.cmd)),
        ("Entrypoint", list(ours.entrypoint)),
        ("WorkingDir", ours.working_dir or config.get("WorkingDir")),
        ("ExposedPorts", ports),
        ("Labels", labels),
    ):
        if value:
            config[key] = value
    created = timestamp(plan.created)
    history: list[dict[str, Any]] = [dict(item) for item in inherited.get("history") or ()]
    filled = sum(1 for item in history if not item.get("empty_layer"))
    if filled != len(below):
        # A history that doesn't fit the base's layers would be shifted against ours.
        history = [{"created": created, "created_by": "base image"} for _ in below]
    history.extend({"created": created, "created_by": CREATED_BY, "comment": layer.name} for layer in layers)
    document: dict[str, Any] = {
        "architecture": plan.platform.architecture,
        "os": plan.platform.os,
        "created": created,
        "config": config,
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in (*below, *layers)]},
    }
    if inherited.get("variant"):
        document["variant"] = inherited["variant"]
    return image_json(document)


def config_env(plan: Plan, *, below: bool, inherited: Mapping[str, Any] | None) -> dict[str, str]:
    """The variables of the image as the plan and the base have them; ``below``: there is a base."""
    base_config: Mapping[str, Any] = (inherited or {}).get("config") or {}
    env = dict(_pair(item) for item in base_config.get("Env") or ())
    # Docker's own, where the image has none.
    below_path = (env.get("PATH") or DEFAULT_PATH).split(":") if below else []
    env.update(plan.config.env)
    if "PATH" in env:
        # What the base put on its PATH stays reachable, behind ours.
        env["PATH"] = ":".join(dict.fromkeys(part for part in [*env["PATH"].split(":"), *below_path] if part))
    return env


def _as_it_is(plan: Plan, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """The base's own config document with what the plan says on top, and nothing else changed: whatever keys
    it has stay, its time and history too, since there is no layer of ours."""
    ours = plan.config
    config: dict[str, Any] = dict(inherited.get("config") or {})
    chosen = dict(ours.env)
    env = [
        f"{name}={chosen.pop(name)}" if (name := _pair(item)[0]) in chosen else item
        for item in config.get("Env") or ()
    ]
    for key, value in (
        ("Env", [*env, *(f"{name}={value}" for name, value in sorted(chosen.items()))]),
        ("User", ours.user),
        ("ExposedPorts", {**(config.get("ExposedPorts") or {}), **{port: {} for port in ours.exposed_ports}}),
        ("Labels", {**(config.get("Labels") or {}), **dict(ours.labels)}),
    ):
        if value:
            config[key] = value
    return {**inherited, "config": config}


def manifest_json(plan: Plan, config_digest: str, config_size: int, layers: Sequence[Layer]) -> bytes:
    """The manifest of all layers, the base's first."""
    return image_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config_size},
            "layers": [
                {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
            "annotations": manifest_annotations(plan),
        }
    )


def store_image(
    store: Store,
    plan: Plan,
    layers: Sequence[Layer],
    *,
    below: Sequence[Layer] = (),
    inherited: Mapping[str, Any] | None = None,
    activation: Activation = NOT_ACTIVATED,
) -> Image:
    """Writes config and manifest into the store and returns the image."""
    config = config_json(plan, layers, below=below, inherited=inherited, activation=activation)
    config_digest = store.add_blob(config)
    manifest = manifest_json(plan, config_digest, len(config), (*below, *layers))
    return Image(
        platform=plan.platform,
        digest=store.add_blob(manifest),
        media_type=OCI_MANIFEST,
        size=len(manifest),
        config_digest=config_digest,
        layers=(*below, *layers),
        lock_digest=plan.lock_digest,
        definition_digest=plan.definition_digest,
        level=plan.level,
    )


def documents_follow(
    image: Image, plan: Plan, store: Store, *, inherited: Mapping[str, Any] | None = None
) -> bool:
    """Whether manifest and config of ``image``, both in ``store``, are those that composing ``plan`` gives
    for its layers: no layer more or less, no other setting. ``inherited`` is the config document of the
    image base. What the layers hold is another question, and so is what activating them sets."""
    names = [layer.name for layer in plan.layers if layer.artifacts and not plan.config.inherit]
    count = len(image.layers) - len(names)
    base = plan.base.diff_ids if isinstance(plan.base, ImageBase) else ()
    below = image.layers[: max(count, 0)]
    if count < 0 or tuple(layer.diff_id for layer in below) != base:
        return False
    own = [replace(layer, name=name) for layer, name in zip(image.layers[count:], names, strict=True)]
    config = config_json(
        plan, own, below=below, inherited=inherited, activation=stated_activation(image, plan, store)
    )
    return digest_bytes(config) == image.config_digest and _is_manifest(image, plan, len(config))


def stated_activation(image: Image, plan: Plan, store: Store) -> Activation:
    """What ``image`` says that activation sets; nothing where ``plan`` has no conda packages."""
    if not any(artifact.kind is ArtifactKind.CONDA for artifact in plan.artifacts):
        return NOT_ACTIVATED
    return Activation.of_config(read_config(image, store))


def is_manifest_of(image: Image, plan: Plan, store: Store) -> bool:
    """Whether the manifest of ``image`` is the one that envbuild writes for ``plan``, whoever built its
    layers; others who build on such an image write one of their own. The config is in the store."""
    return _is_manifest(image, plan, store.blob(image.config_digest).stat().st_size)


def _is_manifest(image: Image, plan: Plan, config_size: int) -> bool:
    return digest_bytes(manifest_json(plan, image.config_digest, config_size, image.layers)) == image.digest


def index_json(images: Sequence[Image], *, created: int = 0) -> bytes:
    """The index of several single-platform images, in the order of their platforms' names."""
    ordered = sorted(images, key=lambda image: image.platform)
    if len({image.platform for image in ordered}) != len(ordered):
        raise BuildError("an index can't hold two images of one platform")
    annotations = {
        "org.opencontainers.image.created": timestamp(created),
        "dev.envbuild.level": min(image.level for image in ordered),
    }
    definitions = {image.definition_digest for image in ordered}
    if len(definitions) == 1:
        annotations["dev.envbuild.definition"] = definitions.pop()
    return image_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": image.media_type,
                    "digest": image.digest,
                    "size": image.size,
                    "platform": {"os": image.platform.os, "architecture": image.platform.architecture},
                    "annotations": {"dev.envbuild.lock": image.lock_digest},
                }
                for image in ordered
            ],
            "annotations": annotations,
        }
    )


def store_index(store: Store, images: Sequence[Image], *, created: int = 0) -> str:
    """Writes the index into the store and returns its digest."""
    return store.add_blob(index_json(images, created=created))


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key, value
