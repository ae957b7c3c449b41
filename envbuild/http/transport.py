"""One request to one address: HTTP(S) or ``file:``, with this machine's CA, proxies and credentials.

Each redirect is judged: none may leave TLS, and none may take credentials to another host or end at a
``file:`` address.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from envbuild.http.address import AddressLogin, Netrc, local_path, same_host, shown, split_credentials
from envbuild.http.auth_file import Access, AuthFile, Bearer, PathToken
from envbuild.http.base import HostAccess, RequestFailed
from envbuild.http.policy import is_busy, retry_after
from envbuild.lazy import lazy
from envbuild.oci.digest import CHUNK

if TYPE_CHECKING:
    from envbuild.http import connection
else:
    connection = lazy("envbuild.http.connection")

REDIRECTS = 10
"""Hops followed before an address counts as a loop."""

CONNECT_SECONDS = 15.0
READ_SECONDS = 60.0
"""Silence after which a connection counts as dead; not a limit for a whole download."""

# Without the encoding a proxy or a server may compress; hashes are of the bytes as they are.
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "envbuild"}
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_QUERY_SAFE = "".join(letter for letter in _VISIBLE if letter not in '"#<>')
_PATH_SAFE = "".join(letter for letter in _QUERY_SAFE if letter not in "?`{}")
"""What needs no escape there (the URL Standard, percent-encode sets)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A server's answer whose body has yet to be read. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Transport:
    """Makes requests. Thread safe; no connection is made before the first one that needs it."""

    def __init__(
        self, *, ca_bundle: Path | None, parallel: int, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._ca_bundle = ca_bundle
        self._parallel = parallel
        self._netrc = Netrc(self._environ)
        self._auth_file = AuthFile(self._environ)
        self._lock = threading.Lock()
        self._connections: dict[HostAccess | None, connection.Connections] = {}

    def close(self) -> None:
        with self._lock:
            for connections in self._connections.values():
                connections.close()

    @contextmanager
    def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, access: HostAccess | None = None
    ) -> Iterator[Answer]:
        """The answer of ``url``: 200, or where ``headers`` are conditional 304, or ask for a part 206.

        Raises ``RequestFailed`` for every other one, also while the body is read."""
        try:
            path = local_path(url)
            bare, credentials = split_credentials(url)
        except ValueError as error:
            raise RequestFailed(f"not a usable address: {error}") from error
        if path is not None:
            with _open_file(path) as answer:
                yield answer
            return
        with self._get_http(bare, credentials, dict(headers or {}), access) as answer:
            yield answer

    @contextmanager
    def _get_http(
        self, url: str, given: AddressLogin | None, headers: Mapping[str, str], host_access: HostAccess | None
    ) -> Iterator[Answer]:
        origin, connections = url, self._open_connections(host_access)
        try:
            for _ in range(REDIRECTS + 1):
                if urlsplit(url).scheme not in ("http", "https"):
                    raise RequestFailed(f"not an address of http, https or file: {shown(url)}")
                access = self._auth_file.access(url) or self._netrc.credentials(url)
                if given is not None and same_host(origin, url):
                    access = given
                target = access.applied(url) if isinstance(access, PathToken) else url
                sent = {**_HEADERS, **headers, **_authorization(access)}
                with connections.exchange("GET", _escaped(target), sent) as response:
                    location = response.headers.get("location")
                    if response.status in (301, 302, 303, 307, 308) and location is not None:
                        url = self._hop(url, location)
                        continue
                    _check(response, authenticated=access is not None, part="range" in headers)
                    yield Answer(status=response.status, headers=response.headers, chunks=response.body)
                    return
            raise RequestFailed(f"more than {REDIRECTS} redirects")
        except connection.BrokenError as error:
            again = not error.final
            raise RequestFailed(str(error), retry=again, unreachable=again, hint=error.hint) from error

    def _hop(self, url: str, location: str) -> str:
        try:
            # A header's bytes came as Latin-1, whatever they mean.
            location = quote(location, safe=_VISIBLE, encoding="latin-1")
            target, _ = split_credentials(urljoin(url, location))
            scheme = urlsplit(target).scheme
        except ValueError as error:
            raise RequestFailed("redirected to something that is no address") from error
        if scheme not in ("http", "https") or (scheme == "http" and urlsplit(url).scheme == "https"):
            raise RequestFailed(
                f"redirected from {urlsplit(url).scheme} to {shown(target)}, which isn't safe"
            )
        return target

    def _open_connections(self, access: HostAccess | None) -> connection.Connections:
        with self._lock:
            if access not in self._connections:
                environ = self._environ if access is None else dict(access.variables)
                trust = connection.Trust(self._ca_bundle, environ, access=access)
                seconds = (CONNECT_SECONDS, READ_SECONDS)
                self._connections[access] = connection.Connections(
                    trust, environ, seconds, parallel=self._parallel
                )
            return self._connections[access]


def _authorization(access: Access | None) -> dict[str, str]:
    if isinstance(access, AddressLogin):
        pair = f"{access.user}:{access.password}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {"authorization": f"Bearer {access.token}"} if isinstance(access, Bearer) else {}


def _escaped(url: str) -> str:
    """The address as it goes over the wire, in ASCII; what is escaped stays so. Raises ``RequestFailed``."""
    try:
        parts = urlsplit(url)
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    except ValueError as error:
        raise RequestFailed(f"not a usable address: {type(error).__name__}") from error
    path, query = quote(parts.path, safe=_PATH_SAFE), quote(parts.query, safe=_QUERY_SAFE)
    return parts._replace(netloc=host, path=path, query=query, fragment="").geturl()


@contextmanager
def _open_file(path: Path) -> Iterator[Answer]:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise RequestFailed("no such file", gone=True) from error
    except OSError as error:
        raise RequestFailed(error.strerror or "can't be opened") from error
    with file:
        yield Answer(status=200, headers={}, chunks=iter(lambda: file.read(CHUNK), b""))


def _check(response: connection.Response, *, authenticated: bool, part: bool) -> None:
    """Returns for 200 and 304, for 206 where a ``part`` was asked for; raises ``RequestFailed`` for all
    else."""
    status = response.status
    if status in (200, 304) or (part and status == 206):
        return
    reason = f"HTTP {status} {response.reason}".rstrip()
    if status in (401, 403, 407):
        what = "were not accepted" if authenticated else "are missing, or it isn't for you"
        hint = (
            f"credentials {what}; they are taken from netrc and rattler's auth file"
            if status != 407
            else "the proxy wants a login"
        )
        raise RequestFailed(reason, hint=hint)
    busy = is_busy(status)
    raise RequestFailed(
        reason,
        retry=busy,
        gone=status in (404, 410),
        unreachable=busy,
        after=retry_after(response.headers.get("retry-after")),
    )
