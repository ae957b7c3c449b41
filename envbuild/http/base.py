"""How stages get files from elsewhere. Who fetches is passed in; nothing here knows a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """One file to get. ``urls`` are tried in order (``file:`` is allowed); ``what`` names it for people."""

    what: str
    urls: tuple[str, ...]
    sha256: str
    size: int | None = None


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
