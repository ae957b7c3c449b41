"""What a call asks of the pipeline, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from envbuild.images.base import PushResult
from envbuild.lock.base import LockRequest
from envbuild.lock.diff import PinChange
from envbuild.lock.model import Lock
from envbuild.oci.image import Image
from envbuild.platforms import Platform

__all__ = [
    "BuildRequest",
    "BuildResult",
    "LockRequest",
    "LockResult",
    "PinChange",
    "RenderRequest",
    "RenderResult",
    "RunRequest",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockResult:
    """A lock, where it is, and how it differs from the one that was there."""

    lock: Lock
    directory: Path
    changes: tuple[PinChange, ...]
    written: bool
    """False where the files already said so, or on a dry run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """What ``envbuild build`` was asked. ``platforms`` narrows the spec's; empty: all of them."""

    platforms: tuple[Platform, ...] = ()
    tags: tuple[str, ...] = ()
    """Extra ``repository:tag`` names; the identity tag is always there."""
    outputs: tuple[str, ...] = ()
    """``oci:DIR``, ``oci-archive:FILE``, ``docker-archive:FILE``."""
    push: tuple[str, ...] = ()
    """``REPO`` or ``REPO:TAG``: repositories that get the image under its identity tag, and ``TAG``."""
    load: bool = False
    locked: bool = False
    """Fail where the lock doesn't answer the spec."""
    frozen: bool = False
    """Use the lock without looking whether it answers."""
    no_cache: bool = False
    verify_found: bool = False
    """Compose also what a registry has, and fail where that is another image."""
    secrets: tuple[str, ...] = ()
    """``id=NAME,src=FILE`` or ``id=NAME,env=VARIABLE``: what steps of a Dockerfile may mount."""
    lock: LockRequest = field(default_factory=LockRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderRequest:
    """What ``envbuild render`` was asked."""

    output: Path
    """The directory of the context; with several platforms, of one directory for each."""
    offline_context: bool = False
    """Puts every pinned artifact in, so that the build needs no network."""
    build: BuildRequest = field(default_factory=BuildRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderResult:
    """A build context that was written."""

    platform: Platform
    directory: Path
    files: int
    size: int
    """Of all files, in bytes."""
    digest: str
    """Over their paths, modes and contents."""
    lock_digest: str
    level: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """An image in the store, and where it was brought."""

    reference: str
    """``name:tag@sha256:…``: what stdout shows. Of the first push, where there was one; of an image that was
    only loaded, what the engine resolves: ``name:tag`` where it knows no digest."""
    digest: str
    images: tuple[Image, ...]
    cached: bool
    """True where no layer had to be composed."""
    engine: str
    """What built it: ``native``, ``docker``, ``buildx``."""
    seconds: float
    published: tuple[str, ...]
    pushed: tuple[PushResult, ...] = ()
    """In the order that was asked for."""
    names: tuple[str, ...] = ()
    """All ``repository:tag`` that the image now has."""
    found: tuple[str, ...] = ()
    """Where registries had what was not in the store: ``repository:tag@sha256:…``. The level of such an image
    is ``found`` unless it was verified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What ``envbuild run`` was asked."""

    command: tuple[str, ...]
    platform: Platform | None = None
    env: tuple[tuple[str, str], ...] = ()
    backend: str = "auto"
    """``auto``, ``docker`` or ``userns``."""
    workdir: Path | None = None
    """Mounted and made the working directory; None: nothing is mounted."""
    mounts: tuple[str, ...] = ()
    """``SOURCE:TARGET[:ro]``."""
    build: BuildRequest = field(default_factory=BuildRequest)
