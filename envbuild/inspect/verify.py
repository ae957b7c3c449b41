"""Whether an image is what its lock gives: composed again from packages, apart from all that was made before.

The composition runs in a store of its own, which shares nothing with the machine's but downloads, which are
named by their hashes, and the base's layers, which are too. So neither the image under test nor any cached
part of it can answer for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from envbuild.compose.engine import NativeEngine
from envbuild.errors import FetchError
from envbuild.inspect.compare import value_differences
from envbuild.inspect.model import LayerDifference, PathDifference, Value, Verdict
from envbuild.inspect.origin import additions_of_others, composition_of, taken_from, taken_lock
from envbuild.inspect.tree import differences, layer_entries
from envbuild.lock.identity import NATIVE_LEVEL
from envbuild.lock.model import ImageBase, Lock, PlatformLock
from envbuild.oci.digest import digest_bytes, digest_file
from envbuild.oci.image import Image, Layer
from envbuild.oci.layer import check_diff_id
from envbuild.oci.manifest import parse_manifest
from envbuild.plan.make import make_plan
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.store.content import Store
from envbuild.store.images import read_config, read_manifest
from envbuild.store.leases import Lease

_PATHS = 50
"""Paths that are named of one layer."""
_LAYERS_SAY = frozenset({"rootfs.diff_ids", "history", "layers", "config.digest", "config.size"})
"""Keys of config and manifest that differ wherever a layer or the config does."""

Apart = Callable[[Sequence[str]], AbstractContextManager[NativeEngine]]
"""A composer with a store of its own, where of the machine's blobs only the given ones are."""


def drop_damaged(store: Store, digests: Sequence[str]) -> None:
    """Takes every blob out of the store that isn't what its name says: it has to be pulled again."""
    for digest in digests:
        if store.has_blob(digest) and digest_file(store.blob(digest)) != digest:
            store.blob(digest).unlink(missing_ok=True)


def check_image(image: Image, store: Store, what: str) -> None:
    """Returns if manifest, config and layers are what their digests say, and each layer what its diff_id
    says, whatever was found out about them before. Raises ``FetchError``."""
    for digest in image.blobs:
        if not store.has_blob(digest) or digest_file(store.blob(digest)) != digest:
            raise FetchError(f"{what}: {digest} isn't what its digest says", hint="pull it again")
    for layer in {layer.digest: layer for layer in image.layers}.values():
        check_diff_id(store.blob(layer.digest), layer.media_type, layer.diff_id, what)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Verifies images whose blobs are in ``store``, checked. ``toolchain`` are the pins of other platforms of
    the same index, whose python may compile byte code; ``budget`` is the layer budget that is tried first."""

    store: Store
    apart: Apart
    lease: Lease
    toolchain: Sequence[PlatformLock] = ()
    budget: int = 40
    host: Platform

    def verdict(self, image: Image, lock: Lock | None) -> Verdict:
        """What composing ``lock``, found inside ``image``, again comes to. Raises ``BuildError`` and
        ``FetchError`` where a package can't be had any more: then nobody can tell."""
        if added := additions_of_others(image, self.store):
            return _not(image, f"it was made of an image of envbuild's, and has {added}")
        if not image.lock_digest:
            return _not(image, "it isn't an image of envbuild's: nothing says what it was made of")
        if image.level != NATIVE_LEVEL:
            return _not(
                image,
                f"its level is {image.level or 'unknown'}, and only composed images can be made again",
            )
        if lock is None:
            return self._taken(image)
        pins = lock.platform(image.platform)
        assert pins is not None
        lock = replace(lock, toolchain=tuple(self.toolchain))
        composition, follows = composition_of(
            image, read_manifest(image, self.store), lock, pins, budget=self.budget
        )
        if not follows and taken_from(image, self.store) not in (None, pins.base):
            # The lock inside is that of the image which this one takes as it is.
            return self._taken(image)
        reason = "" if follows else "its lock digest doesn't follow from the lock inside"
        plan = make_plan(lock, pins, composition, host=self.host)
        with self.apart(_base_blobs(image, pins, self.store)) as engine:
            if unable := engine.unable(plan):
                return _not(image, "; ".join([*([reason] if reason else []), *unable]))
            return self._judged(image, plan, engine, reason)

    def _taken(self, image: Image) -> Verdict:
        """Of an image that is another one as it is, with labels."""
        with self.apart([layer.digest for layer in image.layers]) as engine:
            lock = taken_lock(image, self.store, engine)
            if isinstance(lock, str):
                return _not(image, lock)
            return self._judged(image, lock, engine, "")

    def _judged(self, image: Image, plan: Plan, engine: NativeEngine, reason: str) -> Verdict:
        self.lease.use(*plan.artifact_names)
        made = engine.build(plan)
        if made.digest == image.digest and not reason:
            return Verdict(
                platform=str(image.platform), digest=image.digest, level=image.level, reproduced=True
            )
        layers = tuple(_layers(image, self.store, made, engine.store))
        config = _values(read_config(made, engine.store).document, read_config(image, self.store).document)
        manifest = _values(read_manifest(made, engine.store), read_manifest(image, self.store))
        if not reason:
            parts = {"layers": layers, "the config": config, "the manifest": manifest}
            differing = [name for name, differences in parts.items() if differences]
            reason = f"{' and '.join(differing) or 'the manifest'} differ from what the lock gives"
        return replace(_not(image, reason), layers=layers, config=config, manifest=manifest)


def _not(image: Image, reason: str) -> Verdict:
    return Verdict(
        platform=str(image.platform),
        digest=image.digest,
        level=image.level,
        reproduced=False,
        reason=reason,
    )


def _base_blobs(image: Image, pins: PlatformLock, store: Store) -> list[str]:
    """The blobs of the image base that may be shared; they come by their digests wherever they come from."""
    if not isinstance(pins.base, ImageBase):
        return []
    diff_ids = set(pins.base.diff_ids)
    base_blobs = [layer.digest for layer in image.layers if layer.diff_id in diff_ids]
    if store.has_blob(pins.base.digest):
        content = store.blob(pins.base.digest).read_bytes()
        if digest_bytes(content) == pins.base.digest:
            config = parse_manifest(content, pins.base.reference).config.digest
            base_blobs += [pins.base.digest, *([config] if store.has_blob(config) else [])]
    return base_blobs


def _values(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> tuple[Value, ...]:
    return tuple(
        difference for difference in value_differences(expected, actual) if difference[0] not in _LAYERS_SAY
    )


def _layers(image: Image, store: Store, made: Image, apart: Store) -> list[LayerDifference]:
    """The layers that aren't the same on both sides; what is left of both is paired in its order."""
    same = {layer.digest for layer in image.layers} & {layer.digest for layer in made.layers}
    actual = [layer for layer in image.layers if layer.digest not in same]
    expected = [layer for layer in made.layers if layer.digest not in same]
    named = {layer.name: layer for layer in actual if layer.name}
    pairs: list[tuple[Layer | None, Layer | None]] = []
    for ours in expected:
        theirs = named.pop(ours.name, None)
        if theirs is not None:
            actual.remove(theirs)
        pairs.append((ours, theirs))
    for index, (wanted, theirs) in enumerate(pairs):
        if theirs is None and actual and wanted is not None:
            pairs[index] = (wanted, actual.pop(0))
    pairs += [(None, layer) for layer in actual]
    return [_layer(expected, theirs, store, apart) for expected, theirs in pairs]


def _layer(expected: Layer | None, layer: Layer | None, store: Store, apart: Store) -> LayerDifference:
    paths: tuple[PathDifference, ...] = ()
    more = 0
    if expected is None or layer is None or expected.diff_id != layer.diff_id:
        paths, more = differences(
            layer_entries(expected, apart) if expected else {},
            layer_entries(layer, store) if layer else {},
            gone="missing",
            new="extra",
            times=True,
            limit=_PATHS,
        )
    shown = expected or layer
    return LayerDifference(
        name=shown.name if shown else "",
        digest=layer.digest if layer else None,
        expected=expected.digest if expected else None,
        artifacts=expected.artifacts if expected else (),
        paths=paths,
        more_paths=more,
    )
