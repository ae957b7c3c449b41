"""Images that others made of one of ours: they have inherited its labels, and aren't what its lock gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envbuild.compose.image import config_json
from envbuild.images.describe import layers_of_others
from envbuild.inspect.documents import config_of
from envbuild.lock.model import ImageBase
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.plan.model import Plan
from envbuild.store.content import Store


def additions_of_others(image: Image, store: Store) -> str:
    """What others have put on an image of ours: ``1 layer of others``; empty where nobody did."""
    count = layers_of_others(store.blob(image.digest).read_bytes(), config_of(image, store))
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
    config = config_of(image, store)
    expected = config_json(
        plan,
        image.layers[below:],
        below=image.layers[:below],
        inherited=_below(config, len(names)) if below else None,
    )
    return "" if digest_bytes(expected) == image.config_digest else "other settings than its lock gives"


def _below(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """``config`` as if it were that of the base, without our ``count`` layers."""
    history = config.get("history")
    return {**config, "history": history[: len(history) - count] if isinstance(history, list) else []}


def _layers(count: int, what: str) -> str:
    return f"1 layer {what}" if count == 1 else f"{count} layers {what}"
