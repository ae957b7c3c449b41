"""A container that runs to its end by itself, watched from here: the engine may be on another machine."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from envbuild.engines.docker_client import has_bridge
from envbuild.errors import RunError

if TYPE_CHECKING:
    import docker

RUN_LABEL = "dev.envbuild.run"
"""Label of a job's container: the run's name. Whatever a killed envbuild leaves behind can be found by it."""
_STOP_SECONDS = 10
_SPOOLED = 16 << 20
"""Bytes of an archive of outputs that are kept in memory; more go to disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerJob:
    """What is to be started: with the image's own user and working directory."""

    name: str
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    gpus: bool = False


class ContainerExecution:
    """A started container. ``client`` is closed with it."""

    def __init__(self, client: docker.DockerClient, container: str) -> None:
        self._client = client
        self._container = container

    @property
    def identity(self) -> str:
        return self._container[:12]

    def logs(self) -> Iterator[bytes]:
        attach = cast(Callable[..., Iterator[bytes]], self._client.api.attach)
        with _told():
            yield from attach(self._container, stdout=True, stderr=True, stream=True, logs=True)

    def wait(self) -> int:
        with _told():
            return int(self._client.api.wait(self._container)["StatusCode"])

    def stop(self) -> None:
        with _told():
            self._client.api.stop(self._container, timeout=_STOP_SECONDS)

    def bring_outputs(self, path: str, directory: Path) -> bool:
        """Unpacks the container's directory ``path`` into ``directory``. False where there is none, or it is
        empty. Nothing of it leads out of ``directory``: links and devices are left out."""
        import docker

        try:
            pieces, _ = self._client.api.get_archive(self._container, path)
        except docker.errors.NotFound:
            return False
        except docker.errors.DockerException as error:
            raise RunError(f"the outputs can't be brought from the engine: {error}") from error
        with _told(), tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spool:
            for piece in pieces:
                spool.write(piece)
            spool.seek(0)
            return unpack_plain(cast(Any, spool), directory)

    def close(self) -> None:
        import docker
        import requests

        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            self._client.api.remove_container(self._container, force=True, v=True)
        self._client.close()


def start_container(client: docker.DockerClient, job: ContainerJob) -> ContainerExecution:
    """Starts it. The client belongs to what is returned. Raises ``RunError``."""
    create = cast(Callable[..., dict[str, Any]], client.api.create_container)
    start = cast(Callable[[str], None], client.api.start)
    with _told():
        from docker.types import DeviceRequest

        requests = [DeviceRequest(count=-1, capabilities=[["gpu"]])] if job.gpus else None
        host = client.api.create_host_config(
            network_mode="bridge" if has_bridge(client) else "host", init=True, device_requests=requests
        )
        made = create(
            job.image,
            command=list(job.command),
            name=job.name,
            environment=[f"{name}={value}" for name, value in job.environment.items()],
            labels={RUN_LABEL: job.name},
            host_config=host,
        )["Id"]
        execution = ContainerExecution(client, made)
        try:
            start(made)
        except BaseException:
            execution.close()
            raise
        return execution


def unpack_plain(archive: Any, directory: Path) -> bool:
    """The plain files and directories of a tar, below its first part; True where there was a file."""
    found = False
    with tarfile.open(fileobj=archive, mode="r:") as members:
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
                    while piece := source.read(1 << 20):
                        sink.write(piece)
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
                found = True
    return found


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Says in our words what the engine, or the way to it, refused."""
    import docker
    import requests
    import urllib3

    try:
        yield
    except docker.errors.APIError as error:
        raise RunError(f"the Docker engine refuses the job: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise RunError(f"the Docker engine went away: {error}") from error
