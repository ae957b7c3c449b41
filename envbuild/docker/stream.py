"""One build's conversation with a Docker engine: the context goes up, messages come back.

The connection is a thread's own, so that Ctrl-C never finds it in the middle of a message. To stop, our half
of the connection is closed: the engine takes that for a client that has gone, ends the step, and still says
so, which tells us when it has cleaned up.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from envbuild.errors import BuildError
from envbuild.lazy import lazy

if TYPE_CHECKING:
    import docker
    import requests
    import urllib3
else:
    docker = lazy("docker")
    requests = lazy("requests")
    urllib3 = lazy("urllib3")

_PIECE = 1 << 18
_QUEUED = 1000
"""Messages that may wait to be read: a step that prints without end is slowed down, not remembered."""


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turns what the SDK and its connection raise into ``BuildError``."""

    broken = (
        docker.errors.DockerException,
        requests.RequestException,
        # Of a response that is read raw, as messages are.
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
    )
    try:
        yield
    except docker.errors.APIError as error:
        explanation = " ".join(str(error.explanation or error).split())
        raise BuildError(f"the Docker engine refused: {explanation[:1000]}") from error
    except broken as error:
        raise BuildError(
            f"the connection to the Docker engine failed: {error}",
            hint="see the engine's own log for the reason",
        ) from error


class _StreamStopped(Exception):
    """The context isn't needed any more."""


class Conversation:
    """A build under way. Iterating gives the engine's messages and raises what broke the connection."""

    def __init__(
        self, client: docker.DockerClient, context: Iterable[bytes], options: Mapping[str, Any]
    ) -> None:
        """``client`` is used by nothing else until the end; ``options`` are those of the SDK's ``build``."""
        self._client = client
        self._context = context
        self._options = options
        self._messages: queue.Queue[Mapping[str, Any] | BaseException | None] = queue.Queue(_QUEUED)
        self._response: requests.Response | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._talk, name="docker-build", daemon=True)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self._thread.start()
        while (message := self._next(None)) is not None:
            yield message

    def stop(self, seconds: float) -> Iterator[Mapping[str, Any]]:
        """Has the engine end the build and gives the messages that still come: for ``seconds`` at most, then
        the connection is closed."""
        with self._lock:
            self._stopping = True
            self._hang_up()
        deadline = time.monotonic() + seconds
        # What goes wrong now is no news: the build is over.
        with contextlib.suppress(queue.Empty, Exception):
            while (message := self._next(max(0.0, deadline - time.monotonic()))) is not None:
                yield message
        if self._response is not None:
            self._response.close()

    def _next(self, seconds: float | None) -> Mapping[str, Any] | None:
        if self._ended or not self._thread.ident:
            return None
        message = self._messages.get(timeout=seconds)
        if message is None or isinstance(message, BaseException):
            self._ended = True
            if message is not None:
                raise message
            return None
        return message

    def _talk(self) -> None:
        end: BaseException | None = None
        self._client.api.hooks["response"].append(self._answered)
        build = cast(Callable[..., Iterator[Mapping[str, Any]]], self._client.api.build)
        try:
            for message in build(
                fileobj=self._upload(), custom_context=True, decode=True, timeout=None, **self._options
            ):
                self._messages.put(message)
        except BaseException as error:  # noqa: BLE001 - raised again where messages are read
            end = error
        self._messages.put(end)

    def _answered(self, response: requests.Response, *_: Any, **__: Any) -> None:
        with self._lock:
            self._response = response
            if self._stopping:
                self._hang_up()

    def _upload(self) -> Iterator[bytes]:
        """The context in pieces that are worth a system call each."""
        gathered = bytearray()
        for piece in self._context:
            if self._stopping:
                raise _StreamStopped
            gathered += piece
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    def _hang_up(self) -> None:
        """Closes our half of the connection, where there is an answer by now."""
        if self._response is None:
            return
        connection = getattr(self._response.raw, "connection", None)
        try:
            # Not the socket's own method: that of a TLS socket would stop decrypting too.
            socket.socket.shutdown(connection.sock, socket.SHUT_WR)  # type: ignore[union-attr]
        except (AttributeError, TypeError, OSError):
            self._response.close()
