"""Locks of specs: resolved where they are missing or stale, checked, or read as they are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.requests import BuildRequest, LockRequest, LockResult
from envbuild.app.session import Session
from envbuild.app.specs import inputs_of, is_registered
from envbuild.errors import LockError, StaleLockError, UsageError
from envbuild.lazy import lazy
from envbuild.lock.base import answers
from envbuild.lock.diff import lock_changes
from envbuild.lock.files import read_lock, write_lock
from envbuild.lock.model import Lock
from envbuild.specs.model import EnvironmentType, Spec
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    from envbuild.lock import check as lock_check
    from envbuild.lock import make as lock_make
else:
    lock_check = lazy("envbuild.lock.check")
    lock_make = lazy("envbuild.lock.make")

LOCK_DIRECTORY = "lockfiles"


def lock_directory(session: Session, spec: Spec) -> Path:
    """Where the spec's lock stands: ``lockfiles/<name>`` beside it, or below the setting; a curated one's
    beside its spec."""
    if spec.type is EnvironmentType.CURATED:
        return spec.directory
    return (session.settings.lock_dir or spec.directory / LOCK_DIRECTORY) / spec.name


def present_lock(session: Session, spec: Spec) -> Lock | None:
    """The lock that is there, whether it answers the spec or not. Raises ``LockError`` for a damaged one."""
    return read_lock(lock_directory(session, spec))


def lock_spec(session: Session, spec: Spec, request: LockRequest) -> LockResult:
    """The spec's lock, resolved where it is missing or stale, kept where it answers. That of a registered
    version also goes into the workspace."""
    directory = lock_directory(session, spec)
    with session.progress.stage("lock"):
        present = _present(directory, request)
        if present is not None and answers(present, spec, request):
            return LockResult(lock=present, directory=directory, changes=(), written=False)
        lock = resolve_lock(session, spec, request, present)
        written = False
        if lock != present and not request.dry_run:
            if _is_read_only(session, spec):
                raise UsageError(
                    f"{spec.name} is curated, and its lock is read-only",
                    hint=f"clone it to change it: cp -r {spec.directory} . and take type: curated out",
                )
            written = write_lock(directory, lock)
    if written and is_registered(session, spec):
        session.workspace.keep_lock(spec, directory)
    return LockResult(lock=lock, directory=directory, changes=lock_changes(present, lock), written=written)


def resolve_lock(session: Session, spec: Spec, request: LockRequest, present: Lock | None) -> Lock:
    """A new lock, which keeps what ``request`` lets stay of ``present``."""
    # The layers of a base that are looked into belong to no image of the store yet.
    with Lease(session.store):
        return lock_make.make_lock(
            spec,
            request,
            present,
            session.resolvers(inputs_of(spec)),
            progress=session.progress,
            offline=session.settings.offline,
        )


def check_lock(session: Session, spec: Spec) -> Lock:
    """The lock on disk, if it answers the spec; offline.

    Raises ``StaleLockError`` with all reasons, ``LockError`` where it can't be read."""
    directory = lock_directory(session, spec)
    lock = read_lock(directory)
    remedy = f"envbuild lock {spec.source}"
    if lock is None:
        raise StaleLockError(f"{spec.source} has no lock in {directory}", hint=f"make it with: {remedy}")
    problems = lock_check.lock_problems(spec, lock)
    if problems:
        raise StaleLockError(
            "\n".join([f"the lock in {directory} does not answer {spec.source}:", *problems]),
            hint=f"bring it up to date with: {remedy}",
        )
    return lock


def lock_to_build(session: Session, spec: Spec, request: BuildRequest) -> Lock:
    """The lock that a build is of: checked, as it is, or brought up to date, as was asked."""
    if request.locked:
        return check_lock(session, spec)
    if not request.frozen:
        return lock_spec(session, spec, request.lock).lock
    lock = present_lock(session, spec)
    if lock is None:
        raise LockError(
            f"{spec.source} has no lock in {lock_directory(session, spec)}",
            hint=f"make it with: envbuild lock {spec.source}",
        )
    return lock


def _is_read_only(session: Session, spec: Spec) -> bool:
    """A curated lock is changed by naming the catalogue's own directory, as ``make locks`` does."""
    if spec.type is not EnvironmentType.CURATED:
        return False
    named = session.settings.lock_dir
    return named is None or named.resolve() != spec.directory.parent.resolve()


def _present(directory: Path, request: LockRequest) -> Lock | None:
    """The lock that is there; a damaged one counts as none where everything is resolved anew."""
    with contextlib.ExitStack() as stack:
        if request.upgrade:
            stack.enter_context(contextlib.suppress(LockError))
        return read_lock(directory)
    return None
