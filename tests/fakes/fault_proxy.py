"""A reverse proxy on loopback that breaks requests and answers as it is told to, and lists what it saw."""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_LIMIT = 30.0
"""Seconds after which a connection, or a wait for a test, counts as hanging."""

CUTS = ("cut before", "cut in request", "cut after", "cut in answer")
"""Before anything is passed on; in the middle of the body; after the whole request but without an answer; in
the middle of the answer's body (of its head, where there is no body)."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What befalls a request. Without ``number``, ``method`` and ``path`` it befalls the next one."""

    kind: str
    """One of ``CUTS``, or:

    * ``status``: answers ``status`` with ``headers`` itself, after the body came, or, ``early``, before;
    * ``length``: the answer's ``Content-Length`` is ``amount`` more than what comes, then it ends;
    * ``corrupt answer``, ``corrupt request``: one bit of the body is another;
    * ``header``: ``headers`` replace those of the answer; an empty value removes one;
    * ``move``: the ``Location`` of the answer is at ``elsewhere``, ``host:port``;
    * ``strip``: passed on without ``Authorization``;
    * ``stall request``, ``stall answer``: half of the body, then nothing until ``go_on``;
    * ``slow``: the answer's body comes in sixteen pieces with ``amount`` milliseconds between them;
    * ``none``: passed on unharmed, after ``first`` was called.
    """
    number: int | None = None
    """Of the request, from 0."""
    since: int = 0
    """The first request it may befall."""
    method: str = ""
    path: str = ""
    """A regular expression that is searched in path and query."""
    times: int | None = 1
    """How many requests it befalls; None: all."""
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    amount: int = 0
    early: bool = False
    elsewhere: str = ""
    first: Callable[[], None] | None = None
    """Called before anything else happens."""


@dataclass(kw_only=True)
class Seen:
    """A request as it came."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: int = 0
    """Bytes that came of it."""
    fault: str = ""
    status: int = 0
    """What was answered; 0 for no answer."""


class FaultProxy:
    """Passes requests on to ``upstream``, ``host:port``, and answers back; change ``faults`` while it runs.

    The ``Host`` header stays, so a server that makes addresses of it names the proxy."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.reached = threading.Event()
        """Set when a request stalls."""
        self._go_on = threading.Event()
        self._lock = threading.Lock()
        self._left: dict[int, int | None] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections: set[socket.socket] = set()
        self._closed = False

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def break_next(self, *faults: Fault) -> None:
        """Replaces the faults, and counts and lists requests anew from 0."""
        with self._lock:
            self.faults = list(faults)
            self.requests = []
            self._left = {}
        self.reached.clear()
        self._go_on.clear()

    def go_on(self) -> None:
        """Lets what stalls go on."""
        self._go_on.set()

    def serve(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self.go_on()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(_LIMIT)
        with suppress(OSError, _Cut):
            with self._lock:
                self._connections.add(connection)
            stream = _Stream(connection)
            while (head := stream.head()) is not None:
                self._request(connection, stream, head)
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _request(self, client: socket.socket, stream: _Stream, head: bytes) -> None:
        line, headers = _parse(head)
        method, path, _ = line.split(" ", 2)
        seen, fault = self._take(method, path, headers)
        kind = fault.kind if fault else "none"
        if fault is not None and fault.first is not None:
            fault.first()
        length = int(headers.get("content-length", "0"))
        if headers.get("expect", "").lower() == "100-continue" and kind != "status":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault is not None and kind == "status":
            if not fault.early:
                for piece in stream.body(headers, length):
                    seen.body += len(piece)
            seen.status = fault.status
            extra = "".join(f"{name}: {value}\r\n" for name, value in fault.headers.items())
            body = b'{"errors":[{"code":"FAULT","message":"of the proxy"}]}'
            answer = f"HTTP/1.1 {fault.status} Fault\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
            client.sendall(answer.encode() + (body if method != "HEAD" else b""))
            if fault.early:
                raise _Cut
            return
        if kind == "cut before":
            _reset(client)
        host, _, port = self.upstream.rpartition(":")
        try:
            server = socket.create_connection((host, int(port)), timeout=_LIMIT)
        except OSError:
            # As a proxy whose server is away; the tests that kill a registry see a broken connection.
            _reset(client)
        with server:
            dropped = {"connection", "expect", *(("authorization",) if kind == "strip" else ())}
            server.sendall(_without(head, dropped, "Connection: close"))
            # A server that refuses a request needn't read its body.
            unread = stream.body(headers, length)
            for piece in unread:
                half = length // 2
                if kind in ("cut in request", "stall request") and seen.body + len(piece) > half:
                    part = piece[: max(half - seen.body, 0)]
                    seen.body += len(part)
                    server.sendall(part)
                    if kind == "cut in request":
                        _reset(client)
                    self._stall()
                    piece = piece[len(part) :]
                if kind == "corrupt request" and seen.body == 0:
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                seen.body += len(piece)
                try:
                    server.sendall(piece)
                except OSError:
                    for rest in unread:
                        seen.body += len(rest)
                    break
            if kind == "cut in request":
                _reset(client)
            self._answer(client, _Stream(server), method, seen, fault)

    def _answer(
        self, client: socket.socket, server: _Stream, method: str, seen: Seen, fault: Fault | None
    ) -> None:
        head = server.head()
        kind = fault.kind if fault else "none"
        if kind == "cut after" or head is None:
            _reset(client)
            return
        line, headers = _parse(head)
        status = int(line.split(" ")[1])
        length = 0 if method == "HEAD" or status in (204, 304) else int(headers.get("content-length", "-1"))
        dropped, added = {"connection"}, ""
        if fault is not None and kind == "header":
            dropped |= {name.lower() for name in fault.headers}
            added = "\r\n".join(f"{name}: {value}" for name, value in fault.headers.items() if value)
        if fault is not None and kind == "length":
            dropped.add("content-length")
            added = f"Content-Length: {max(length, 0) + fault.amount}"
        head = _without(head, dropped, added)
        if fault is not None and kind == "move":
            head = head.replace(f"://{self.host}/".encode(), f"://{fault.elsewhere}/".encode())
        if kind == "cut in answer" and length <= 0:
            client.sendall(head[: len(head) // 2])
            _reset(client)
        seen.status = status
        client.sendall(head)
        sent = 0
        for piece in server.rest():
            if kind in ("cut in answer", "stall answer") and sent + len(piece) > length // 2:
                part = piece[: max(length // 2 - sent, 0)]
                client.sendall(part)
                sent += len(part)
                if kind == "cut in answer":
                    raise _Cut
                self._stall()
                piece = piece[len(part) :]
            if kind == "corrupt answer" and sent == 0:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            if fault is not None and kind == "slow":
                step = max(len(piece) // 16, 1)
                for at in range(0, len(piece), step):
                    client.sendall(piece[at : at + step])
                    self._go_on.wait(fault.amount / 1000)
            else:
                client.sendall(piece)
            sent += len(piece)
        if kind == "length" or length < 0:
            raise _Cut

    def _take(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[Seen, Fault | None]:
        with self._lock:
            seen = Seen(number=len(self.requests), method=method, path=path, headers=headers)
            self.requests.append(seen)
            for place, fault in enumerate(self.faults):
                left = self._left.setdefault(place, fault.times)
                if (
                    left != 0
                    and fault.number in (None, seen.number)
                    and fault.since <= seen.number
                    and fault.method in ("", method)
                    and re.search(fault.path, path)
                ):
                    self._left[place] = None if left is None else left - 1
                    seen.fault = fault.kind
                    return seen, fault
            return seen, None

    def _stall(self) -> None:
        self.reached.set()
        self._go_on.wait(_LIMIT)


class _Cut(Exception):
    """Ends the connection."""


class _Stream:
    """One side of a connection, read in pieces."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead = b""

    def head(self) -> bytes | None:
        """Up to and with the empty line; None where the connection ended before, or isn't one of HTTP."""
        while b"\r\n\r\n" not in self._ahead:
            if self._ahead and not self._ahead[:1].isalpha():
                return None
            piece = self._connection.recv(1 << 16)
            if not piece:
                return None
            self._ahead += piece
        head, mark, self._ahead = self._ahead.partition(b"\r\n\r\n")
        return head + mark

    def body(self, headers: Mapping[str, str], length: int) -> Iterator[bytes]:
        """The pieces of a request's body; of a chunked one as they stand on the wire, to its last chunk."""
        if "chunked" in headers.get("transfer-encoding", ""):
            seen = b""
            while not seen.endswith(b"0\r\n\r\n"):
                piece = self._piece(1 << 16)
                seen = (seen + piece)[-8:]
                yield piece
            return
        while length > 0:
            piece = self._piece(min(length, 1 << 16))
            length -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """All that comes until the connection ends."""
        while True:
            piece, self._ahead = self._ahead or self._connection.recv(1 << 16), b""
            if not piece:
                return
            yield piece

    def _piece(self, most: int) -> bytes:
        ahead = self._ahead or self._connection.recv(most)
        piece, self._ahead = ahead[:most], ahead[most:]
        if not piece:
            raise _Cut
        return piece


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _without(head: bytes, dropped: set[str], added: str) -> bytes:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].strip().lower() not in dropped]
    return "\r\n".join([first, *kept, *([added] if added else []), "", ""]).encode("latin-1")


def _reset(client: socket.socket) -> None:
    """Ends the connection as a crash does: whatever is under way is lost."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise _Cut


@contextmanager
def proxy(upstream: str) -> Iterator[FaultProxy]:
    """Runs a proxy before ``upstream`` on a free port until the end of the context."""
    made = FaultProxy(upstream)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(_LIMIT)


@dataclass(kw_only=True)
class Tunnel:
    """An HTTP proxy that leads ``CONNECT`` to any host to one place: so a name needs no entry anywhere."""

    host: str = ""
    target: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """The place that each connection was asked for, and its ``Proxy-Authorization``."""


@contextmanager
def tunnel(target: str) -> Iterator[Tunnel]:
    """Runs a tunnel to ``target``, ``host:port``, on a free port until the end of the context."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    state = Tunnel(host=f"127.0.0.1:{listener.getsockname()[1]}", target=target)
    done = threading.Event()

    def lead(client: socket.socket) -> None:
        with client, suppress(OSError, _Cut):
            client.settimeout(_LIMIT)
            head = _Stream(client).head()
            if head is None:
                return
            line, headers = _parse(head)
            state.asked.append((line.split(" ")[1], headers.get("proxy-authorization", "")))
            if not line.startswith("CONNECT "):
                client.sendall(b"HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = state.target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=_LIMIT) as server:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                _join(client, server, done)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=lead, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        done.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(_LIMIT)


def _join(one: socket.socket, other: socket.socket, done: threading.Event) -> None:
    """Copies both ways until one side ends."""
    while not done.is_set():
        ready, _, _ = select.select([one, other], [], [], 0.2)
        for source in ready:
            piece = source.recv(1 << 16)
            if not piece:
                return
            (other if source is one else one).sendall(piece)
