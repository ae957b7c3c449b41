"""Files and directories that only their user reads: records have the variables of specs and runs in them."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)

_OTHERS = 0o077
_SHARED = 0o022


def make_private_directory(directory: Path) -> None:
    """Makes ``directory``, and those above it that are missing, for this user alone (XDG base directories);
    what is there stays as it is. Raises ``OSError``."""
    try:
        directory.mkdir(mode=0o700)
    except FileNotFoundError:
        make_private_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        # A read-only file system says so of directories that are there, too.
        if not directory.is_dir():
            raise


def make_private_file(path: Path) -> None:
    """Makes an empty file for this user alone, unless there is one. Raises ``OSError``.

    It is closed before it has its name: a process that closes a database's file loses all its locks on it,
    those that SQLite holds in another thread as well.
    """
    if path.exists():
        return
    descriptor, name = tempfile.mkstemp(prefix=".envbuild-", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        path.hardlink_to(part)
    except FileExistsError:
        pass
    except OSError:
        # Not every file system has links.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    finally:
        part.unlink()


def open_private_file(name: str, flags: int) -> int:
    """An ``opener``: files that it makes are for this user alone."""
    return os.open(name, flags, 0o600)


def keep_private(path: Path, mode: int) -> None:
    """Takes from ``path``, if it is there, what others may do and what is beyond ``mode`` (0o600, 0o700). A
    warning says where that can't be done, and where others could write."""
    with contextlib.suppress(FileNotFoundError):
        now = stat.S_IMODE(path.stat().st_mode)
        if not now & _OTHERS:
            return
        try:
            path.chmod(now & mode)
        except OSError as error:
            _log.warning(
                "%s can be read by others than its owner, which can't be changed: %s", path, error.strerror
            )
            return
        if now & _SHARED:
            _log.warning("%s is no longer shared with other users; a workspace in PostgreSQL can be", path)
