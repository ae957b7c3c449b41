"""Files from elsewhere, over HTTP(S) or from ``file:`` addresses, into the store."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from envbuild.errors import BuildError, FetchError
from envbuild.http.address import shown
from envbuild.http.base import Attempt, Download, Failure, FilesError, RequestFailed
from envbuild.http.document_cache import CachedDocument, DocumentCache
from envbuild.http.policy import Retry
from envbuild.http.transport import Answer, Transport
from envbuild.progress import Counter, Progress
from envbuild.settings import Settings
from envbuild.store.content import Store, commit_file

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_PARALLEL = 8
_TRIES = 3


class HttpFetcher:
    """A :class:`envbuild.http.base.Fetcher`. Makes no connection before it must; thread safe.

    ``offline``: answers from the store and the kept documents only, whatever the address.
    ``sleep`` waits between tries (seconds); ``environ`` is where CA, netrc and home are looked for.
    ``mirrors`` gives beginnings of addresses and what is asked in their place, in order, and nothing else.
    """

    def __init__(
        self,
        store: Store,
        *,
        offline: bool,
        settings: Settings,
        progress: Progress,
        sleep: Callable[[float], None] = time.sleep,
        environ: Mapping[str, str] | None = None,
        mirrors: Callable[[], Mapping[str, Sequence[str]]] = dict,
    ) -> None:
        self._store = store
        self._mirrors = mirrors
        self._offline = offline
        self._progress = progress
        self._retries = Retry(tries=_TRIES)
        self._sleep = sleep
        self._documents = DocumentCache(store)
        self._transport = Transport(ca_bundle=settings.ca_bundle, parallel=_PARALLEL, environ=environ)

    def __enter__(self) -> HttpFetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the fetcher may be used again and opens new ones."""
        self._transport.close()

    def files(self, downloads: Sequence[Download], *, stage: str = "download") -> dict[str, Path]:
        """All of ``downloads`` in the store: SHA-256 (bare hex) to path.

        Raises ``FilesError`` with every file that is gone or wrong. Once an address can't be reached at
        all, files not yet begun are given up, so that a dead network doesn't cost a wait for each one."""
        wanted = {download.sha256: download for download in downloads}
        stop = threading.Event()
        try:
            with self._store.scratch() as scratch, ThreadPoolExecutor(_PARALLEL) as pool:
                jobs = {
                    sha256: pool.submit(self._file, download, scratch, stage, stop)
                    for sha256, download in wanted.items()
                }
                try:
                    wait(jobs.values())
                except BaseException:
                    stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        except OSError as error:
            raise self._full(error) from error
        return self._results(jobs)

    def read(self, url: str, *, limit: int, cache: bool = False) -> bytes:
        """The body of ``url``, at the most ``limit`` bytes; see the protocol. Raises ``FetchError``."""
        try:
            kept = self._documents.load(url) if cache or self._offline else None
        except ValueError:
            kept = None
        download = Download(what=shown(url).rpartition("/")[2] or shown(url), urls=(url,), sha256="")
        if self._offline:
            if kept is None:
                raise FetchError(
                    f"offline, and {shown(url)} was never read before",
                    hint="run once without --offline, so that it is kept",
                )
            return kept.body
        try:
            asked = self._asked(url)[0]
            return self._retry(asked, lambda: self._read(url, asked, limit, kept, cache))
        except _GivenUp as error:
            raise FilesError([Failure(download=download, attempts=(error.attempt,))]) from error.__cause__

    def part(self, url: str, start: int, length: int) -> bytes | None:
        """Bytes of a file elsewhere; see ``RangeReader``. One try."""
        if self._offline:
            return None
        wanted = {"range": f"bytes={start}-{start + length - 1}"}
        body = bytearray()
        try:
            with self._transport.get(self._asked(url)[0], wanted) as answer:
                if answer.status != 206:
                    return None
                for chunk in answer.chunks:
                    body += chunk
                    if len(body) > length:
                        return None
        except (RequestFailed, FetchError):
            return None
        return bytes(body)

    def _asked(self, url: str) -> tuple[str, ...]:
        """The addresses that are asked for ``url``."""
        mirrors = self._mirrors()
        start = max((start for start in mirrors if url.startswith(start)), key=len, default=None)
        if start is None:
            return (url,)
        return tuple(f"{address.rstrip('/')}/{url[len(start) :]}" for address in mirrors[start])

    def _read(self, url: str, asked: str, limit: int, kept: CachedDocument | None, cache: bool) -> bytes:
        with self._transport.get(asked, kept.conditions if kept else None) as answer:
            if answer.status == 304 and kept is not None:
                return kept.body
            _ok(answer)
            body = bytearray()
            for chunk in answer.chunks:
                body += chunk
                if len(body) > limit:
                    raise RequestFailed(f"more than the {limit} bytes it may have")
            data = bytes(body)
            if cache:
                self._documents.save(url, answer.headers, data)
            return data

    def _file(
        self, download: Download, scratch: Path, stage: str, stop: threading.Event
    ) -> Path | Failure | None:
        """The file's path, why it can't be had, or None where the whole was given up before."""
        if stop.is_set():
            return None
        if (there := self._store.verified_artifact(download.sha256)) is not None:
            return there
        if self._offline:
            attempt = Attempt(
                address="the store",
                reason="not there, and this is offline",
                tries=1,
                hint="run once without --offline, so that it is kept",
            )
            return Failure(download=download, attempts=(attempt,))
        attempts = []
        part = scratch / download.sha256
        with self._progress.task(stage, download.what, total=download.size) as task:
            counter = Counter(task)
            for url in [asked for stated in download.urls for asked in self._asked(stated)]:
                try:
                    self._retry(url, partial(self._save, url, download, part, counter, stop))
                except _GivenUp as error:
                    attempts.append(error.attempt)
                    continue
                except _Stopped:
                    return None
                except OSError:
                    stop.set()
                    raise
                path = self._store.artifact(download.sha256)
                try:
                    commit_file(part, path)
                except BuildError as error:
                    stop.set()
                    raise FetchError(error.message, hint=error.hint) from error
                return path
        failure = Failure(download=download, attempts=tuple(attempts))
        if any(attempt.unreachable for attempt in attempts):
            stop.set()
        return failure

    def _save(
        self, url: str, download: Download, part: Path, counter: Counter, stop: threading.Event
    ) -> None:
        """Streams one address to ``part``; raises ``RequestFailed`` unless it is the file that was pinned."""
        sha, size = hashlib.sha256(), 0
        with self._transport.get(url, access=download.access) as answer, part.open("wb", buffering=0) as sink:
            _ok(answer)
            for chunk in answer.chunks:
                if stop.is_set():
                    raise _Stopped
                sink.write(chunk)
                sha.update(chunk)
                size += len(chunk)
                if download.size is not None and size > download.size:
                    raise RequestFailed(f"more than the {download.size} bytes that are pinned")
                counter.reached(size)
        if download.size is not None and size < download.size:
            raise RequestFailed(
                f"only {size} of {download.size} bytes",
                retry=True,
                hint="the server's file is cut short; try again later, or another mirror",
            )
        if sha.hexdigest() != download.sha256:
            raise RequestFailed(
                f"its SHA-256 is {sha.hexdigest()}, but {download.sha256} is pinned",
                hint="the file was replaced or damaged on its way; nothing of it was kept",
            )

    def _retry(self, url: str, once: Callable[[], _T]) -> _T:
        """What ``once`` returns, tried again where that can help; raises ``_GivenUp``."""
        number = 1
        while True:
            try:
                return once()
            except RequestFailed as refused:
                pause = self._retries.wait(number, refused.after) if refused.retry else None
                if pause is None:
                    raise _GivenUp(
                        Attempt(
                            address=shown(url),
                            reason=refused.reason,
                            tries=number,
                            gone=refused.gone,
                            unreachable=refused.unreachable,
                            hint=refused.hint,
                        )
                    ) from refused
                _LOG.info("%s: %s; trying again", shown(url), refused.reason)
                self._sleep(pause)
                number += 1

    def _results(self, jobs: Mapping[str, Future[Path | Failure | None]]) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        failures: list[Failure] = []
        for sha256, job in jobs.items():
            try:
                result = job.result()
            except OSError as error:
                raise self._full(error) from error
            if isinstance(result, Failure):
                failures.append(result)
            elif result is not None:
                paths[sha256] = result
        if failures:
            raise FilesError(failures)
        return paths

    def _full(self, error: OSError) -> FetchError:
        return FetchError(
            f"can't write to {self._store.root}: {error.strerror or error}",
            hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
        )


class _GivenUp(Exception):
    """An address was tried as often as makes sense."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(str(attempt))
        self.attempt = attempt


class _Stopped(Exception):
    """Another file's failure ended the whole."""


def _ok(answer: Answer) -> None:
    if answer.status != 200:
        raise RequestFailed(f"HTTP {answer.status}, which was not asked for")
