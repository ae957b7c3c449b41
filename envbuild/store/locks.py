"""Locks that the kernel drops when a process ends, however it ends (``flock``), and scratch space."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envbuild.errors import BuildError


def gate(root: Path) -> Path:
    """The lock of the store in ``root`` that is shared by who names what is used, and taken by who prunes."""
    return root / "leases.lock"


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


def mark_used(root: Path, path: Path) -> bool:
    """Whether the file ``path`` of the store in ``root`` is there; a prune spares it then for as long as a
    build works that has begun before. For what is found where no lease is at hand to name it."""
    try:
        with locked(gate(root), shared=True):
            os.utime(path)
    except FileNotFoundError:
        return False
    except (BuildError, OSError):
        # The store, or the file, is somebody else's: who can't write to it can only look.
        return path.is_file()
    return True
