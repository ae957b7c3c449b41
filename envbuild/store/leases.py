"""Who is using what, by locks the kernel drops when a process ends, however it ends (``flock``).

A build holds a :class:`Lease` and names what it is about to use before it looks whether that is there.
``prune`` reads all live leases while no name can be added. So either prune sees the name and spares the
file, or the build finds the file gone and makes it anew.

What a build has written or marked as used (:func:`mark_used`) is spared without a name too, for as long as it
works. That must be short: so whoever goes on after the build, a run or a service, lets its lease *hold* what
it needs, and guards nothing else from then on. Unpacked trees are always named.
"""

from __future__ import annotations

import contextlib
import errno
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
    sweep(parent)
    path, descriptor = _new_scratch(parent)
    try:
        yield path
    finally:
        remove_tree(path)
        _lock_file(path).unlink(missing_ok=True)
        os.close(descriptor)


def leftovers(parent: Path) -> list[Path]:
    """The directories below ``parent`` that processes left behind which are dead, sorted. Changes nothing."""
    return sorted(path for path in parent.glob("build-*") if path.suffix != ".lock" and _is_left(path))


def _is_left(path: Path) -> bool:
    try:
        descriptor = os.open(_lock_file(path), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def discard(path: Path, parent: Path) -> None:
    """Takes a directory away in one step: nobody ever sees half of it in its place. It becomes one of the
    ``leftovers`` of ``parent``, on the same file system, which the next ``sweep`` removes. Raises
    ``OSError``."""
    path.rename(parent / f"build-{secrets.token_hex(8)}")


def remove_tree(path: Path) -> None:
    """Removes a directory, or a link to one, with all that is in it, also in directories that its owner may
    not write to. What can't be removed stays."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if not path.is_dir():
        return
    todo = [str(path)]
    while todo:
        directory = todo.pop()
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)  # noqa: PTH101
            with os.scandir(directory) as entries:
                todo += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    shutil.rmtree(path, ignore_errors=True)


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


def sweep(parent: Path) -> None:
    """Removes the ``leftovers`` of ``parent``, and the locks beside them. Never raises."""
    for lock in list(parent.glob("*.lock")):
        with contextlib.suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(lock.with_suffix(""))
                lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
    # Something that was still under way when its build failed may have made its directory again. Whoever
    # lives has a lock beside it, made before the directory and removed after it.
    for path in list(parent.glob("build-*")):
        if path.suffix != ".lock" and not _lock_file(path).exists():
            remove_tree(path)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


_HOLDS = "holds"
"""A line of a lease, which no name is: what stands above it counts no more."""


class Lease:
    """What one build uses, for as long as the context lasts, or until ``hold``. Names are paths relative to
    the store's root, without a suffix (``segments/<key>``, ``blobs/sha256/<hex>``, ``rootfs/<key>``)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path: Path | None = None
        self._descriptor = -1
        self._named: set[str] = set()

    def __enter__(self) -> Lease:
        with locked(_gate(self._store), shared=True), self._written():
            path = self._store.directory("leases") / f"{os.getpid()}-{secrets.token_hex(8)}"
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                # A second early: file systems stamp files with a coarser clock.
                self._write(f"{time.time() - 1:.3f}")
            except BaseException:
                path.unlink(missing_ok=True)
                os.close(self._descriptor)
                raise
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
            self._write(*new)
        self._named.update(new)

    def hold(self, *names: str) -> None:
        """Ends the work: from now on the lease holds ``names`` and nothing else, neither what it named before
        nor what was written or marked since its start. There is no moment in which neither holds. May be
        called again, and more may be named after it."""
        held = tuple(dict.fromkeys(names))
        with locked(_gate(self._store), shared=True), self._written():
            self._write(_HOLDS, *held)
        self._named = set(held)

    def _write(self, *lines: str) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        if os.write(self._descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True, kw_only=True, slots=True)
class InUse:
    """What live leases name. ``since`` is the start of the oldest whose build still works (seconds since the
    epoch), None if none does: what was written after it may be a build's that has not named it yet."""

    names: frozenset[str]
    since: float | None


@contextmanager
def in_use(store: Store) -> Iterator[InUse]:
    """What live leases name; nothing is added while the context lasts. Leases of the dead are removed."""
    with locked(_gate(store)):
        names: set[str] = set()
        since: float | None = None
        for path in sorted(store.directory("leases").iterdir()):
            with contextlib.suppress(OSError), path.open("rb+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    began_text, *used = file.read().decode().splitlines()
                    if _HOLDS in used:
                        names.update(used[_last(used, _HOLDS) + 1 :])
                        continue
                    names.update(used)
                    began = float(began_text)
                    since = began if since is None else min(since, began)
                else:
                    path.unlink(missing_ok=True)
        yield InUse(names=frozenset(names), since=since)


def mark_used(store: Store, path: Path) -> bool:
    """Whether the file ``path`` of the store is there; a prune spares it then for as long as a build works
    that has begun before. For what is found where no lease is at hand to name it."""
    try:
        with locked(_gate(store), shared=True):
            os.utime(path)
    except FileNotFoundError:
        return False
    except (BuildError, OSError):
        # The store, or the file, is somebody else's: who can't write to it can only look.
        return path.is_file()
    return True


def _last(lines: list[str], line: str) -> int:
    return len(lines) - 1 - lines[::-1].index(line)


def _gate(store: Store) -> Path:
    return store.root / "leases.lock"
