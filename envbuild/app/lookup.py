"""What a name or a digest leads to in a workspace: from an image back to its spec and lock, and forth."""

from __future__ import annotations

from dataclasses import dataclass

from envbuild.app.workspace import Workspace
from envbuild.errors import UsageError, WorkspaceError
from envbuild.oci.digest import is_digest
from envbuild.workspace.base import ImageRecord, LockRecord, Version

_IMAGES = 20
"""Images of a version that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Everything that belongs to one definition."""

    definition: str
    versions: tuple[Version, ...]
    """The one that was asked for comes first; empty where only its lock or its image was recorded."""
    lock: LockRecord | None
    """Of an image: the one it was built from; else the newest."""
    images: tuple[ImageRecord, ...]
    """The one that was asked for alone, or the newest of the definition."""


def look_up(workspace: Workspace, text: str) -> Found:
    """What ``name``, ``name:version``, ``name@label``, ``sha256:…`` (image, index, definition or
    ``envbuild.lock``), or ``name:tag@sha256:…`` leads to. Raises ``WorkspaceError`` where that is nothing."""
    digest = text.rpartition("@")[2]
    if digest.startswith("sha256:"):
        if not is_digest(digest):
            raise UsageError(f"{digest[:80]!r} is no digest", hint="write sha256: and all 64 hex digits")
        return _by_digest(workspace, digest)
    version = workspace.get(text)
    registry = workspace.registry
    others = [each for each in registry.by_definition(version.definition) if each != version]
    return Found(
        definition=version.definition,
        versions=(version, *others),
        lock=registry.lock(version.definition),
        images=registry.images(definition=version.definition, limit=_IMAGES),
    )


def _by_digest(workspace: Workspace, digest: str) -> Found:
    registry = workspace.registry
    image = registry.image(digest)
    images = (image,) if image is not None else registry.images(index=digest, limit=_IMAGES)
    lock = None
    if images:
        definition = images[0].definition
        lock = registry.lock_by_digest(images[0].lock) if images[0].lock is not None else None
    else:
        lock = registry.lock_by_digest(digest)
        definition = lock.definition if lock is not None else digest
        images = registry.images(definition=definition, limit=_IMAGES)
        lock = lock or registry.lock(definition)
    versions = registry.by_definition(definition)
    if not versions and not images and lock is None:
        raise WorkspaceError(
            f"nothing in {registry.location} has the digest {digest}",
            hint="an image is known to the workspace that it was built with",
        )
    return Found(definition=definition, versions=versions, lock=lock, images=images)
