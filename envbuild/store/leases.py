"""Who is using what, by locks the kernel drops when a process ends, however it ends (``flock``).

A build holds a :class:`Lease` and names what it is about to use before it looks whether that is there.
``prune`` reads all live leases while no name can be added. So either prune sees the name and spares the
file, or the build finds the file gone and makes it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from envbuild.errors import BuildError
from envbuild.store.content import Store


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock ``path`` (made if need be), waiting for whoever has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BuildError(
            f"can't write {path}: {error.strerror}",
            hint="free some space, or set ENVBUILD_CACHE_DIR to a directory of yours",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A new empty directory below ``parent``, removed on leaving; those of dead processes are too."""
    _sweep(parent)
    path, descriptor = _new_scratch(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _lock_file(path).unlink(missing_ok=True)
        os.close(descriptor)


def _new_scratch(parent: Path) -> tuple[Path, int]:
    while True:
        path = parent / f"build-{secrets.token_hex(8)}"
        lock = _lock_file(path)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A sweeper that came between the two calls has removed the file again.
                if os.fstat(descriptor).st_nlink:
                    path.mkdir(mode=0o700)
                    return path, descriptor
            except BlockingIOError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        except FileExistsError:
            continue
        except OSError as error:
            raise BuildError(
                f"can't write to {parent}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to a directory of yours",
            ) from error


def _sweep(parent: Path) -> None:
    for lock in list(parent.glob("*.lock")):
        with contextlib.suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
    # Something that was still under way when its build failed may have made its directory again. Whoever
    # lives has a lock beside it, made before the directory and removed after it.
    for path in list(parent.glob("build-*")):
        if path.suffix != ".lock" and not _lock_file(path).exists():
            shutil.rmtree(path, ignore_errors=True)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


class Lease:
    """What one build uses, for as long as the context lasts. Names are paths relative to the store's root,
    without a suffix (``segments/<key>``, ``blobs/sha256/<hex>``, ``rootfs/<key>``)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path: Path | None = None
        self._descriptor = -1
        self._named: set[str] = set()

    def __enter__(self) -> Lease:
        with locked(_gate(self._store), shared=True), self._written():
            path = self._store.directory("leases") / f"{os.getpid()}-{secrets.token_hex(8)}"
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # A second early: file systems stamp files with a coarser clock.
            os.write(self._descriptor, f"{time.time() - 1:.3f}\n".encode())
            self._path = path
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BuildError(
                f"can't write to {self._store.root}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to a directory of yours",
            ) from error

    def use(self, *names: str) -> None:
        """Names files of the store before they are looked for."""
        new = [name for name in dict.fromkeys(names) if name not in self._named]
        if not new:
            return
        with locked(_gate(self._store), shared=True), self._written():
            os.write(self._descriptor, "".join(f"{name}\n" for name in new).encode())
        self._named.update(new)


@dataclass(frozen=True, kw_only=True, slots=True)
class InUse:
    """What live builds use. ``since`` is the start of the oldest (seconds since the epoch), None if none
    runs: what was written after it may be a build's that has not named it yet."""

    names: frozenset[str]
    since: float | None


@contextmanager
def in_use(store: Store) -> Iterator[InUse]:
    """What live builds use; nothing is added while the context lasts. Leases of the dead are removed."""
    with locked(_gate(store)):
        names: set[str] = set()
        since: float | None = None
        for path in sorted(store.directory("leases").iterdir()):
            with contextlib.suppress(OSError), path.open("rb+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    began_text, *used = file.read().decode().splitlines()
                    names.update(used)
                    began = float(began_text)
                    since = began if since is None else min(since, began)
                else:
                    path.unlink(missing_ok=True)
        yield InUse(names=frozenset(names), since=since)


def _gate(store: Store) -> Path:
    return store.root / "leases.lock"
