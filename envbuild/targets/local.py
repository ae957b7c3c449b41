"""This machine, the target that is always there: by its Docker engine, or in a user namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import RunError
from envbuild.lazy import lazy
from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.run.command import Command, Mount
from envbuild.run.runners import ContainerRunner
from envbuild.run.userns import LaunchedCommand, UsernsRunner
from envbuild.targets.base import OUTPUTS, Job, PreflightFinding, Service, Target, TargetFile, TargetRecord
from envbuild.targets.docker import DockerOptions, DockerTarget
from envbuild.targets.files.compose import job_file, service_file
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget, TargetContext
from envbuild.targets.options import TargetOptions, one_of, option, parse_options

if TYPE_CHECKING:
    from envbuild.targets import serving
else:
    serving = lazy("envbuild.targets.serving")

_PIECE = 1 << 16
_STOP_SECONDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalOptions(TargetOptions):
    backend: str = option("auto, docker or userns", one_of("auto", "docker", "userns"), default="auto")


class NamespaceTarget(ConfiguredTarget[LocalOptions]):
    """Jobs in a user namespace of this machine."""

    def __init__(self, record: TargetRecord, options: LocalOptions, context: TargetContext) -> None:
        super().__init__(record, options, context)
        self.registry = None
        self._runner = UsernsRunner(context.store, context.progress)

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        reason = self._runner.available()
        if reason is not None:
            return [PreflightFinding(reason, hint="start a Docker engine, or use Linux with user namespaces")]
        if image.platform != Platform.host():
            return [
                PreflightFinding(f"the image is for {image.platform}, this machine runs {Platform.host()}")
            ]
        return []

    def bytes_to_pull(self, image: Image) -> int | None:
        return 0

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return (job_file(job),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        return (service_file(service),)

    def submit(self, job: Job) -> NamespaceExecution:
        # Beside the log and not in the cache: what a killed envbuild leaves is the user's, not rubbish.
        outputs = self._context.state / f"{job.name}.outputs"
        try:
            outputs.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"can't make {outputs}: {error.strerror}") from error
        command = Command(
            image=job.image,
            arguments=job.command,
            env=job.env,
            mounts=(Mount(source=outputs, target=OUTPUTS),),
        )
        try:
            return self._start(command, _STOP_SECONDS, outputs)
        except BaseException:
            _remove_empty(outputs)
            raise

    def serve(self, service: Service, port: int) -> NamespaceExecution:
        # The network is this machine's: the server itself listens on loopback alone.
        command = Command(
            image=service.image,
            arguments=serving.serving_command(service.image, port, self._context.store),
            env=(*service.env, (serving.HOST_VARIABLE, "127.0.0.1")),
        )
        return self._start(command, serving.STOP_SECONDS)

    def _start(self, command: Command, stop_seconds: int, outputs: Path | None = None) -> NamespaceExecution:
        with ExitStack() as stack:
            stage = stack.enter_context(self._context.store.scratch())
            read, write = os.pipe()
            stack.callback(os.close, read)
            try:
                launched = self._runner.launch(command, stage, write)
            finally:
                os.close(write)
            return NamespaceExecution(launched, read, stack.pop_all(), stop_seconds, outputs)


class NamespaceExecution:
    """A job's processes; what it prints comes through the pipe ``output``."""

    def __init__(
        self,
        launched: LaunchedCommand,
        output: int,
        resources: ExitStack,
        stop_seconds: int,
        outputs: Path | None = None,
    ) -> None:
        self._launched = launched
        self._output = output
        self._outputs = outputs
        self._resources = resources
        self._stop_seconds = stop_seconds

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
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def bring_outputs(self, directory: Path) -> bool:
        """By renaming where it can be; see ``Execution``."""
        if self._outputs is None:
            return False
        try:
            _keep_files(self._outputs)
            paths = list(self._outputs.iterdir())
            for path in paths:
                shutil.move(path, directory / path.name)
        except (OSError, shutil.Error) as error:
            raise RunError(str(error), hint=f"what isn't there is in {self._outputs}") from error
        return bool(paths)

    def close(self) -> None:
        self.stop()
        self._launched.close()
        self._resources.close()
        if self._outputs is not None:
            _remove_empty(self._outputs)


def _keep_files(directory: Path) -> None:
    """Leaves plain files and directories, in common modes: a link of the job would lead anywhere here."""
    directory.chmod(0o755)
    with os.scandir(directory) as scan:
        entries = list(scan)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            _keep_files(path)
        elif entry.is_file(follow_symlinks=False):
            path.chmod(0o755 if entry.stat(follow_symlinks=False).st_mode & 0o100 else 0o644)
        else:
            path.unlink()


def _remove_empty(directory: Path) -> None:
    """What was not brought stays."""
    with contextlib.suppress(OSError):
        directory.rmdir()


def open_local(record: TargetRecord, options: LocalOptions, context: TargetContext) -> Target:
    """This machine, by the backend of the options or the one that is there."""
    if options.backend == "docker" or (options.backend == "auto" and _engine_answers(context)):
        rest = replace(record, options=tuple(pair for pair in record.options if pair[0] != "backend"))
        return DockerTarget(rest, parse_options(rest, DockerOptions), context)
    return NamespaceTarget(record, options, context)


def _engine_answers(context: TargetContext) -> bool:
    return ContainerRunner(context.store, context.progress, context.environ).available() is None


KIND = ConfiguredKind("local", LocalOptions, open_local)
