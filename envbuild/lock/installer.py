"""What the stage of a Dockerfile that installs conda packages stands on.

Conda packages are put in place by a program that itself needs a python, which the base of such an
environment rarely has. So a lock with conda packages also pins a base with python for that stage; nothing
of it reaches an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from envbuild.errors import FetchError, ResolveError
from envbuild.lock.base import ResolvedBase
from envbuild.lock.debian.resolver import DEFAULT_SUITE
from envbuild.lock.debian.selection import suite_python
from envbuild.lock.model import Base, DebianBase, ImageBase, PlatformLock
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.specs.model import BaseSpec, DebianBaseSpec, ImageBaseSpec

_REGISTRY = "docker.io/"


class ResolveBase(Protocol):
    """Resolves a base as the lock being made would."""

    def __call__(
        self, spec: BaseSpec, platform: Platform, *, with_python: bool, preferred: Base | None
    ) -> ResolvedBase: ...


def installer_bases(
    pins: Sequence[PlatformLock],
    present: Sequence[PlatformLock],
    resolve: ResolveBase,
    *,
    has_debian: bool,
    progress: Progress,
) -> tuple[PlatformLock, ...]:
    """A base with python for each of ``pins`` with conda packages; ``present`` are those of the lock
    before, which are kept. One that can't be had is left out: only a Dockerfile needs it."""
    platform_locks = []
    for pin in pins:
        spec = _spec(pin.base, has_debian) if pin.conda else None
        if spec is None:
            continue
        before = next((other.base for other in present if other.platform == pin.platform), None)
        try:
            base = resolve(spec, pin.platform, with_python=True, preferred=before)
        except (ResolveError, FetchError) as error:
            progress.note(f"a Dockerfile of this lock would need its own installer: {error.message}")
            continue
        platform_locks.append(PlatformLock(platform=pin.platform, base=base.base, python=base.python))
    return tuple(platform_locks)


def _spec(base: Base, has_debian: bool) -> BaseSpec | None:
    """What to ask for: Debian's own python, or the official image where images come from that registry."""
    if has_debian:
        return DebianBaseSpec(suite=base.suite if isinstance(base, DebianBase) else DEFAULT_SUITE)
    if isinstance(base, ImageBase) and base.reference.startswith(_REGISTRY):
        return ImageBaseSpec(reference=f"{_REGISTRY}library/python:{suite_python(DEFAULT_SUITE)}-slim")
    return None
