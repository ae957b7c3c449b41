"""What differs between two images of one platform."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from envbuild.inspect.inspect import Bring, packages_of, sound_lock, texts
from envbuild.inspect.model import ImageDifference, PathDifference, PinChange, Value
from envbuild.inspect.tree import differences, merged
from envbuild.lock.diff import lock_changes
from envbuild.oci.image import Image
from envbuild.store.content import Store
from envbuild.store.images import read_config

_PATHS = 1000
"""Paths that are named."""
_DEPTH = 12
_LAYERS_SAY = frozenset({"rootfs.diff_ids", "history"})


def layer_sizes(image: Image) -> dict[str, int]:
    """Size by digest of an image's layers."""
    return {layer.digest: layer.size for layer in image.layers}


def compared(
    before: Image,
    after: Image,
    store: Store,
    *,
    bring_before: Bring,
    bring_after: Bring,
    files: bool,
) -> ImageDifference:
    """What differs from ``before`` to ``after``. ``files``: also which paths, for which all layers that both
    don't have alike are brought and read. Raises ``BuildError``, ``LockError`` and ``FetchError``."""
    old, new = layer_sizes(before), layer_sizes(after)
    same = before.digest == after.digest
    paths: tuple[PathDifference, ...] | None = None
    more = 0
    if files:
        paths = ()
    if files and [layer.diff_id for layer in before.layers] != [layer.diff_id for layer in after.layers]:
        # What both begin with is read too: a layer above it may hide or change its entries.
        bring_before(before.layers)
        bring_after(after.layers)
        paths, more = differences(
            merged(before.layers, store),
            merged(after.layers, store),
            gone="removed",
            new="added",
            times=False,
            limit=_PATHS,
        )
    config = () if same else _config(before, after, store)
    return ImageDifference(
        platform=str(after.platform) if before.platform == after.platform else "",
        packages=() if same else _packages(before, after, store, bring_before, bring_after),
        config=config,
        pulled=pulled_bytes(old, new),
        size=sum(new.values()),
        same=same,
        paths=paths,
        more_paths=more,
        only=() if same or config else _form(before, after, store),
    )


def only_one(image: Image, *, first: bool) -> ImageDifference:
    """For a platform that only the first, or only the second, of two indexes has."""
    sizes = layer_sizes(image)
    name = str(image.platform)
    return ImageDifference(
        platform=name,
        packages=(),
        config=(("platform", name, None) if first else ("platform", None, name),),
        pulled=0 if first else sum(sizes.values()),
        size=0 if first else sum(sizes.values()),
        same=False,
    )


def _form(before: Image, after: Image, store: Store) -> tuple[str, ...]:
    """How two images of the same files and settings differ; empty where the files aren't the same."""
    layers = before.layers, after.layers
    old, new = ([layer.diff_id for layer in side] for side in layers)
    if old != new:
        return ()
    old_blobs, new_blobs = ([layer.digest for layer in side] for side in layers)
    configs = read_config(before, store).document, read_config(after, store).document
    if old_blobs == new_blobs and before.config_digest == after.config_digest:
        return ("the form of the manifest",)
    differing = {
        "compression": old_blobs != new_blobs,
        "history": configs[0].get("history") != configs[1].get("history"),
    }
    return tuple(name for name, differs in differing.items() if differs) or ("the form of the config",)


def _config(before: Image, after: Image, store: Store) -> tuple[Value, ...]:
    values = value_differences(read_config(before, store).document, read_config(after, store).document)
    return tuple(difference for difference in values if difference[0] not in _LAYERS_SAY)


def _packages(
    before: Image, after: Image, store: Store, bring_before: Bring, bring_after: Bring
) -> tuple[PinChange, ...]:
    if [layer.diff_id for layer in before.layers] == [layer.diff_id for layer in after.layers]:
        return ()
    if before.platform == after.platform:
        locks = sound_lock(before, store, bring_before), sound_lock(after, store, bring_after)
        if locks[0] is not None and locks[1] is not None:
            return lock_changes(locks[0], locks[1])
    old, new = (
        {(package.kind, package.name): package.version for package in packages_of(image, store, bring)}
        for image, bring in ((before, bring_before), (after, bring_after))
    )
    return tuple(
        PinChange(
            platform=str(after.platform),
            kind=kind,
            name=name,
            before=old.get((kind, name)),
            after=new.get((kind, name)),
        )
        for kind, name in sorted(old.keys() | new.keys())
        if old.get((kind, name)) != new.get((kind, name))
    )


def pulled_bytes(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Bytes that whoever has the layers ``before`` (size by digest) pulls for ``after``."""
    return sum(size for digest, size in after.items() if digest not in before)


def value_differences(before: Any, after: Any) -> tuple[Value, ...]:
    """Every key whose value differs, by its path (``config.Env.PATH``), sorted."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return tuple(
        (key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def _flat(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value and depth < _DEPTH:
        for key, entry in value.items():
            yield from _flat(entry, f"{path}.{key}" if path else str(key), depth + 1)
    elif path.endswith("config.Env") or path == "Env":
        for item in texts(value):
            name, _, content = item.partition("=")
            yield f"{path}.{name}", content
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
