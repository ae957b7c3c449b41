"""``spark-submit`` of this machine, which starts a driver's pod and watches it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from envbuild.errors import RunError
from envbuild.targets.base import TargetFile
from envbuild.targets.kinds import TargetContext
from envbuild.targets.spark.files import DEFAULTS
from envbuild.targets.spark.options import SparkOptions

_PIECE = 1 << 16
_KILL_SECONDS = 60
_STOP_SECONDS = 30
_KEPT = 1 << 16
"""Bytes of the end of the output that are looked at for how the driver ended."""
_EXIT = re.compile(rb"exit code: ([0-9]{1,3})\b")
_PHASE = re.compile(rb"phase: (Succeeded|Failed)\b")


def submit(
    options: SparkOptions,
    name: str,
    files: Sequence[TargetFile],
    arguments: Sequence[str],
    context: TargetContext,
) -> SubmitExecution:
    """Starts ``spark-submit`` with ``files`` in its directory. Raises ``RunError``."""
    environ = dict(context.environ)
    program = shutil.which(options.spark_submit, path=environ.get("PATH", os.defpath))
    if program is None:
        raise RunError(f"there is no command {options.spark_submit} on this machine")
    with ExitStack() as stack:
        directory = stack.enter_context(context.store.scratch())
        for file in files:
            place = directory / file.name
            place.touch(mode=0o600)
            place.write_text(file.content)
        command = (str(Path(program).resolve()), "--properties-file", DEFAULTS, *arguments)
        try:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise RunError(f"can't start {options.spark_submit}: {error.strerror}") from error
        kill = (command[0], "--master", options.master, "--kill", f"{options.namespace}:{name}")
        return SubmitExecution(process, kill, name, options.namespace, environ, stack.pop_all())


class SubmitExecution:
    """See ``Execution``: the driver's pod has the job's name. What is printed is what ``spark-submit`` says;
    the driver's own words are the pod's log."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        kill: Sequence[str],
        name: str,
        namespace: str,
        environ: dict[str, str],
        resources: ExitStack,
    ) -> None:
        self._process = process
        self._kill = tuple(kill)
        self._name = name
        self._namespace = namespace
        self._environ = environ
        self._resources = resources
        self._output = b""

    @property
    def identity(self) -> str:
        return f"pod {self._namespace}/{self._name}"

    def logs(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while piece := os.read(descriptor, _PIECE):
            self._output = (self._output + piece)[-_KEPT:]
            yield piece

    def wait(self) -> int:
        """The driver's exit status. ``spark-submit`` itself ends with 0 also where the driver failed: what
        it says of the pod counts. Raises ``RunError`` where it says nothing of it."""
        status = self._process.wait()
        if status != 0:
            return status if status > 0 else 128 - status
        codes = _EXIT.findall(self._output)
        if codes and int(codes[-1]) != 0:
            return min(int(codes[-1]), 255)
        phases = _PHASE.findall(self._output)
        if phases and phases[-1] == b"Failed":
            return 1
        if codes or phases:
            return 0
        raise RunError(
            f"spark-submit ended without saying how {self.identity} did",
            hint=f"look at it: kubectl -n {self._namespace} describe pod {self._name}",
        )

    def stop(self) -> None:
        if self._process.poll() is not None:
            return
        try:
            done = subprocess.run(
                self._kill,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_KILL_SECONDS,
                check=False,
            )
            problem = done.stderr.decode(errors="replace")[-300:] if done.returncode != 0 else None
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem is None:
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._terminate()
            return
        self._terminate()
        raise RunError(
            f"{self.identity} can't be stopped: {problem}",
            hint=f"kubectl -n {self._namespace} delete pod {self._name}",
        )

    def bring_outputs(self, directory: Path) -> bool:
        """False: a pod's files go with it."""
        return False

    def close(self) -> None:
        self._terminate()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._resources.close()

    def _terminate(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
