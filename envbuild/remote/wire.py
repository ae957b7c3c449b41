"""Sockets below httpcore that are known while they are open, so that another thread can cut them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Any

import httpcore


class Backend(httpcore.NetworkBackend):
    """httpcore's own connections; each is in ``sockets`` while it is open."""

    def __init__(self, sockets: set[socket.socket], lock: threading.Lock) -> None:
        self._inner = httpcore.SyncBackend()
        self._sockets = sockets
        self._lock = lock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._sockets, self._lock)


class _Stream(httpcore.NetworkStream):
    def __init__(
        self, inner: httpcore.NetworkStream, sockets: set[socket.socket], lock: threading.Lock
    ) -> None:
        self._inner = inner
        self._sockets = sockets
        self._lock = lock
        self._socket: socket.socket = inner.get_extra_info("socket")
        with lock:
            sockets.add(self._socket)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._forget()
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        # The TLS socket takes the file descriptor over from this one.
        self._forget()
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, timeout), self._sockets, self._lock
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _forget(self) -> None:
        with self._lock:
            self._sockets.discard(self._socket)
