"""This machine, the target that is always there: by its Docker engine, or in a user namespace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.platforms import Platform
from envbuild.publish.base import Image
from envbuild.run.base import Command, Mount
from envbuild.run.userns import Launched, UsernsRunner
from envbuild.target.base import OUTPUTS, Finding, Job, Option, Service, TargetFile, TargetRecord
from envbuild.target.docker import DockerTarget
from envbuild.target.kinds import Surroundings
from envbuild.target.options import check_options, limits_of

if TYPE_CHECKING:
    from envbuild.target.base import Target

_PIECE = 1 << 16
_STOP_SECONDS = 10


def _backend(text: str) -> str:
    if text not in ("auto", "docker", "userns"):
        raise ValueError("must be auto, docker or userns")
    return text


class NamespaceTarget:
    """Jobs in a user namespace of this machine."""

    registry: str | None = None

    def __init__(self, record: TargetRecord, surroundings: Surroundings) -> None:
        self.record = record
        self.limits = limits_of(check_options(record, KIND.options))
        self._surroundings = surroundings
        self._runner = UsernsRunner(surroundings.store, surroundings.progress)

    def findings(self, image: Image) -> Sequence[Finding]:
        reason = self._runner.available()
        if reason is not None:
            return [Finding(text=reason, hint="start a Docker engine, or use Linux with user namespaces")]
        if image.platform != Platform.host():
            return [Finding(text=f"the image is for {image.platform}, this machine runs {Platform.host()}")]
        return []

    def bytes_to_pull(self, image: Image) -> int | None:
        return 0

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        from envbuild.target.compose_file import job_file

        return (job_file(job),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        from envbuild.target.compose_file import service_file

        return (service_file(service),)

    def submit(self, job: Job) -> NamespaceExecution:
        with ExitStack() as stack:
            store = self._surroundings.store
            stage = stack.enter_context(store.scratch())
            outputs = stack.enter_context(store.scratch())
            read, write = os.pipe()
            stack.callback(os.close, read)
            try:
                launched = self._runner.launch(
                    Command(
                        image=job.image,
                        arguments=job.command,
                        env=job.env,
                        mounts=(Mount(source=outputs, target=OUTPUTS),),
                    ),
                    stage,
                    write,
                )
            finally:
                os.close(write)
            return NamespaceExecution(launched, read, outputs, stack.pop_all())


class NamespaceExecution:
    """A job's processes; what it prints comes through the pipe ``output``."""

    def __init__(self, launched: Launched, output: int, outputs: Path, resources: ExitStack) -> None:
        self._launched = launched
        self._output = output
        self._outputs = outputs
        self._resources = resources

    @property
    def identity(self) -> str:
        return f"process {self._launched.process.pid}"

    def logs(self) -> Iterator[bytes]:
        while piece := os.read(self._output, _PIECE):
            yield piece

    def wait(self) -> int:
        return self._launched.wait()

    def stop(self) -> None:
        process = self._launched.process
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def bring_outputs(self, directory: Path) -> bool:
        """By renaming where it can be; see ``Execution``."""
        import shutil

        found = list(self._outputs.iterdir())
        for each in found:
            shutil.move(each, directory / each.name)
        return bool(found)

    def close(self) -> None:
        self.stop()
        self._resources.close()


class LocalKind:
    name = "local"
    options: Sequence[Option] = (
        Option(name="backend", help="auto, docker or userns", default="auto", check=_backend),
    )

    def open(self, record: TargetRecord, surroundings: Surroundings) -> Target:
        options = check_options(record, self.options)
        backend = options["backend"]
        if backend == "docker" or (backend == "auto" and _answers(surroundings)):
            rest = tuple(pair for pair in record.options if pair[0] != "backend")
            return DockerTarget(TargetRecord(name=record.name, kind=record.kind, options=rest), surroundings)
        return NamespaceTarget(record, surroundings)


def _answers(surroundings: Surroundings) -> bool:
    from envbuild.run.container import ContainerRunner

    runner = ContainerRunner(surroundings.store, surroundings.progress, surroundings.environ)
    return runner.available() is None


KIND = LocalKind()
