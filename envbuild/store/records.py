"""Records of the store: what one file of JSON says, behind the digest of its bytes.

The first line is ``sha256:<hex>`` of all that follows, so that a record which a crash or a bad disk damaged
is found when it is read, and counts as none. A record is replaced as a whole: several processes may write.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes
from envbuild.store.content import Store

Value = TypeVar("Value")


class Records:
    """The records below the directory ``area`` of a store, by their keys, which are names of files."""

    def __init__(self, store: Store, area: str) -> None:
        self._store = store
        self._area = area

    def path(self, key: str) -> Path:
        """Where the record is or would be."""
        return self._store.root / self._area / f"{key}.json"

    def __iter__(self) -> Iterator[str]:
        """The keys of all records that are there, sound or not."""
        directory = self._store.root / self._area
        return (path.stem for path in (directory.glob("*.json") if directory.is_dir() else ()))

    def get(self, key: str, parse: Callable[[Any], Value | None]) -> Value | None:
        """What ``parse`` makes of the record; None where there is none, or it isn't sound. ``parse`` may
        raise what a value of another shape raises, and what looking at a file that isn't there does."""
        try:
            checksum, _, body = self.path(key).read_bytes().partition(b"\n")
            if checksum.decode("ascii", "replace") != digest_bytes(body):
                return None
            return parse(json.loads(body))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(
        self,
        key: str,
        body: str,
        part: Path,
        *,
        used: float | None = None,
        beside: tuple[Path, Path] | None = None,
    ) -> None:
        """Replaces the record by ``body``, JSON, which is written to ``part`` on the store's file system.

        ``used``: the record's own time, in seconds since the epoch. ``beside``: a complete file, and its
        place in the area, which it has before the record says so. Raises ``BuildError``."""
        content = body.encode()
        self._store.directory(self._area)
        try:
            part.write_bytes(digest_bytes(content).encode() + b"\n" + content)
            if used is not None:
                os.utime(part, (used, used))
            if beside is not None:
                beside[0].replace(beside[1])
            part.replace(self.path(key))
        except OSError as error:
            raise BuildError(
                f"can't write to {self._store.root}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error

    def note_use(self, key: str, used: float | None = None) -> None:
        """Lets the record's own time be ``used``, or now: the age that ``cache prune`` reads."""
        with contextlib.suppress(OSError):
            os.utime(self.path(key), None if used is None else (used, used))

    def drop(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)
