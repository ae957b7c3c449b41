"""A script with its environment and its target, ready to be submitted: the SDK's ``ScriptRunConfig``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from envbuild.api import ScriptRun
from envbuild.azure.environment import Environment
from envbuild.azure.runconfig import (
    DockerConfiguration,
    MpiConfiguration,
    PyTorchConfiguration,
    RunConfiguration,
    TensorflowConfiguration,
)
from envbuild.azure.unsupported import RUN_CONFIGURATION, RUN_LIMITS, azure_only
from envbuild.errors import UsageError
from envbuild.targets.base import TargetRecord

Distribution = MpiConfiguration | PyTorchConfiguration | TensorflowConfiguration


class ScriptRunConfig:
    """What ``Experiment.submit`` runs.

    >>> ScriptRunConfig("src", "train.py", ["--depth", 3], compute_target="local", environment=env)
    """

    MAX_DURATION_SECONDS_DEFAULT = 2592000

    def __init__(
        self,
        source_directory: str | os.PathLike[str] | None,
        script: str | None = None,
        arguments: Sequence[object] | None = None,
        run_config: RunConfiguration | None = None,
        _telemetry_values: object = None,
        compute_target: str | TargetRecord | None = None,
        environment: Environment | None = None,
        distributed_job_config: Distribution | None = None,
        resume_from: object = None,
        max_run_duration_seconds: int = MAX_DURATION_SECONDS_DEFAULT,
        command: Sequence[str] | str | None = None,
        docker_runtime_config: DockerConfiguration | None = None,
    ) -> None:
        """What ``run_config`` says holds where nothing else is said. Raises ``UsageError`` for a script and a
        command at once, ``AzureOnlyError`` for what no run of one's own can be told."""
        if script and command:
            raise UsageError("a run has a script or a command, and not both")
        self.run_config = config = run_config if run_config is not None else RunConfiguration()
        self.source_directory = Path(source_directory) if source_directory is not None else Path.cwd()
        self.script = script or (None if command else config.script)
        self.command = command or (None if script else config.command or None)
        self.arguments = list(arguments if arguments is not None else config.arguments)
        if compute_target is not None:
            config.target = compute_target
        if environment is not None:
            config.environment = environment
        if docker_runtime_config is not None:
            config.docker = docker_runtime_config
        if _several(distributed_job_config):
            raise azure_only("distributed_job_config", RUN_CONFIGURATION["mpi"])
        if resume_from is not None:
            raise azure_only(
                "resume_from", "put what the earlier run wrote (Run.download_files) into the code"
            )
        if max_run_duration_seconds not in (None, self.MAX_DURATION_SECONDS_DEFAULT):
            raise azure_only("max_run_duration_seconds", RUN_LIMITS)

    def script_run(self) -> ScriptRun:
        """The same as envbuild's own ``ScriptRun``. Raises ``UsageError``."""
        config = self.run_config
        config.refuse_unsupported()
        environment = config.environment
        words = [_word(argument) for argument in self.arguments]
        command: Sequence[str] | str | None = None
        if self.script is None and self.command is not None:
            command = self.command if isinstance(self.command, str) else [_word(w) for w in self.command]
        run = ScriptRun(
            self.source_directory,
            self.script,
            words if command is None else (),
            environment=environment.own,
            target=config.target,
            command=command,
        )
        interpreter = environment.python.interpreter_path
        if command is None and environment.python.user_managed_dependencies and interpreter:
            run.command = (interpreter, *run.command[1:])
        return run


def _several(distribution: Distribution | None) -> bool:
    """Whether more than one process is asked for."""
    if isinstance(distribution, MpiConfiguration):
        return (distribution.process_count_per_node, distribution.node_count) != (1, 1)
    if isinstance(distribution, PyTorchConfiguration):
        return (distribution.process_count or 1, distribution.node_count) != (1, 1)
    return distribution is not None and distribution.worker_count != 1


def _word(argument: object) -> str:
    if isinstance(argument, (str, int, float, os.PathLike)):
        return os.fspath(argument) if isinstance(argument, os.PathLike) else str(argument)
    raise azure_only(
        f"an argument of the kind {type(argument).__name__}", "name data by its path; put it beside the code"
    )
