"""From a spec to an image: the only module that sees every stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from envbuild.lock.model import Lock
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.publish.base import Image
from envbuild.settings import Settings
from envbuild.spec.model import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRequest:
    """What ``envbuild lock`` was asked."""

    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    as_of: date | None = None
    bytecode: bool | None = None
    """None: what the present lock says, else on."""
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PinChange:
    """One pin that differs: ``before`` or ``after`` is None where it was added or removed."""

    platform: str
    kind: str
    """``debian``, ``conda``, ``pip``, ``base`` or ``python``."""
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LockResult:
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
    load: bool = False
    locked: bool = False
    frozen: bool = False
    no_cache: bool = False
    lock: LockRequest = field(default_factory=LockRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """An image in the store, and where it was brought."""

    reference: str
    """``name:tag@sha256:…``: what stdout shows."""
    digest: str
    images: tuple[Image, ...]
    cached: bool
    """True where no layer had to be composed."""
    seconds: float
    published: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What ``envbuild run`` was asked."""

    command: tuple[str, ...]
    platform: Platform | None = None
    env: tuple[tuple[str, str], ...] = ()
    backend: str = "auto"
    """``auto``, ``docker`` or ``userns``."""
    workdir: Path | None = None
    """Mounted and made the working directory; None: where the caller stands."""
    mounts: tuple[str, ...] = ()
    """``SOURCE:TARGET[:ro]``."""
    build: BuildRequest = field(default_factory=BuildRequest)


class Pipeline:
    """The stages, wired for one call. Makes no client and touches no file before it must."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.progress = progress

    def load(self, spec: str) -> Spec:
        """The spec at a path: a file, or a directory that has one. Raises ``SpecError``."""
        raise NotImplementedError

    def lock(self, spec: Spec, request: LockRequest) -> LockResult:
        """The spec's lock, resolved where it is missing or stale, kept where it answers."""
        raise NotImplementedError

    def check(self, spec: Spec) -> None:
        """Returns if the lock on disk answers the spec; offline. Raises ``StaleLockError`` with all reasons."""
        raise NotImplementedError

    def plan(self, spec: Spec, lock: Lock, platform: Platform) -> Plan:
        raise NotImplementedError

    def build(self, spec: Spec, request: BuildRequest) -> BuildResult:
        raise NotImplementedError

    def run(self, spec: Spec, request: RunRequest) -> int:
        """The command's exit status (128 + n where signal n ended it)."""
        raise NotImplementedError
