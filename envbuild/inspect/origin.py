"""Images that others made of one of ours: they have inherited its labels, and aren't what its lock gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any

from envbuild.compose.codec import composer_identity
from envbuild.compose.engine import NativeEngine
from envbuild.compose.image import config_json, stated_activation
from envbuild.images.describe import layers_of_others
from envbuild.lock.identity import ComposerSettings
from envbuild.lock.model import ImageBase, Lock, PlatformLock, RuntimeSettings
from envbuild.oci.digest import digest_bytes, is_digest
from envbuild.oci.image import Image
from envbuild.oci.manifest import OCI_LAYER_ZSTD, ConfigDocument
from envbuild.plan.make import make_plan, plan_identity
from envbuild.plan.model import Plan
from envbuild.specs.model import EnvironmentType
from envbuild.store.content import Store
from envbuild.store.images import read_config, read_manifest


def additions_of_others(image: Image, store: Store) -> str:
    """What others have put on an image of ours: ``1 layer of others``; empty where nobody did."""
    count = layers_of_others(store.blob(image.digest).read_bytes(), read_config(image, store))
    if count is None:
        return ""
    return _layers(count, "of others") if count else "settings of others"


def additions_to_plan(image: Image, plan: Plan, store: Store) -> str:
    """What ``image`` has that composing ``plan``, made from the lock inside it, doesn't give; empty where
    that is all. Layers count by their number and names, not by what they hold.

    What an image base brings isn't asked of its registry, so a setting that others have put in its place is
    noticed only if the plan states it too, or the history tells."""
    names = [layer.name for layer in plan.layers if layer.artifacts]
    below = len(plan.base.diff_ids) if isinstance(plan.base, ImageBase) else 0
    if [layer.name for layer in image.layers[below : below + len(names)]] != names:
        return "other layers than its lock gives"
    if more := len(image.layers) - below - len(names):
        return _layers(more, "more than its lock gives")
    config = read_config(image, store)
    expected = config_json(
        plan,
        image.layers[below:],
        below=image.layers[:below],
        inherited=_below(config.document, len(names)) if below else None,
        activation=stated_activation(image, plan, store),
    )
    return "" if digest_bytes(expected) == image.config_digest else "other settings than its lock gives"


def _below(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """``config`` as if it were that of the base, without our ``count`` layers."""
    history = config.get("history")
    return {**config, "history": history[: len(history) - count] if isinstance(history, list) else []}


def _layers(count: int, what: str) -> str:
    return f"1 layer {what}" if count == 1 else f"{count} layers {what}"


CREATED = "org.opencontainers.image.created"
_BUDGETS = range(4, 121)
"""What the setting may be (``settings.layer_budget``)."""


def composition_of(
    image: Image,
    manifest: Mapping[str, Any],
    lock: Lock,
    pins: PlatformLock,
    *,
    budget: int,
    compression: str = "gzip",
) -> tuple[ComposerSettings, bool]:
    """How ``lock`` gives the lock digest that ``image`` is labelled with, and whether it does at all.

    An image doesn't say its layer budget: each is tried, ``budget`` first, which costs less than a layer.
    ``compression`` is that of an image without layers of ours."""
    created = created_seconds(annotations_of(manifest).get(CREATED, "")) or 0
    if image.layers and image.layers[-1].name:
        compression = "zstd" if image.layers[-1].media_type == OCI_LAYER_ZSTD else "gzip"
    first = ComposerSettings(
        composer=composer_identity(compression),
        compression=compression,
        layer_budget=budget,
        created=max(0, created),
    )
    for step in dict.fromkeys((budget, 40, *_BUDGETS)):
        tried = replace(first, layer_budget=step)
        if plan_identity(lock, pins, tried) == image.lock_digest:
            return tried, True
    return first, False


def annotations_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of a manifest that are text."""
    annotations = manifest.get("annotations")
    items = annotations.items() if isinstance(annotations, dict) else ()
    return {str(key): value for key, value in items if isinstance(value, str)}


def created_seconds(text: str) -> int | None:
    """A time of RFC 3339 as whole seconds since the epoch; None where it is none."""
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return int(time.timestamp()) if time.tzinfo is not None else None
    except (ValueError, OverflowError, OSError):
        return None


_BASE = "org.opencontainers.image.base."


def taken_from(image: Image, store: Store) -> ImageBase | None:
    """Which image ``image`` was made of, as its labels say; None where they don't."""
    labels = read_config(image, store).labels
    reference, digest = labels.get(f"{_BASE}name", ""), labels.get(f"{_BASE}digest", "")
    return ImageBase(reference=reference, digest=digest) if reference and is_digest(digest) else None


def taken_lock(image: Image, store: Store, engine: NativeEngine) -> Plan | str:
    """The plan of ``image``, or why there is none. Raises ``BuildError`` where its base can't be had."""
    config = read_config(image, store)
    base = taken_from(image, store)
    if base is None or engine.base_loader is None:
        return "it has no lock inside, and doesn't say which image it was made of"
    reference, digest = base.reference, base.digest
    contents = engine.base_loader(base, image.platform)
    if [layer.diff_id for layer in contents.layers] != [layer.diff_id for layer in image.layers]:
        return f"it has no lock inside, and its layers aren't those of {reference}@{digest}"
    base = ImageBase(
        reference=reference,
        digest=digest,
        layers=len(contents.layers),
        diff_ids=tuple(layer.diff_id for layer in contents.layers),
    )
    inherited = ConfigDocument(contents.config)
    mine, below, known = config.settings, inherited.settings, inherited.variables
    own = {name: value for name, value in config.variables.items() if known.get(name) != value}
    ports = set(mine.get("ExposedPorts") or {}) - set(below.get("ExposedPorts") or {})
    user = str(mine.get("User") or "")
    runtime = RuntimeSettings(
        environment_variables=tuple(sorted(own.items())),
        user="" if user == str(below.get("User") or "") else user,
        ports=tuple(
            sorted(int(port.partition("/")[0]) for port in ports if port.partition("/")[0].isdigit())
        ),
        type=EnvironmentType.USER_MANAGED.value,
    )
    pins = PlatformLock(platform=image.platform, base=base, python=None)
    manifest = read_manifest(image, store)
    for bytecode, compression in product((True, False), ("gzip", "zstd")):
        lock = Lock(definition=image.definition_digest, platforms=(pins,), bytecode=bytecode, runtime=runtime)
        composition, follows = composition_of(image, manifest, lock, pins, budget=40, compression=compression)
        if follows:
            return make_plan(lock, pins, composition, host=image.platform)
    return (
        f"its layers are those of {reference}@{digest}, but its lock digest doesn't follow from what its "
        "config says beside"
    )
