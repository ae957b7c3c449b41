"""A Docker engine: this machine's, or another's over TCP or SSH (``host=ssh://user@machine``)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from envbuild.docker.client import NoEngine, connect, has_bridge, is_here
from envbuild.docker.job import ContainerExecution, ContainerJob, start_container
from envbuild.docker.ssh import ssh_command
from envbuild.errors import EnvbuildError, RunError
from envbuild.images.sinks.daemon import bytes_to_load, engine_platform, load
from envbuild.lazy import lazy
from envbuild.oci.image import Image
from envbuild.targets.base import OUTPUTS, Job, PreflightFinding, Service, TargetFile
from envbuild.targets.files.compose import job_file, service_file
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget
from envbuild.targets.options import TargetOptions, option, switch

if TYPE_CHECKING:
    from envbuild.targets import serving
else:
    serving = lazy("envbuild.targets.serving")


C = TypeVar("C")


def _address(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("unix", "tcp", "ssh") or not rest:
        raise ValueError("must be unix://PATH, tcp://HOST:PORT or ssh://USER@HOST")
    if ":" in rest.rpartition("@")[0]:
        raise ValueError("must hold no password: log in by a key")
    if scheme == "ssh":
        ssh_command(text)
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class DockerOptions(TargetOptions):
    host: str | None = option("the engine: unix://, tcp:// or ssh:// [DOCKER_HOST]", _address)
    context: str | None = option("a context of docker's own configuration")
    gpus: bool = option("give the job all GPUs", switch, default="false")


class DockerTarget(ConfiguredTarget[DockerOptions]):
    """Images are loaded straight into the engine, only the layers it lacks; with ``registry`` they are pushed
    there too, for others."""

    @property
    def _environ(self) -> Mapping[str, str]:
        """This process's environment, at the engine of the target."""
        environ = dict(self._context.environ)
        options = {"DOCKER_HOST": self._options.host, "DOCKER_CONTEXT": self._options.context}
        for variable, value in options.items():
            if value is not None:
                environ = {name: known for name, known in environ.items() if name not in options}
                environ[variable] = value
        return environ

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        try:
            platform = engine_platform(self._environ)
        except EnvbuildError as error:
            return [PreflightFinding.of(error)]
        if platform == image.platform:
            return []
        text = f"the engine of {self.record.name} runs {platform}, the image is for {image.platform}"
        return [PreflightFinding(text, hint=f"give the target that platform: platform={platform}")]

    def bytes_to_pull(self, image: Image) -> int | None:
        client = connect(self._environ)
        if isinstance(client, NoEngine):
            return None
        with contextlib.closing(client):
            return bytes_to_load(client, image)

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return (job_file(job, gpus=self._options.gpus),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        return (service_file(service, gpus=self._options.gpus),)

    def submit(self, job: Job) -> ContainerExecution:
        started = ContainerJob(
            name=job.name,
            image="",
            command=job.command,
            environment=dict(job.env),
            gpus=self._options.gpus,
            outputs=OUTPUTS,
        )
        return self._start(started, job.image, job.reference)

    def serve(self, service: Service, port: int) -> ContainerExecution:
        with contextlib.closing(_reached(connect(self._environ))) as client:
            here, bridge = is_here(client), has_bridge(client)
        if not here:
            raise RunError(
                f"the engine of {self.record.name} isn't on this machine: a service there can't be reached",
                hint="--dry-run prints the compose file that starts it there",
            )
        # Without a network of its own the container shares the machine's: its server listens on loopback.
        inner = service.port if bridge else port
        own = {} if bridge else {serving.HOST_VARIABLE: "127.0.0.1"}
        started = ContainerJob(
            name=service.name,
            image="",
            command=serving.serving_command(service.image, inner, self._context.store),
            environment={**dict(service.env), **own},
            gpus=self._options.gpus,
            ports={inner: port},
            stop_seconds=serving.STOP_SECONDS,
        )
        return self._start(started, service.image, service.reference)

    def _start(self, job: ContainerJob, image: Image, reference: str) -> ContainerExecution:
        """Loads the image and starts the job in it."""
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(contextlib.closing(_reached(connect(self._environ))))
            name = reference.partition("@")[0]
            try:
                identity = load(client, image, (name,), self._context.store, self._context.progress)
                execution = start_container(client, replace(job, image=identity))
            except EnvbuildError as error:
                raise RunError(error.message, hint=error.hint) from error
            stack.pop_all()  # The client is the execution's now.
            return execution


def _reached(client: C | NoEngine) -> C:
    if isinstance(client, NoEngine):
        raise RunError(client.reason, hint=client.hint)
    return client


KIND = ConfiguredKind("docker", DockerOptions, DockerTarget)
