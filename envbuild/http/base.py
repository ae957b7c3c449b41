"""How stages get files from elsewhere. Who fetches is passed in; nothing here knows a host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from envbuild.errors import FetchError


@dataclass(frozen=True, kw_only=True, slots=True)
class HostAccess:
    """How servers are reached where a tool's settings say it, and those hold for its files only."""

    variables: tuple[tuple[str, str], ...] = ()
    """In place of the environment's: those of the CA bundle and of proxies."""
    client_cert: Path | None = None
    """A PEM file of a certificate and its key."""
    client_hosts: frozenset[str] = frozenset()
    """``HOST[:PORT]`` of the servers that the certificate is shown to; no other gets it."""
    insecure: frozenset[str] = frozenset()
    """``HOST`` or ``HOST:PORT`` of servers whose own certificates aren't checked."""

    def __repr__(self) -> str:
        return "HostAccess(***)"  # A proxy's address may hold a login.

    def shows_cert(self, host: str) -> bool:
        """Whether ``client_cert`` is for ``HOST[:PORT]``."""
        return self.client_cert is not None and host.lower() in self.client_hosts

    def is_insecure(self, host: str) -> bool:
        host = host.lower()
        return bool({host, re.sub(r":\d+$", "", host)} & self.insecure)


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """One file to get. ``urls`` are tried in order (``file:`` is allowed); ``what`` names it for people."""

    what: str
    urls: tuple[str, ...]
    sha256: str
    size: int | None = None
    access: HostAccess | None = None


class Fetcher(Protocol):
    """Gets files over HTTP(S) or from ``file:`` URLs, with retries, time-outs and the machine's CA and
    proxy settings. Credentials come from netrc and rattler's auth file; none is ever in a message. An
    offline fetcher answers from the store only."""

    def files(self, downloads: Sequence[Download], *, stage: str = "download") -> dict[str, Path]:
        """All of them, in parallel, into the store's artifacts: SHA-256 to path. What is there and whole
        isn't fetched again. Raises ``FetchError``: which file, which addresses, why (HTTP status, short
        read, wrong hash, no network)."""

    def read(self, url: str, *, limit: int, cache: bool = False) -> bytes:
        """The body of one small document, at the most ``limit`` bytes. With ``cache`` it is kept and
        revalidated (ETag, Last-Modified), and is what an offline fetcher answers with."""


@runtime_checkable
class RangeReader(Protocol):
    """Reads parts of files elsewhere."""

    def part(self, url: str, start: int, length: int) -> bytes | None:
        """``length`` bytes from ``start`` on. None where they can't be had: offline, a server without
        ranges, any error (which a download of the whole will report). Never raises for these."""


class RequestFailed(Exception):
    """One address did not give the file. ``retry``: the same address may answer later."""

    def __init__(
        self,
        reason: str,
        *,
        retry: bool = False,
        gone: bool = False,
        unreachable: bool = False,
        after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry
        self.gone = gone
        self.unreachable = unreachable
        self.after = after
        """Seconds the server asked to wait."""
        self.hint = hint


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What one address answered. ``address`` has no credential."""

    address: str
    reason: str
    tries: int
    gone: bool = False
    """The server is there and says it doesn't have the file (404, 410)."""
    unreachable: bool = False
    """No connection, or the server failed every time."""
    hint: str | None = None

    def __str__(self) -> str:
        times = "" if self.tries == 1 else f" ({self.tries} tries)"
        return f"{self.address}: {self.reason}{times}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A file that no address gave."""

    download: Download
    attempts: tuple[Attempt, ...]

    @property
    def gone(self) -> bool:
        """Every address was reached, and none has the file any more."""
        return bool(self.attempts) and all(attempt.gone for attempt in self.attempts)

    def __str__(self) -> str:
        if not self.attempts:
            return f"can't get {self.download.what}: no address is known for it"
        if len(self.attempts) == 1:
            return f"can't get {self.download.what} from {self.attempts[0]}"
        lines = "".join(f"\n    {attempt}" for attempt in self.attempts)
        return f"can't get {self.download.what} from any of:{lines}"


class FilesError(FetchError):
    """One or more files can't be had; ``failures`` says which and why."""

    def __init__(self, failures: Sequence[Failure], *, hint: str | None = None) -> None:
        self.failures = tuple(failures)
        super().__init__(
            "\n".join(str(failure) for failure in self.failures), hint=hint or _hint(self.failures)
        )


def _hint(failures: Sequence[Failure]) -> str | None:
    attempts = [attempt for failure in failures for attempt in failure.attempts]
    for attempt in attempts:
        if attempt.hint:
            return attempt.hint
    if any(attempt.unreachable for attempt in attempts):
        return "check the network, the proxy settings (HTTPS_PROXY, NO_PROXY) and the mirror's address"
    return None
