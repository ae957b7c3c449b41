"""A blob from a registry into the store, resumed where a transfer breaks off."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from envbuild.errors import BuildError, FetchError
from envbuild.http.connection import BrokenError, Response
from envbuild.oci.reference import Reference
from envbuild.progress import Counter, Progress
from envbuild.registry.base import UnreachableError
from envbuild.registry.token import scopes
from envbuild.registry.transport import RegistryCall, RegistryTransport
from envbuild.store.content import Store, commit_file

PROGRESS = 8 << 20
"""Bytes; a try that brought as many doesn't count, or a large blob would never come over a bad line."""


class Downloads:
    """Brings blobs into a store. Thread safe: one that several want at once is fetched once."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[threading.Lock, list[None]]] = {}

    def blob(self, transport: RegistryTransport, reference: Reference, digest: str, size: int) -> Path:
        """The blob's file in the store, fetched if it isn't there. Raises ``FetchError``."""
        path = self._store.blob(digest)
        if self._has(digest, size):
            return path
        with self._alone(digest):
            if not self._has(digest, size):
                try:
                    self._fetch(transport, reference, digest, size)
                except BuildError as error:
                    raise FetchError(error.message, hint=error.hint) from error
                except OSError as error:
                    raise FetchError(
                        f"can't write to {self._store.root}: {error.strerror or error}",
                        hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
                    ) from error
        return path

    def _has(self, digest: str, size: int) -> bool:
        return self._store.find_blob(digest) and self._store.blob(digest).stat().st_size == size

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        with self._lock:
            lock, users = self._under_way.setdefault(digest, (threading.Lock(), []))
            users.append(None)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users.pop()
                if not users:
                    self._under_way.pop(digest, None)

    def _fetch(self, transport: RegistryTransport, reference: Reference, digest: str, size: int) -> None:
        what = f"{reference.name}@{digest}"
        with (
            self._store.scratch() as scratch,
            self._progress.task("download", f"{reference.familiar} {digest[7:19]}", total=size) as task,
            (scratch / "blob").open("w+b", buffering=0) as sink,
        ):
            transfer = _Transfer(
                transport, reference, what, digest, size, sink, Counter(task).reached, hashlib.sha256()
            )
            transfer.run()
            commit_file(scratch / "blob", self._store.blob(digest))


class _Transfer:
    """The state of one download: what came stays, with its hash, over all tries."""

    def __init__(
        self,
        transport: RegistryTransport,
        reference: Reference,
        what: str,
        digest: str,
        size: int,
        sink: BinaryIO,
        reached: Callable[[int], None],
        sha: hashlib._Hash,
    ) -> None:
        self._transport = transport
        self._reference = reference
        self._what = what
        self._digest = digest
        self._size = size
        self._sink = sink
        self._reached = reached
        self._sha = sha
        self._got = 0

    def run(self) -> None:
        failed = most = 0
        while True:
            try:
                self._once()
                break
            except BrokenError as error:
                self._transport.check()
                # More than ever came, so that this ends even where a registry always starts anew.
                failed = 1 if self._got - most >= PROGRESS else failed + 1
                most = max(most, self._got)
                wait = self._transport.retry.wait(failed)
                if wait is None:
                    raise UnreachableError(
                        f"{self._what}: the transfer broke off after {self._got} of {self._size} bytes:"
                        f" {error}; tried {failed} times"
                    ) from error
                self._transport.pause(wait)
        if f"sha256:{self._sha.hexdigest()}" != self._digest:
            raise FetchError(
                f"{self._what}: the bytes that came have the digest sha256:{self._sha.hexdigest()}"
            )

    def _once(self) -> None:
        call = RegistryCall(
            reference=self._reference,
            method="GET",
            address=f"/v2/{self._reference.repository}/blobs/{self._digest}",
            what=self._what,
            scopes=scopes(self._reference.repository, "pull"),
            headers={"Range": f"bytes={self._got}-"} if self._got else {},
            good=(200, 206) if self._got else (200,),
        )
        with self._transport.open(call) as response:
            self._begin(response)
            for piece in response.body:
                self._transport.check()
                if self._got + len(piece) > self._size:
                    raise FetchError(
                        f"{self._what}: the registry sends more than the {self._size} bytes it has"
                    )
                self._sha.update(piece)
                self._sink.write(piece)
                self._got += len(piece)
                self._reached(self._got)
        if self._got < self._size:
            raise BrokenError(f"only {self._got} of {self._size} bytes came")

    def _begin(self, response: Response) -> None:
        """Starts anew where the registry doesn't go on at the right place."""
        start = f"bytes {self._got}-"
        if response.status == 206 and not response.headers.get("content-range", "").startswith(start):
            raise FetchError(f"{self._what}: the registry sent another part than was asked for")
        if response.status == 200 and self._got:
            self._sink.seek(0)
            self._sink.truncate()
            self._sha, self._got = hashlib.sha256(), 0
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) != self._size - self._got:
            raise FetchError(
                f"{self._what}: the registry has {int(length) + self._got} bytes where the manifest says"
                f" {self._size}"
            )
