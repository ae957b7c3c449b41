"""Small documents that were read before, kept with what revalidates them.

One file a document, so that it is replaced in one step: a line of JSON, then the body.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from envbuild.errors import BuildError, FetchError
from envbuild.http.address import shown, split_credentials
from envbuild.store.content import Store, commit_file

AREA = "metadata/http"


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedDocument:
    """A body, and the validators its server gave."""

    body: bytes
    etag: str | None = None
    last_modified: str | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """Request headers that ask only for a newer body."""
        headers = {}
        if self.etag:
            headers["if-none-match"] = self.etag
        if self.last_modified:
            headers["if-modified-since"] = self.last_modified
        return headers


class DocumentCache:
    """Documents by address; the address's credentials are not part of the key."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, url: str) -> CachedDocument | None:
        """What is kept of ``url``, or None; a damaged file counts as none."""
        try:
            raw = (self._store.root / AREA / _key(url)).read_bytes()
        except (OSError, ValueError):
            return None
        head, newline, body = raw.partition(b"\n")
        try:
            meta = json.loads(head)
            intact = bool(newline) and meta["sha256"] == hashlib.sha256(body).hexdigest()
            etag, modified = meta["etag"], meta["last-modified"]
        except (ValueError, KeyError, TypeError):
            return None
        if not intact:
            return None
        return CachedDocument(body=body, etag=etag, last_modified=modified)

    def save(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        meta = {
            "url": shown(url),
            "etag": headers.get("etag"),
            "last-modified": headers.get("last-modified"),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        try:
            path = self._store.directory(AREA) / _key(url)
            with self._store.scratch() as scratch:
                part = scratch / "document"
                part.write_bytes(json.dumps(meta, sort_keys=True).encode() + b"\n" + body)
                commit_file(part, path)
        except OSError as error:
            raise FetchError(
                f"can't keep {shown(url)} in {self._store.root}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error
        except BuildError as error:
            raise FetchError(error.message, hint=error.hint) from error


def _key(url: str) -> str:
    return hashlib.sha256(split_credentials(url)[0].encode()).hexdigest()
