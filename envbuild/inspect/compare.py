"""What differs between two images of one platform."""

from __future__ import annotations

from collections.abc import Mapping

from envbuild.inspect.documents import config_of, value_differences
from envbuild.inspect.inspect import Bring, packages_of, sound_lock
from envbuild.inspect.model import ImageDifference, PathDifference, PinChange, Value
from envbuild.inspect.tree import differences, merged
from envbuild.lock.diff import lock_changes
from envbuild.oci.image import Image
from envbuild.store.content import Store

_PATHS = 1000
"""Paths that are named."""
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
    configs = config_of(before, store), config_of(after, store)
    if old_blobs == new_blobs and before.config_digest == after.config_digest:
        return ("the form of the manifest",)
    differing = {
        "compression": old_blobs != new_blobs,
        "history": configs[0].get("history") != configs[1].get("history"),
    }
    return tuple(name for name, differs in differing.items() if differs) or ("the form of the config",)


def _config(before: Image, after: Image, store: Store) -> tuple[Value, ...]:
    values = value_differences(config_of(before, store), config_of(after, store))
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
