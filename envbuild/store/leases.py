"""Who is using what, by locks that end with their process.

A build holds a :class:`Lease` and names what it is about to use before it looks whether that is there.
``prune`` reads all live leases while no name can be added. So either prune sees the name and spares the
file, or the build finds the file gone and makes it anew.

What a build has written or marked as used (``locks.mark_used``) is spared without a name too, for as long as
it works. That must be short: so whoever goes on after the build, a run or a service, lets its lease *hold*
what it needs, and guards nothing else from then on. Unpacked trees are always named.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from envbuild.errors import BuildError
from envbuild.store.content import Store
from envbuild.store.locks import gate, locked

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
        with locked(gate(self._store.root), shared=True), self._written():
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
        with locked(gate(self._store.root), shared=True), self._written():
            self._write(*new)
        self._named.update(new)

    def hold(self, *names: str) -> None:
        """Ends the work: from now on the lease holds ``names`` and nothing else, neither what it named before
        nor what was written or marked since its start. There is no moment in which neither holds. May be
        called again, and more may be named after it."""
        held = tuple(dict.fromkeys(names))
        with locked(gate(self._store.root), shared=True), self._written():
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
    with locked(gate(store.root)):
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


def _last(lines: list[str], line: str) -> int:
    return len(lines) - 1 - lines[::-1].index(line)
