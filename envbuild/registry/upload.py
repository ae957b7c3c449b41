"""A blob from the store into a registry (distribution-spec, "Pushing blobs").

Asked for first, then mounted, then sent as a whole in one request. Only where a transfer broke off, or what
stands before the registry refuses so large a request, does the rest go in parts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from envbuild.errors import FetchError
from envbuild.http.connection import BrokenError, Response
from envbuild.http.policy import is_busy
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Counter, Progress
from envbuild.registry.base import Pushed, RefusedError, UnreachableError
from envbuild.registry.download import PROGRESS
from envbuild.registry.errors import AbsentError
from envbuild.registry.token import scopes
from envbuild.registry.transport import Body, RegistryCall, RegistryTransport, joined

PIECE = 256 << 10
"""Bytes read and sent at a time."""
_CHUNK = 16 << 20
_SMALLEST_CHUNK = 1 << 20
_MOUNTS = 3
_TOO_LARGE = 413
_WRONG_RANGE = 416
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


@dataclass(slots=True)
class _Session:
    """An upload under way at the registry: where it goes on, and how many bytes are there."""

    address: str
    offset: int = 0
    least: int = 0
    """Bytes that every part but the last must have."""


class Upload:
    """Brings one blob into one repository; :meth:`run` is called once."""

    def __init__(
        self,
        transport: RegistryTransport,
        progress: Progress,
        reference: Reference,
        blob: Descriptor,
        path: Path,
        mount_from: Sequence[str],
        fetch: Callable[[Descriptor], object] | None,
    ) -> None:
        self._transport = transport
        self._progress = progress
        self._reference = reference
        self._blob = blob
        self._path = path
        self._mount_from = mount_from[:_MOUNTS]
        self._fetch = fetch
        self._what = f"{reference.name}@{blob.digest}"
        self._root = f"/v2/{reference.repository}/blobs"
        self._scopes = scopes(reference.repository, "pull,push")
        self._reached: Callable[[int], None] = lambda size: None
        self._current: _Session | None = None
        self._chunk = 0
        """Bytes of a part; 0 for all that is missing at once."""

    def run(self) -> Pushed:
        """Returns what it came to. Raises ``FetchError``."""
        if self._present():
            return Pushed(present=self._blob.size)
        if self._mounted():
            return Pushed(mounted=self._blob.size)
        if self._fetch is not None:
            self._fetch(self._blob)
        name = f"{self._reference.familiar} {self._blob.digest[7:19]}"
        with self._progress.task("push", name, total=self._blob.size) as task:
            self._reached = Counter(task).reached
            try:
                self._send()
            except UnreachableError:
                raise
            except FetchError:
                # What the registry keeps of it would lie there for days.
                if self._current is not None:
                    self._cancel(self._current)
                raise
        return Pushed(sent=self._blob.size)

    def _present(self) -> bool:
        try:
            with self._transport.open(self._call("HEAD", f"{self._root}/{self._blob.digest}")):
                return True
        except AbsentError:
            return False

    def _mounted(self) -> bool:
        """Whether another repository of the registry lent the blob. If not, an upload may have been begun."""
        for name in self._mount_from:
            if self._current is not None:
                self._cancel(self._current)
                self._current = None
            query = f"?mount={quote(self._blob.digest, safe='')}&from={quote(name, safe='')}"
            call = RegistryCall(
                reference=self._reference,
                method="POST",
                address=f"{self._root}/uploads/{query}",
                what=self._what,
                scopes=scopes(self._reference.repository, "pull,push", (name,)),
                good=(201, 202),
                once=True,
            )
            # Some registries refuse outright what they can't mount; it can still be sent.
            with suppress(RefusedError, UnreachableError), self._transport.open(call) as response:
                if response.status == 201:
                    return True
                self._current = self._session(response)
        return False

    def _send(self) -> None:
        """Uploads until the registry has the blob, or has failed too often."""
        failed = reached = 0
        while True:
            try:
                if self._current is None:
                    self._current = self._begin()
                self._complete(self._current)
                return
            except (RefusedError, UnreachableError, BrokenError) as error:
                self._transport.check()
                status = error.status if isinstance(error, RefusedError) else 0
                if status == _TOO_LARGE and self._smaller():
                    self._current = self._status(self._current)
                    continue
                if status and not is_busy(status) and status not in (404, _WRONG_RANGE):
                    raise
                failed += 1
                after = error.after if isinstance(error, RefusedError) else None
                wait = self._transport.retry.wait(failed, after)
                if wait is None:
                    raise self._given_up(error, failed) from error
                self._transport.pause(wait)
            # The answer may have been all that was lost.
            if self._present():
                self._reached(self._blob.size)
                return
            self._current = None if status == 404 else self._status(self._current)
            there = self._current.offset if self._current else 0
            if there - reached >= PROGRESS:
                failed, reached = 0, there

    def _begin(self) -> _Session:
        call = self._call("POST", f"{self._root}/uploads/", good=(202,), once=True)
        with self._transport.open(call) as response:
            return self._session(response)

    def _complete(self, session: _Session) -> None:
        """Sends what is missing, and closes the upload."""
        size = self._blob.size
        if not self._chunk and not session.offset:
            self._put(session, self._body(0, size), size)
            return
        while session.offset < size:
            most = max(self._chunk or size, session.least)
            self._patch(session, min(session.offset + most, size))
        self._put(session, None, 0)

    def _put(self, session: _Session, body: Body | None, length: int) -> None:
        mark = "&" if "?" in session.address else "?"
        address = f"{session.address}{mark}digest={quote(self._blob.digest, safe='')}"
        call = self._call("PUT", address, good=(201, 204), body=body, length=length, span="", once=True)
        with self._transport.open(call) as response:
            stated = response.headers.get("docker-content-digest")
        if stated and stated.startswith("sha256:") and stated != self._blob.digest:
            raise FetchError(f"{self._what}: the registry took it as {stated[:80]!r}")
        self._reached(self._blob.size)

    def _patch(self, session: _Session, end: int) -> None:
        call = self._call(
            "PATCH",
            session.address,
            good=(202, 204),
            body=self._body(session.offset, end),
            length=end - session.offset,
            span=f"{session.offset}-{end - 1}",
            once=True,
        )
        with self._transport.open(call) as response:
            session.address = self._session(response, session.address).address
            taken = _taken(response)
        if taken is not None and taken != end:
            if not session.offset < taken < end:
                raise FetchError(f"{self._what}: the registry took {taken} bytes where {end} were sent")
            end = taken
        session.offset = end

    def _status(self, session: _Session | None, *, once: bool = False) -> _Session | None:
        """The upload as the registry has it, None where it is gone or of no use."""
        if session is None:
            return None
        try:
            call = self._call("GET", session.address, good=(204, 200, 202), once=once)
            with self._transport.open(call) as response:
                taken = _taken(response)
                renewed = self._session(response, session.address)
        except (FetchError, BrokenError):
            self._transport.check()
            return None
        renewed.offset = taken if taken is not None else 0
        renewed.least = renewed.least or session.least
        return renewed if renewed.offset <= self._blob.size else None

    def _cancel(self, session: _Session) -> None:
        # Its address may hold how far it was, and count for nothing where it went on since.
        current = self._status(session, once=True) or session
        call = self._call("DELETE", current.address, good=(200, 202, 204), once=True)
        with suppress(FetchError, BrokenError), self._transport.open(call):
            pass

    def _smaller(self) -> bool:
        """Whether smaller parts can be tried than the registry just refused."""
        chunk = self._chunk // 4 if self._chunk else _CHUNK
        if chunk < _SMALLEST_CHUNK:
            return False
        self._chunk = chunk
        return True

    def _session(self, response: Response, default: str = "") -> _Session:
        location = response.headers.get("location") or default
        if not location:
            raise FetchError(f"{self._what}: the registry doesn't say where to upload to")
        least = response.headers.get("oci-chunk-min-length", "")
        return _Session(
            address=joined(response.url, location, self._what),
            least=min(int(least), 1 << 30) if least.isascii() and least.isdigit() else 0,
        )

    def _call(
        self,
        method: str,
        address: str,
        *,
        good: tuple[int, ...] = (200,),
        body: Body | None = None,
        length: int | None = None,
        span: str = "",
        once: bool = False,
    ) -> RegistryCall:
        headers = {}
        if length is not None:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        if span:
            headers["Content-Range"] = span
        return RegistryCall(
            reference=self._reference,
            method=method,
            address=address,
            what=self._what,
            scopes=self._scopes,
            headers=headers,
            body=body,
            good=good,
            once=once,
        )

    def _body(self, start: int, end: int) -> Body:
        return lambda: self._pieces(start, end)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` of the file. The last piece of the blob leaves only once all of it has
        been seen to have its digest: what a bad disk damaged is never published, whatever the registry
        checks."""
        size = self._blob.size
        sha = hashlib.sha256() if end == size else None
        with self._open() as file:
            if sha is None:
                file.seek(start)
            position = start if sha is None else 0
            while position < end:
                self._transport.check()
                skipping = position < start
                piece = file.read(min(PIECE, (start if skipping else end) - position))
                position += len(piece)
                if sha is not None:
                    sha.update(piece)
                if not piece or (
                    position == size and sha and f"sha256:{sha.hexdigest()}" != self._blob.digest
                ):
                    raise self._damaged()
                if not skipping:
                    yield piece
                    self._reached(position)

    def _open(self) -> FileIO:
        try:
            file = self._path.open("rb", buffering=0)
        except OSError as error:
            raise FetchError(f"{self._what}: not in the store: {error.strerror}") from error
        if self._path.stat().st_size != self._blob.size:
            file.close()
            raise self._damaged()
        return file

    def _damaged(self) -> FetchError:
        return FetchError(
            f"{self._what}: its file in the store is damaged, so it is not sent",
            hint=f"remove {self._path} and build or pull the image again",
        )

    def _given_up(self, error: Exception, tries: int) -> FetchError:
        if isinstance(error, (RefusedError, UnreachableError)):
            return error
        return UnreachableError(f"{self._what}: the transfer broke off: {error}; tried {tries} times")


def _taken(response: Response) -> int | None:
    """How many bytes of an upload the registry has, by its ``Range``; None where it doesn't say.

    ``0-0`` counts as none: that is how registries say it, although it means one byte."""
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0
