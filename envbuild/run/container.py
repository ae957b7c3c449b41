"""Runs a command in a container of a Docker engine, as ``docker run --rm`` would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from envbuild.engines.docker_client import NoEngine, connect
from envbuild.errors import RunError
from envbuild.progress import Progress
from envbuild.publish.daemon import load
from envbuild.run.base import WORKDIR, Command, Mount
from envbuild.run.process import argv, environment, image_config
from envbuild.run.signals import forwarding
from envbuild.store.content import Store

if TYPE_CHECKING:
    import docker


class ContainerRunner:
    """The command runs as the caller's user and group, so that what it writes belongs to the caller.

    A terminal is given where standard input and output are one. Directories are mounted by the engine:
    with one on another machine, they are that machine's."""

    name = "docker"

    def __init__(self, store: Store, progress: Progress, environ: Mapping[str, str]) -> None:
        self._store = store
        self._progress = progress
        self._environ = environ

    def available(self) -> str | None:
        client = connect(self._environ)
        if isinstance(client, NoEngine):
            return client.reason
        client.close()
        return None

    def run(self, command: Command) -> int:
        client = connect(self._environ)
        if isinstance(client, NoEngine):
            raise RunError(client.reason, hint=client.hint)
        import docker
        import requests

        try:
            identity = load(client, command.image, (), self._store, self._progress)
            return _run(client, identity, command, image_config(command.image, self._store))
        except docker.errors.APIError as error:
            raise RunError(
                f"the Docker engine can't start the command: {error.explanation or error}"
            ) from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise RunError(f"the Docker engine failed: {error}") from error
        finally:
            client.close()


def _run(client: docker.DockerClient, identity: str, command: Command, config: Mapping[str, Any]) -> int:
    terminal = os.isatty(0) and os.isatty(1)
    argv(config, command)  # Raises where there is no command at all.
    mounts = list(command.mounts)
    if command.workdir is not None:
        mounts.insert(0, Mount(source=command.workdir, target=WORKDIR))
    environ = environment(config, command)
    if terminal and "TERM" in os.environ:
        environ.setdefault("TERM", os.environ["TERM"])
    host = client.api.create_host_config(
        binds={
            str(mount.source.resolve()): {
                "bind": str(mount.target),
                "mode": "ro" if mount.read_only else "rw",
            }
            for mount in mounts
        },
        network_mode=_network(client, command),
        tmpfs={"/tmp": "mode=1777,exec"},
        init=True,
    )
    create = cast(Callable[..., dict[str, Any]], client.api.create_container)
    container = create(
        identity,
        command=list(command.arguments) or None,
        environment=[f"{name}={value}" for name, value in environ.items()],
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=str(WORKDIR) if command.workdir is not None else None,
        stdin_open=True,
        tty=terminal,
        host_config=host,
    )["Id"]
    try:
        return _attached(client, container, terminal)
    finally:
        client.api.remove_container(container, force=True, v=True)


def _network(client: docker.DockerClient, command: Command) -> str:
    if not command.network:
        return "none"
    networks = {each["Name"] for each in client.api.networks()}
    return "bridge" if "bridge" in networks else "host"


def _attached(client: docker.DockerClient, container: str, terminal: bool) -> int:
    attach = cast(Callable[..., Any], client.api.attach_socket)
    stream = attach(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw: socket.socket = getattr(stream, "_sock", stream)
    raw.settimeout(None)

    def send(number: int) -> None:
        import docker

        # The command may have ended just now; then there is nothing left to signal.
        with contextlib.suppress(docker.errors.APIError):
            client.api.kill(container, signal.Signals(number).name)

    with forwarding(send, shared_terminal=False), _raw_terminal(terminal):
        start = cast(Callable[[str], None], client.api.start)
        start(container)
        threading.Thread(target=_pump_input, args=(raw,), daemon=True).start()
        with _resizing(client, container, terminal):
            _pump_output(raw, terminal)
            status = int(client.api.wait(container)["StatusCode"])
    stream.close()
    return status


def _pump_input(raw: socket.socket) -> None:
    """Passes our standard input on until it ends; then the command's ends too."""
    with contextlib.suppress(OSError):
        while piece := os.read(0, 1 << 16):
            raw.sendall(piece)
        raw.shutdown(socket.SHUT_WR)


def _pump_output(raw: socket.socket, terminal: bool) -> None:
    from docker.utils.socket import frames_iter

    frames = cast(Callable[..., Iterator[tuple[int, bytes]]], frames_iter)
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
    import termios
    import tty

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
        import docker

        size = os.get_terminal_size(sys.stdout.fileno())
        with contextlib.suppress(docker.errors.APIError):
            client.api.resize(container, size.lines, size.columns)

    resize()
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
