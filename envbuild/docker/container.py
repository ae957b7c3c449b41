"""Starts a container and is its terminal, as ``docker run --rm`` is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from envbuild.docker.client import has_bridge
from envbuild.errors import RunError
from envbuild.lazy import lazy

if TYPE_CHECKING:
    import docker
    import requests
    from docker.utils import socket as docker_socket
else:
    docker = lazy("docker")
    docker_socket = lazy("docker.utils.socket")
    requests = lazy("requests")

Forward = Callable[[Callable[[int], object]], AbstractContextManager[None]]
"""Passes signals to a function while it is entered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """What is to be started. ``binds`` are (source, target, read only)."""

    image: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    binds: Sequence[tuple[str, str, bool]]
    working_dir: str | None
    user: str
    network: bool


def run_container(client: docker.DockerClient, container: Container, forward: Forward) -> int:
    """The command's exit status; the container is gone afterwards. Raises ``RunError``."""
    try:
        return _run(client, container, forward)
    except docker.errors.APIError as error:
        raise RunError(f"the Docker engine can't start the command: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise RunError(f"the Docker engine failed: {error}") from error


def _run(client: docker.DockerClient, container: Container, forward: Forward) -> int:
    terminal = os.isatty(0) and os.isatty(1)
    environment = dict(container.environment)
    if terminal and "TERM" in os.environ:
        environment.setdefault("TERM", os.environ["TERM"])
    host = client.api.create_host_config(
        binds={
            source: {"bind": target, "mode": "ro" if read_only else "rw"}
            for source, target, read_only in container.binds
        },
        network_mode=_network(client, container.network),
        tmpfs={"/tmp": "mode=1777,exec"},
        init=True,
    )
    create = cast(Callable[..., dict[str, Any]], client.api.create_container)
    identity = create(
        container.image,
        command=list(container.arguments) or None,
        environment=[f"{name}={value}" for name, value in environment.items()],
        user=container.user,
        working_dir=container.working_dir,
        stdin_open=True,
        tty=terminal,
        host_config=host,
    )["Id"]
    try:
        return _attached(client, identity, terminal, forward)
    finally:
        client.api.remove_container(identity, force=True, v=True)


def _network(client: docker.DockerClient, wanted: bool) -> str:
    if not wanted:
        return "none"
    return "bridge" if has_bridge(client) else "host"


def _attached(client: docker.DockerClient, container: str, terminal: bool, forward: Forward) -> int:
    attach = cast(Callable[..., Any], client.api.attach_socket)
    stream = attach(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw: socket.socket = getattr(stream, "_sock", stream)
    raw.settimeout(None)
    try:
        return _converse(client, container, raw, terminal, forward)
    finally:
        stream.close()
        raw.close()


def _converse(
    client: docker.DockerClient, container: str, raw: socket.socket, terminal: bool, forward: Forward
) -> int:

    def send(number: int) -> None:
        # The command may have ended just now; then there is nothing left to signal.
        with contextlib.suppress(docker.errors.APIError):
            client.api.kill(container, signal.Signals(number).name)

    with forward(send), _raw_terminal(terminal):
        start = cast(Callable[[str], None], client.api.start)
        start(container)
        threading.Thread(target=_pump_input, args=(raw,), daemon=True).start()
        with _resizing(client, container, terminal):
            _pump_output(raw, terminal)
            status = int(client.api.wait(container)["StatusCode"])
    return status


def _pump_input(raw: socket.socket) -> None:
    """Passes our standard input on until it ends; then the command's ends too."""
    with contextlib.suppress(OSError):
        while piece := os.read(0, 1 << 16):
            raw.sendall(piece)
        # Not a TLS socket's own method, which would stop decrypting what still comes.
        shutdown = socket.socket.shutdown if isinstance(raw, socket.socket) else type(raw).shutdown
        shutdown(raw, socket.SHUT_WR)


def _pump_output(raw: socket.socket, terminal: bool) -> None:
    frames = cast(Callable[..., Iterator[tuple[int, bytes]]], docker_socket.frames_iter)
    for number, piece in frames(raw, terminal):
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(2 if number == 2 else 1, view) :]
        except BrokenPipeError:
            raw.shutdown(socket.SHUT_RDWR)  # Nobody listens any more: the command gets its own SIGPIPE.
            return


@contextlib.contextmanager
def _raw_terminal(terminal: bool) -> Iterator[None]:
    """Within, keys go to the command as they are typed: the container's terminal interprets them."""
    if not terminal:
        yield
        return

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(client: docker.DockerClient, container: str, terminal: bool) -> Iterator[None]:
    if not terminal or threading.current_thread() is not threading.main_thread():
        yield
        return

    def resize(number: int = 0, frame: object = None) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        with contextlib.suppress(docker.errors.APIError):
            client.api.resize(container, size.lines, size.columns)

    resize()
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
