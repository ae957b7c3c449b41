"""One request to one address: HTTP(S) or ``file:``, with this machine's CA, proxies and credentials.

Redirects are followed here and not by httpx, because each hop has to be judged: none may leave TLS, and
none may take credentials to another host or end at a ``file:`` address.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from envbuild.errors import FetchError, causes
from envbuild.http.address import AddressLogin, Netrc, local_path, same_host, shown, split_credentials
from envbuild.http.auth_file import AuthFile, Bearer, PathToken
from envbuild.http.base import RequestFailed
from envbuild.http.policy import is_busy, retry_after, tls_context
from envbuild.lazy import lazy
from envbuild.oci.digest import CHUNK

if TYPE_CHECKING:
    import httpx
else:
    httpx = lazy("httpx")

REDIRECTS = 10
"""Hops followed before an address counts as a loop."""

CONNECT_SECONDS = 15.0
READ_SECONDS = 60.0
"""Silence after which a connection counts as dead; not a limit for a whole download."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A server's answer whose body has yet to be read. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Transport:
    """Makes requests. Thread safe; the HTTP client is made at the first one that needs it."""

    def __init__(
        self, *, ca_bundle: Path | None, parallel: int, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._ca_bundle = ca_bundle
        self._parallel = parallel
        self._netrc = Netrc(self._environ)
        self._auth_file = AuthFile(self._environ)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
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
        with self._get_http(bare, credentials, dict(headers or {})) as answer:
            yield answer

    @contextmanager
    def _get_http(self, url: str, given: AddressLogin | None, headers: dict[str, str]) -> Iterator[Answer]:
        client = self._http()
        origin = url
        try:
            for _ in range(REDIRECTS + 1):
                if urlsplit(url).scheme not in ("http", "https"):
                    raise RequestFailed(f"not an address of http, https or file: {shown(url)}")
                access = self._auth_file.access(url) or self._netrc.credentials(url)
                if given is not None and same_host(origin, url):
                    access = given
                auth = (
                    httpx.BasicAuth(access.user, access.password)
                    if isinstance(access, AddressLogin)
                    else None
                )
                bearer = {"authorization": f"Bearer {access.token}"} if isinstance(access, Bearer) else {}
                target = access.applied(url) if isinstance(access, PathToken) else url
                # Without an explicit None, httpx would take credentials from nowhere either: the address
                # it is given has none.
                with client.stream("GET", target, headers={**headers, **bearer}, auth=auth) as response:
                    if response.has_redirect_location:
                        url = self._hop(url, response.headers["location"])
                        continue
                    _check(response, authenticated=access is not None, part="range" in headers)
                    yield Answer(
                        status=response.status_code,
                        headers={name.lower(): value for name, value in response.headers.items()},
                        chunks=response.iter_raw(CHUNK),
                    )
                    return
            raise RequestFailed(f"more than {REDIRECTS} redirects")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _refusal(error) from error

    def _hop(self, url: str, location: str) -> str:
        try:
            target, _ = split_credentials(urljoin(url, location))
            scheme = urlsplit(target).scheme
        except ValueError as error:
            raise RequestFailed("redirected to something that is no address") from error
        if scheme not in ("http", "https") or (scheme == "http" and urlsplit(url).scheme == "https"):
            raise RequestFailed(
                f"redirected from {urlsplit(url).scheme} to {shown(target)}, which isn't safe"
            )
        return target

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                limits = httpx.Limits(
                    max_connections=self._parallel, max_keepalive_connections=self._parallel
                )
                try:
                    self._client = httpx.Client(
                        verify=tls_context(self._ca_bundle, self._environ),
                        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None),
                        limits=limits,
                        headers={"user-agent": "envbuild", "accept-encoding": "identity"},
                    )
                except (ImportError, ValueError, httpx.InvalidURL) as error:
                    raise FetchError(
                        f"the proxy settings can't be used: {type(error).__name__}",
                        hint="look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; http(s):// proxies work",
                    ) from error
            return self._client


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


def _check(response: httpx.Response, *, authenticated: bool, part: bool) -> None:
    """Returns for 200 and 304, for 206 where a ``part`` was asked for; raises ``RequestFailed`` for all
    else."""
    status = response.status_code
    if status in (200, 304) or (part and status == 206):
        return
    reason = f"HTTP {status} {response.reason_phrase}".rstrip()
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


def _refusal(error: Exception) -> RequestFailed:
    """What an exception of httpx means. Its own text is kept only where it can't hold an address."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RequestFailed(
                f"its TLS certificate is not trusted: {cause.verify_message}",
                hint="set SSL_CERT_FILE to your organisation's CA bundle",
            )
    if isinstance(error, httpx.ConnectTimeout):
        return RequestFailed(f"no connection within {CONNECT_SECONDS:.0f} s", retry=True, unreachable=True)
    if isinstance(error, httpx.TimeoutException):
        return RequestFailed(f"silent for {READ_SECONDS:.0f} s", retry=True, unreachable=True)
    if isinstance(error, httpx.ProxyError):
        return RequestFailed(f"the proxy failed: {error}", retry=True, unreachable=True)
    if isinstance(error, httpx.ConnectError):
        return RequestFailed(f"no connection: {error}", retry=True, unreachable=True)
    if isinstance(error, httpx.RemoteProtocolError):
        return RequestFailed("the connection ended before the file did", retry=True, unreachable=True)
    if isinstance(error, httpx.TransportError):
        return RequestFailed(f"the connection broke: {type(error).__name__}", retry=True, unreachable=True)
    return RequestFailed(f"not a usable address: {type(error).__name__}")
