"""Connections of HTTP: kept open, through proxies, with TLS, and cut at once when work must stop.

For registries and for all other downloads. On httpcore, the part of httpx that makes connections: importing
all of httpx takes longer than a push that has nothing to send.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import httpcore

from envbuild.errors import FetchError, causes
from envbuild.http.base import HostAccess
from envbuild.http.policy import proxy_of

_COMMIT_SECONDS = 300.0
"""For the answer to an upload: a registry may move the whole blob before it answers."""
_IDLE_SECONDS = 20.0
_PARALLEL = 16
_PORTS = {"http": 80, "https": 443}
_ADDRESS = re.compile(r"[!-~]+")


class BrokenError(Exception):
    """No connection, or one that broke. ``final``: it will never work. Its text may be shown."""

    def __init__(self, reason: str, *, final: bool = False, hint: str | None = None) -> None:
        super().__init__(reason)
        self.final = final
        self.hint = hint


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """An answer whose body has yet to be read. Names of headers are lower case."""

    status: int
    reason: str
    """What the server calls the status; mirrors of organisations say here what they forbid."""
    headers: Mapping[str, str]
    url: str
    body: Iterator[bytes]
    """Raises ``BrokenError``."""

    def read(self, limit: int) -> bytes | None:
        """The whole body, or None where it is longer than ``limit`` bytes."""
        content = bytearray()
        for piece in self.body:
            content += piece
            if len(content) > limit:
                return None
        return bytes(content)


class Trust:
    """TLS settings per host: the CA bundle or the system's, and what lies in ``HOST`` of ``directories``
    besides: ``*.crt`` are further CAs, ``NAME.cert`` with ``NAME.key`` is shown to the server. ``access``
    says which servers else are shown a certificate, and whose isn't checked."""

    def __init__(
        self,
        ca_bundle: Path | None,
        environ: Mapping[str, str],
        directories: Sequence[Path] = (),
        *,
        access: HostAccess | None = None,
    ) -> None:
        self._access = access or HostAccess()
        self._ca_bundle = ca_bundle
        self._environ = environ
        self._directories = directories
        self._plain: ssl.SSLContext | None = None

    def directory(self, host: str) -> Path | None:
        """The first ``HOST[:PORT]`` there is."""
        for directory in self._directories:
            with contextlib.suppress(OSError):
                if (directory / host).is_dir():
                    return directory / host
        return None

    def is_special(self, host: str) -> bool:
        """Whether the settings for ``HOST[:PORT]`` are its own."""
        access = self._access
        return access.shows_cert(host) or access.is_insecure(host) or self.directory(host) is not None

    def context(self, host: str) -> ssl.SSLContext:
        if not self.is_special(host):
            if self._plain is None:
                self._plain = _tls_context(self._ca_bundle, self._environ)
            return self._plain
        context = _tls_context(self._ca_bundle, self._environ)
        if self._access.is_insecure(host):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._access.client_cert is not None and self._access.shows_cert(host):
            _show_cert(context, self._access.client_cert)
        directory = self.directory(host)
        if directory is None:
            return context
        try:
            for file in sorted(directory.glob("*.crt")):
                context.load_verify_locations(str(file))
            for file in sorted(directory.glob("*.cert")):
                context.load_cert_chain(str(file), str(file.with_suffix(".key")))
        except OSError as error:
            raise FetchError(
                f"the certificates in {directory} can't be used: {error.strerror or type(error).__name__}",
                hint="they must be PEM files that you may read; NAME.cert needs its NAME.key",
            ) from error
        return context


def _show_cert(context: ssl.SSLContext, file: Path) -> None:
    try:
        # Without a password nobody is asked for one at the terminal.
        context.load_cert_chain(str(file), password="")
    except OSError as error:
        raise FetchError(
            f"the client certificate {file} can't be used: {error.strerror or type(error).__name__}",
            hint="it must be one PEM file of a certificate and its key, without a password",
        ) from error


def _tls_context(ca_bundle: Path | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that trusts the given CA bundle, else SSL_CERT_FILE, REQUESTS_CA_BUNDLE, the system.

    Raises ``FetchError`` for a bundle that can't be read."""
    bundle = ca_bundle
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if bundle is None and environ.get(name):
            bundle = Path(environ[name])
    try:
        if bundle is not None:
            folder = bundle.is_dir()
            return ssl.create_default_context(
                cafile=None if folder else str(bundle), capath=str(bundle) if folder else None
            )
        paths = ssl.get_default_verify_paths()
        if paths.cafile is None and paths.capath is None:
            # A Python that knows no system store (python.org's on macOS): httpx's own bundle.
            return ssl.create_default_context(cafile=certifi.where())
        return ssl.create_default_context()
    except OSError as error:
        raise FetchError(
            f"the CA bundle {bundle} can't be used: {error.strerror or error}",
            hint="set SSL_CERT_FILE to a file of PEM certificates",
        ) from error


class Sockets:
    """Those that are open, which any thread may cut; one that comes after the cut is cut at once: a thread
    that was about to connect would else wait for its answer as long as a registry may take. Thread safe."""

    def __init__(self) -> None:
        # Reentrant, because the garbage collector may close a connection in the midst of any of these.
        self._lock = threading.RLock()
        self._open: set[socket.socket] = set()
        self._is_cut = False

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._open.add(opened)
            if self._is_cut:
                _shut(opened)

    def discard(self, closed: socket.socket) -> None:
        with self._lock:
            self._open.discard(closed)

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for connection in list(self._open):
                _shut(connection)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not the method of a TLS socket, which would take its state away from under its thread.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


class Connections:
    """Makes single requests. Thread safe. ``seconds``: for a connection, and for an answer or its next
    piece. Once closed it may be used again."""

    def __init__(
        self,
        trust: Trust,
        environ: Mapping[str, str],
        seconds: tuple[float, float],
        *,
        parallel: int = _PARALLEL,
    ) -> None:
        self._trust = trust
        self._parallel = parallel
        self._environ = environ
        self._seconds = seconds
        self._lock = threading.RLock()
        self._pools: dict[tuple[str, str | None], httpcore.ConnectionPool] = {}
        self._sockets = Sockets()

    def close(self) -> None:
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    def cut(self) -> None:
        """Ends whatever is under way in other threads, and what they begin from now on: they get a
        ``BrokenError`` at once."""
        self._sockets.cut()

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Iterator[bytes] | bytes | None = None,
    ) -> Iterator[Response]:
        """One request and its answer, whatever that is. Raises ``BrokenError``; what ``body`` raises
        ends the connection and comes out here."""
        try:
            parts = urlsplit(url)
            port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if not _ADDRESS.fullmatch(url) or not parts.hostname:
            raise BrokenError("not a usable address", final=True)
        address = httpcore.URL(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port,
            # httpcore's own reading of an address drops what stands behind a semicolon.
            target=f"{parts.path or '/'}{parts.query and '?'}{parts.query}",
        )
        connect, answer = self._seconds
        read = max(answer, _COMMIT_SECONDS) if body is not None and answer >= 60 else answer
        times = {"connect": connect, "read": read, "write": answer, "pool": None}
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        sent = {"host": host if port is None else f"{host}:{port}", **headers}
        fields = [(name.encode(), value.encode("latin-1", "replace")) for name, value in sent.items()]
        pool = self._pool(parts.scheme, parts.netloc.rpartition("@")[2], parts.hostname, port)
        extensions = {"timeout": times}
        try:
            with pool.stream(method, address, headers=fields, content=body, extensions=extensions) as raw:
                phrase = raw.extensions.get("reason_phrase", b"")
                yield Response(
                    status=raw.status,
                    reason=phrase.decode("ascii", "ignore"),
                    headers=_headers(raw.headers),
                    url=url,
                    body=_pieces(raw, (connect, read)),
                )
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.ProxyError,
            httpcore.UnsupportedProtocol,
            OSError,
        ) as error:
            if isinstance(error, OSError) and not isinstance(error, (ssl.SSLError, ConnectionError)):
                raise
            raise broken(error, (connect, read)) from error

    def _pool(self, scheme: str, netloc: str, host: str, port: int | None) -> httpcore.ConnectionPool:
        proxy = proxy_of(host, port, self._environ, scheme)
        own = scheme == "https" and self._trust.is_special(netloc)
        key = (netloc if own else scheme, proxy)
        with self._lock:
            if key not in self._pools:
                # A pool is told its TLS settings even where all it does is plain HTTP; the usual ones
                # read a whole store of certificates.
                context = (
                    self._trust.context(netloc)
                    if scheme == "https"
                    else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                )
                self._pools[key] = self._make_pool(context, proxy)
            return self._pools[key]

    def _make_pool(self, context: ssl.SSLContext, proxy: str | None) -> httpcore.ConnectionPool:
        keywords: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": self._parallel,
            "max_keepalive_connections": self._parallel,
            "keepalive_expiry": _IDLE_SECONDS,
            "network_backend": _Backend(self._sockets),
        }
        if proxy is None:
            return httpcore.ConnectionPool(**keywords)
        try:
            parts = urlsplit(proxy)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("not a proxy of HTTP")
            login = None
            if parts.username:
                login = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
            bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            return httpcore.HTTPProxy(bare, proxy_auth=login, **keywords)
        except (ValueError, UnicodeError) as error:
            raise FetchError(
                f"the proxy settings can't be used: {type(error).__name__}",
                hint="look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; http(s):// proxies work",
            ) from error


def broken(error: Exception, seconds: tuple[float, float]) -> BrokenError:
    """What an exception of a connection means, in words that hold no address and no header."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BrokenError(
                f"its TLS certificate is not trusted: {cause.verify_message}",
                final=True,
                hint="set SSL_CERT_FILE to your organisation's CA bundle",
            )
        if isinstance(cause, ssl.SSLError):
            return BrokenError(f"TLS failed: {cause.reason or type(cause).__name__}")
    if isinstance(error, httpcore.ConnectTimeout):
        return BrokenError(f"no connection within {seconds[0]:.0f} s")
    if isinstance(error, httpcore.TimeoutException):
        return BrokenError(f"silent for {seconds[1]:.0f} s")
    if isinstance(error, httpcore.ProxyError):
        return BrokenError(f"the proxy refused: {str(error)[:80]}")
    if isinstance(error, httpcore.LocalProtocolError):
        return BrokenError("the request can't be written", final=True)
    if isinstance(error, httpcore.RemoteProtocolError):
        return BrokenError("the connection ended before the answer did")
    if isinstance(error, httpcore.ConnectError):
        return BrokenError(f"no connection: {error}")
    return BrokenError(f"the connection broke: {error or type(error).__name__}")


def _pieces(response: httpcore.Response, seconds: tuple[float, float]) -> Iterator[bytes]:
    assert isinstance(response.stream, Iterable)
    try:
        yield from response.stream
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise broken(error, seconds) from error


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("ascii", "replace").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


class _Backend(httpcore.NetworkBackend):
    """httpcore's own connections; each is in ``sockets`` while it is open."""

    def __init__(self, sockets: Sockets) -> None:
        self._inner = httpcore.SyncBackend()
        self._sockets = sockets

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _WatchedStream(stream, self._sockets)


class _WatchedStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, sockets: Sockets) -> None:
        self._inner = inner
        self._sockets = sockets
        self._socket: socket.socket = inner.get_extra_info("socket")
        sockets.add(self._socket)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._sockets.discard(self._socket)
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        # The TLS socket takes the file descriptor over from this one.
        self._sockets.discard(self._socket)
        return _WatchedStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._sockets)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
