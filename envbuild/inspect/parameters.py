"""How an image was put together, found out from the image itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envbuild.compose.codec import composer_identity
from envbuild.inspect.documents import CREATED, annotations_of, created_seconds
from envbuild.lock.identity import ComposerSettings
from envbuild.lock.model import Lock, PlatformLock
from envbuild.oci.image import Image
from envbuild.oci.media import OCI_LAYER_ZSTD
from envbuild.plan.make import plan_identity

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
    for each in dict.fromkeys((budget, 40, *_BUDGETS)):
        tried = replace(first, layer_budget=each)
        if plan_identity(lock, pins, tried) == image.lock_digest:
            return tried, True
    return first, False
