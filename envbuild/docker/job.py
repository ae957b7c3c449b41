"""A container that runs to its end by itself, watched from here: the engine may be on another machine."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from envbuild.docker.client import has_bridge
from envbuild.errors import RunError
from envbuild.lazy import lazy

if TYPE_CHECKING:
    import docker
    import requests
    import urllib3
    from docker import types as docker_types
    from docker.utils import socket as docker_socket
else:
    docker = lazy("docker")
    docker_types = lazy("docker.types")
    docker_socket = lazy("docker.utils.socket")
    requests = lazy("requests")
    urllib3 = lazy("urllib3")

RUN_LABEL = "dev.envbuild.run"
"""Label of a job's container: the run's name. Whatever a killed envbuild leaves behind can be found by it."""
_STOP_SECONDS = 10
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerJob:
    """What is to be started: with the image's own user and working directory."""

    name: str
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    gpus: bool = False
    outputs: PurePosixPath | None = None
    """A directory that is made before the start."""
    ports: Mapping[int, int] = field(default_factory=dict)
    """Of the container, and which of the engine's loopback each is reached at; an engine without a bridge
    has no use for them."""
    stop_seconds: int = _STOP_SECONDS


class ContainerExecution:
    """A started container. ``client`` is closed with it, and so is ``output``, a socket of what the container
    prints from its start on."""

    def __init__(
        self,
        client: docker.DockerClient,
        container: str,
        output: Any,
        job: ContainerJob,
    ) -> None:
        self._client = client
        self._container = container
        self._output = output
        self._job = job

    @property
    def identity(self) -> str:
        return self._container[:12]

    def logs(self) -> Iterator[bytes]:
        frames = cast(Callable[..., Iterator[tuple[int, bytes]]], docker_socket.frames_iter)
        with _told():
            for _, piece in frames(self._output, tty=False):
                yield piece

    def wait(self) -> int:
        with _told():
            return int(self._client.api.wait(self._container)["StatusCode"])

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is still there after ``stop_seconds``."""
        with _told():
            self._client.api.stop(self._container, timeout=self._job.stop_seconds)

    def bring_outputs(self, directory: Path) -> bool:
        """Unpacks the job's outputs into ``directory``. False where there are none. Nothing of them leads out
        of ``directory``: links and devices are left out."""
        if self._job.outputs is None:
            return False
        with _told():
            try:
                pieces, _ = self._client.api.get_archive(self._container, str(self._job.outputs))
            except docker.errors.NotFound:
                return False
            try:
                return unpack_plain(_Stream(pieces), directory)
            except (OSError, ValueError, tarfile.TarError) as error:
                raise RunError(
                    f"{getattr(error, 'strerror', None) or error}",
                    hint=f"they are still in the container {self.identity}: docker cp brings them",
                ) from error

    def close(self) -> None:
        _remove(self._client, self._container)
        _hang_up(self._output)
        self._client.close()


def start_container(client: docker.DockerClient, job: ContainerJob) -> ContainerExecution:
    """Starts it. The client belongs to what is returned. Raises ``RunError``."""
    create = cast(Callable[..., dict[str, Any]], client.api.create_container)
    attach = cast(Callable[..., Any], client.api.attach_socket)
    start = cast(Callable[[str], None], client.api.start)
    with _told():
        gpus = [docker_types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if job.gpus else None
        bridge = has_bridge(client)
        host = client.api.create_host_config(
            network_mode="bridge" if bridge else "host",
            init=True,
            device_requests=gpus,
            port_bindings={inner: ("127.0.0.1", outer) for inner, outer in job.ports.items()}
            if bridge
            else None,
        )
        made = create(
            job.image,
            command=list(job.command),
            name=job.name,
            environment=[f"{name}={value}" for name, value in job.environment.items()],
            labels={RUN_LABEL: job.name},
            ports=list(job.ports) if bridge else None,
            host_config=host,
        )["Id"]
        output = None
        try:
            if job.outputs is not None:
                client.api.put_archive(made, "/", _empty_directory(job.outputs))
            # Before it starts: so nothing is missed, whatever becomes of an engine's own logs.
            output = attach(made, params={"stdout": 1, "stderr": 1, "stream": 1})
            start(made)
        except BaseException:
            _remove(client, made)
            _hang_up(output)
            raise
        return ContainerExecution(client, made, output, job)


def _empty_directory(path: PurePosixPath) -> bytes:
    """A tar of that directory, which any user may write to; the engine makes those above it."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        entry = tarfile.TarInfo(str(path).lstrip("/"))
        entry.type, entry.mode = tarfile.DIRTYPE, 0o777
        archive.addfile(entry)
    return sink.getvalue()


def _hang_up(output: Any) -> None:
    if output is not None:
        # The library keeps the answer there that the socket was taken from; with it goes the connection.
        with contextlib.suppress(OSError, ValueError):
            output._response.close()
        with contextlib.suppress(OSError, ValueError):
            output.close()


def _remove(client: docker.DockerClient, container: str) -> None:
    with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
        client.api.remove_container(container, force=True, v=True)


def unpack_plain(archive: Any, directory: Path) -> bool:
    """The plain files and directories of a tar, below its first part; True where there was a file.

    ``archive`` is read once, from its start. Nothing of it leads out of ``directory``, which is there and
    empty: links and devices are left out. Raises ``OSError``, ``ValueError`` and ``TarError``.
    """
    unpacked = False
    with tarfile.open(fileobj=archive, mode="r|") as members:
        for member in members:
            parts = [part for part in member.name.split("/") if part not in ("", ".")][1:]
            if not parts or ".." in parts:
                continue
            target = directory.joinpath(*parts)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                target.parent.mkdir(parents=True, exist_ok=True)
                source = members.extractfile(member)
                assert source is not None, "a plain file has a content"
                with source, target.open("wb") as sink:
                    while piece := source.read(_PIECE):
                        sink.write(piece)
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
                unpacked = True
    return unpacked


class _Stream:
    """Pieces, read as a file is."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        chunk = bytes(self._rest[:size])
        del self._rest[:size]
        return chunk


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Says in our words what the engine, or the way to it, refused."""
    try:
        yield
    except docker.errors.APIError as error:
        raise RunError(f"the Docker engine refuses the job: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise RunError(f"the Docker engine went away: {error}") from error
    except OSError as error:
        # A stream's socket is read without the library.
        raise RunError(f"the Docker engine went away: {error.strerror or error}") from error
