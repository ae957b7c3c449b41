"""How a script is started: the SDK's ``RunConfiguration`` and what belongs to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envbuild import api
from envbuild.app.save import write_file
from envbuild.azure.conda_dependencies import CondaDependencies
from envbuild.azure.container_registry import ContainerRegistry
from envbuild.azure.environment import Environment
from envbuild.azure.images import DEFAULT_CPU_IMAGE, DEFAULT_GPU_IMAGE
from envbuild.azure.unsupported import RUN_CONFIGURATION, RUN_LIMITS, PartlyThere, azure_only
from envbuild.errors import PublishError, SpecError, UsageError
from envbuild.specs.text.source import YAML_LIMIT, SourceFile
from envbuild.specs.text.yaml import dump_yaml, parse_values
from envbuild.targets.base import TargetRecord

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "CondaDependencies",
    "ContainerRegistry",
    "DockerConfiguration",
    "Environment",
    "MpiConfiguration",
    "PyTorchConfiguration",
    "RunConfiguration",
    "TensorflowConfiguration",
]

PathLike = str | os.PathLike[str]
DEFAULT_NAME = "default-environment"
"""Of an environment that nobody gave a name."""


@dataclass(slots=True)
class DockerConfiguration:
    """How a container is started; every run is in one."""

    use_docker: bool = False
    shared_volumes: bool = True
    arguments: list[str] = field(default_factory=list)
    shm_size: str | None = "2g"


@dataclass(slots=True)
class MpiConfiguration:
    """Several processes; here one is taken."""

    process_count_per_node: int = 1
    node_count: int = 1


@dataclass(slots=True)
class PyTorchConfiguration:
    """Several processes; here one is taken."""

    communication_backend: str = "Nccl"
    process_count: int | None = None
    node_count: int = 1


@dataclass(slots=True)
class TensorflowConfiguration:
    """Several processes; here one is taken."""

    worker_count: int = 1
    parameter_server_count: int = 1


class RunConfiguration(PartlyThere):
    """A script or a command, its environment and its target."""

    # As with the SDK's, a name that isn't there can't be set: it would change nothing.
    __slots__ = (
        *("_target", "arguments", "command", "communicator", "docker", "environment", "framework"),
        *("max_run_duration_seconds", "node_count", "script"),
    )

    _instead = RUN_CONFIGURATION

    def __init__(
        self,
        script: str | None = None,
        arguments: Sequence[object] | None = None,
        framework: str | None = None,
        communicator: str | None = None,
        conda_dependencies: CondaDependencies | None = None,
        _history_enabled: bool | None = None,
        _path: PathLike | None = None,
        _name: str | None = None,
        command: Sequence[str] | str | None = None,
    ) -> None:
        self.script = script
        self.arguments: list[object] = list(arguments or ())
        self.command: Sequence[str] | str = command or ""
        self.framework = framework or "Python"
        self.communicator = communicator or "None"
        self.node_count = 1
        self.max_run_duration_seconds: int | None = None
        self.docker = DockerConfiguration()
        self.environment = unnamed_environment()
        if conda_dependencies is not None:
            self.environment.python.conda_dependencies = conda_dependencies
        self._target = "local"

    @property
    def target(self) -> str:
        """The name of a target; ``local`` is this machine."""
        return self._target

    @target.setter
    def target(self, target: str | TargetRecord | None) -> None:
        self._target = "local" if target is None else target if isinstance(target, str) else target.name

    @property
    def environment_variables(self) -> dict[str, str]:
        """Those of the environment."""
        return self.environment.environment_variables

    @environment_variables.setter
    def environment_variables(self, value: Mapping[str, str] | None) -> None:
        self.environment.environment_variables = value

    @property
    def auto_prepare_environment(self) -> bool:
        """True: an image is built where it isn't there."""
        return True

    @auto_prepare_environment.setter
    def auto_prepare_environment(self, _: bool) -> None:
        """Changes nothing."""

    def refuse_unsupported(self) -> None:
        """Raises ``AzureOnlyError`` for what no run of one's own can be told."""
        if self.framework.lower() != "python" or self.communicator.lower() != "none" or self.node_count != 1:
            raise azure_only(
                "a run of several processes or of another framework than Python",
                RUN_CONFIGURATION["mpi"],
            )
        if self.docker.arguments:
            raise azure_only("DockerConfiguration.arguments", RUN_LIMITS)
        if self.docker.shm_size not in (None, "2g"):
            raise azure_only("DockerConfiguration.shm_size", RUN_LIMITS)
        if self.max_run_duration_seconds is not None:
            raise azure_only("max_run_duration_seconds", RUN_LIMITS)

    def save(
        self, path: PathLike | None = None, name: str | None = None, separate_environment_yaml: bool = False
    ) -> None:
        """Writes ``.azureml/<name>.runconfig`` below ``path``, or the file ``path``. Raises
        ``PublishError``."""
        if separate_environment_yaml:
            raise azure_only("separate_environment_yaml", "Environment.save_to_directory writes it apart")
        file = _file(Path(path or "."), name)
        document: dict[str, Any] = {
            "script": self.script,
            "arguments": [str(argument) for argument in self.arguments],
            "command": self.command if isinstance(self.command, str) else list(map(str, self.command)),
            "target": self.target,
            "framework": self.framework,
            "communicator": self.communicator,
            "nodeCount": self.node_count,
            "environment": self.environment.document(),
        }
        try:
            write_file(file, dump_yaml(document).encode())
        except OSError as error:
            raise PublishError(f"can't write {file}: {error.strerror}") from error

    @staticmethod
    def load(path: PathLike, name: str | None = None) -> RunConfiguration:
        """What a runconfig says, its environment too. Raises ``SpecError``."""
        file = _file(Path(path), name)
        source = SourceFile.at(file)
        content = parse_values(source.read(YAML_LIMIT), source.shown)
        if not isinstance(content, dict):
            raise SpecError(f"{source.shown}: is no runconfig")
        arguments, command = content.get("arguments"), content.get("command")
        loaded = RunConfiguration(
            script=_text(content.get("script")),
            arguments=arguments if isinstance(arguments, list) else None,
            framework=_text(content.get("framework")),
            communicator=_text(content.get("communicator")),
            command=[str(word) for word in command] if isinstance(command, list) else _text(command),
        )
        loaded.target = _text(content.get("target")) or "local"
        count = _text(content.get("nodeCount"))
        loaded.node_count = int(count) if count is not None and count.isdecimal() else 1
        loaded.environment = Environment.from_own(api.Environment.from_file(file))
        loaded.environment.take(content.get("environment"))
        return loaded

    @staticmethod
    def delete(path: PathLike, name: str) -> None:
        """Removes a runconfig. Raises ``UsageError`` where there is none."""
        try:
            _file(Path(path), name).unlink()
        except OSError as error:
            raise UsageError(f"there is no runconfig {name} in {os.fspath(path)}") from error


def unnamed_environment() -> Environment:
    """A new environment that nobody gave a name: runs of it register nothing."""
    environment = Environment(DEFAULT_NAME)
    environment.named = False
    return environment


def _file(path: Path, name: str | None) -> Path:
    if name is None:
        return path / ".azureml" / "local.runconfig" if path.is_dir() else path
    for directory in (".azureml", "aml_config"):
        if (path / directory / f"{name}.runconfig").is_file():
            return path / directory / f"{name}.runconfig"
    return path / ".azureml" / f"{name}.runconfig"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
