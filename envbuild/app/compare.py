"""What differs between two versions, and what one package was in each: over what a workspace keeps."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from envbuild.app.curated import moved_bytes, pins_size
from envbuild.app.environments import Workspace, read_record
from envbuild.inspect.compare import pulled_bytes
from envbuild.lock.diff import PinChange, lock_changes
from envbuild.lock.model import DebianBase, Lock, PlatformLock
from envbuild.specs.exporters.formats import dump_native
from envbuild.specs.model import BuildContextSpec
from envbuild.store.content import Store
from envbuild.workspace.base import Version

_MANIFEST_LIMIT = 8 << 20
"""Bytes of an image's manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """What a machine with one version pulls for another, on one platform. Sizes are in bytes."""

    platform: str
    before: int | None
    after: int | None
    """None where nothing is known of that version on this platform."""
    pulled: int | None
    by: str
    """``layers`` where both images are known, compressed as they are pulled; else ``pins``: downloads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two versions side by side."""

    before: Version
    after: Version
    definition: tuple[str, ...]
    """Lines of the YAML that were removed (``-``) and added (``+``); name, description and tags don't
    count."""
    changes: tuple[PinChange, ...] | None
    """None where one of the two was never locked."""
    moves: tuple[Move, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageVersion:
    """One package in the newest lock of one version."""

    version: Version
    locked: datetime | None
    """When; None: never."""
    pins: tuple[tuple[str, str, str], ...]
    """``(platform, kind, version)``, sorted; empty where the lock hasn't the package."""


def compare(workspace: Workspace, before: Version, after: Version) -> Comparison:
    """What differs from ``before`` to ``after``. Raises ``WorkspaceError``."""
    old, new = _lines(workspace, before), _lines(workspace, after)
    locks = workspace.lock_of(before), workspace.lock_of(after)
    return Comparison(
        before=before,
        after=after,
        definition=tuple(line for line in difflib.ndiff(old, new) if line.startswith(("- ", "+ "))),
        changes=lock_changes(locks[0], locks[1]) if locks[0] and locks[1] else None,
        moves=tuple(_moves(workspace, before, after, locks)),
    )


def _lines(workspace: Workspace, version: Version) -> list[str]:
    spec = workspace.spec(version)
    plain = replace(spec, name="x", version=None, description=None, tags=())
    lines = dump_native(plain).splitlines()[1:]
    if isinstance(spec.base, BuildContextSpec):
        lines.append(f"# build context {spec.base.digest}")
    return lines


def _moves(
    workspace: Workspace, before: Version, after: Version, locks: tuple[Lock | None, Lock | None]
) -> Iterator[Move]:
    images = _images(workspace, before), _images(workspace, after)
    pins = _pins(locks[0]), _pins(locks[1])
    for platform in sorted(images[0].keys() | images[1].keys() | pins[0].keys() | pins[1].keys()):
        layers = images[0].get(platform), images[1].get(platform)
        if layers[0] is not None and layers[1] is not None:
            yield Move(
                platform=platform,
                before=sum(layers[0].values()),
                after=sum(layers[1].values()),
                pulled=pulled_bytes(layers[0], layers[1]),
                by="layers",
            )
            continue
        old, new = pins[0].get(platform), pins[1].get(platform)
        yield Move(
            platform=platform,
            before=pins_size(old) if old else None,
            after=pins_size(new) if new else None,
            pulled=_moved(locks[0], old, locks[1], new),
            by="pins",
        )


def _moved(
    old_lock: Lock | None, old: PlatformLock | None, new_lock: Lock | None, new: PlatformLock | None
) -> int | None:
    if new_lock is None or new is None:
        return None
    before = replace(old_lock, platforms=(old,)) if old_lock is not None and old is not None else None
    return moved_bytes(before, replace(new_lock, platforms=(new,)))


def _pins(lock: Lock | None) -> dict[str, PlatformLock]:
    return {str(pins.platform): pins for pins in lock.platforms} if lock is not None else {}


def _images(workspace: Workspace, version: Version) -> dict[str, dict[str, int]]:
    """Size by digest of the layers of the newest image of each platform, where its manifest is here."""
    by_platform: dict[str, dict[str, int]] = {}
    store = Store(workspace.settings.cache_dir)
    for image in workspace.environments.images(definition=version.definition, limit=50):
        layers = _layers(store, image.digest) if image.platform not in by_platform else None
        if layers is not None:
            by_platform[image.platform] = layers
    return by_platform


def _layers(store: Store, digest: str) -> dict[str, int] | None:
    try:
        with store.blob(digest).open("rb") as file:
            manifest = json.loads(file.read(_MANIFEST_LIMIT))
        return {str(layer["digest"]): int(layer["size"]) for layer in manifest["layers"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # Pruned or damaged: then pins are what can be compared.


def package_history(workspace: Workspace, name: str, package: str) -> tuple[PackageVersion, ...]:
    """What ``package`` is in the newest lock of each version of an environment, the newest version first.

    Names count as PEP 503 normalises them. Raises ``WorkspaceError``."""
    wanted = _normal(package)
    versions = []
    for version in workspace.environments.versions(name, include_archived=True):
        record = workspace.environments.lock(version.definition)
        pins: list[tuple[str, str, str]] = []
        if record is not None:
            for platform_lock in read_record(record).platforms:
                pins += [
                    (str(platform_lock.platform), kind, number)
                    for kind, pin, number in _named(platform_lock)
                    if _normal(pin) == wanted
                ]
        versions.append(
            PackageVersion(
                version=version,
                locked=record.created if record is not None else None,
                pins=tuple(sorted(pins)),
            )
        )
    return tuple(versions)


def _named(pins: PlatformLock) -> Iterator[tuple[str, str, str]]:
    """``(kind, name, version)`` of every pin."""
    if pins.python is not None:
        yield "python", "python", pins.python.version
    if isinstance(pins.base, DebianBase):
        yield from (("debian", package.name, package.version) for package in pins.base.packages)
    yield from (("conda", pin.name, pin.version) for pin in pins.conda)
    yield from (("pip", pin.name, pin.version) for pin in pins.pip)
    yield from (("maven", pin.name, pin.version) for pin in pins.maven)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
