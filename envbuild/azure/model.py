"""Serving: the SDK's ``InferenceConfig``, and ``Model`` as far as a model is a directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from envbuild.azure.conda_dependencies import CondaDependencies
from envbuild.azure.container_registry import ContainerRegistry
from envbuild.azure.environment import AnyWorkspace, Environment
from envbuild.azure.unsupported import azure_only
from envbuild.azure.webservice import LocalWebservice, LocalWebserviceDeploymentConfiguration
from envbuild.errors import UsageError

PathLike = str | os.PathLike[str]
_IN_A_DOCKERFILE = "Environment.from_dockerfile(name, dockerfile) has steps of one's own"


class InferenceConfig:
    """A script that answers, and its environment. The script defines ``init()`` and ``run(data)``.

    >>> InferenceConfig("score.py", source_directory="src", environment=env)
    """

    def __init__(
        self,
        entry_script: PathLike,
        runtime: str | None = None,
        conda_file: PathLike | None = None,
        extra_docker_file_steps: PathLike | None = None,
        source_directory: PathLike | None = None,
        enable_gpu: bool | None = None,
        description: str | None = None,
        base_image: str | None = None,
        base_image_registry: ContainerRegistry | None = None,
        cuda_version: str | None = None,
        environment: Environment | None = None,
    ) -> None:
        """``environment``, or what the older options make one of. Raises ``AzureOnlyError`` for those that
        can't, ``UsageError`` for both."""
        older = {"runtime": runtime, "conda_file": conda_file, "base_image": base_image}
        named = [name for name, value in older.items() if value]
        if environment is not None and named:
            raise UsageError(f"environment and {', '.join(named)} exclude each other")
        if runtime is not None and runtime.lower() != "python":
            raise azure_only(f"runtime {runtime!r}", "the script is Python's; give environment=")
        if extra_docker_file_steps is not None:
            raise azure_only("extra_docker_file_steps", _IN_A_DOCKERFILE)
        if enable_gpu or cuda_version:
            raise azure_only("enable_gpu and cuda_version", "name a base image that has CUDA")
        self.entry_script = Path(entry_script)
        self.source_directory = Path(source_directory) if source_directory is not None else None
        self.description = description
        self.environment = (
            environment
            if environment is not None
            else _environment(conda_file, base_image, base_image_registry)
        )

    @property
    def script_path(self) -> Path:
        """The script; in ``source_directory`` where there is one."""
        return (self.source_directory or Path()) / self.entry_script

    def validate_configuration(self) -> None:
        """Raises ``UsageError`` where the script isn't there."""
        if not self.script_path.is_file():
            raise UsageError(f"there is no script {self.script_path}", hint="source_directory has it")

    def validation_script_content(self) -> None:
        """Raises ``SyntaxError`` where the script is no Python."""
        compile(self.script_path.read_bytes(), str(self.script_path), "exec")

    def build_create_payload(self, workspace: object, name: str, model_ids: object) -> None:
        """Raises ``AzureOnlyError``."""
        raise azure_only("InferenceConfig.build_create_payload", "use Model.deploy")

    def build_profile_payload(
        self,
        profile_name: str,
        input_data: object = None,
        workspace: object = None,
        models: object = None,
        dataset_id: object = None,
        container_resource_requirements: object = None,
        description: str | None = None,
    ) -> None:
        """Raises ``AzureOnlyError``."""
        raise azure_only("InferenceConfig.build_profile_payload", "serve it, and measure what it answers")


class Model:
    """A directory, or a file in one, that a script reads at ``AZUREML_MODEL_DIR``."""

    def __init__(self, workspace: object, name: PathLike | None = None) -> None:
        """The model at a path. Raises ``AzureOnlyError`` where there is none: no registry has models."""
        if name is None or not Path(name).exists():
            raise azure_only(f"the registered model {name!r}", "name the directory that it is in")
        self.name = os.fspath(name)
        self.path = Path(name)

    @staticmethod
    def register(workspace: object, model_path: PathLike, model_name: str, **_: object) -> Model:
        """The model at a path, under that name; nothing is copied, and no version is made."""
        model = Model(workspace, model_path)
        model.name = model_name
        return model

    @staticmethod
    def deploy(
        workspace: AnyWorkspace,
        name: str,
        models: Sequence[Model | PathLike],
        inference_config: InferenceConfig | None = None,
        deployment_config: LocalWebserviceDeploymentConfiguration | None = None,
        deployment_target: object = None,
        overwrite: bool = False,
        show_output: bool = False,
    ) -> LocalWebservice:
        """A service on this machine that answers until ``delete`` or the end of this process.

        Raises ``AzureOnlyError`` for several models and for targets of Azure's own."""
        if inference_config is None:
            raise azure_only("deploying without an InferenceConfig", "write a script with init() and run()")
        if deployment_target is not None:
            raise azure_only(
                "deployment_target", "'envbuild serve --target NAME', or Environment.own.publish(…, serve=…)"
            )
        paths = [model.path if isinstance(model, Model) else Path(model) for model in models]
        if len(paths) > 1:
            raise azure_only("deploying several models", "put them into one directory, and name that")
        directory = None
        if paths:
            directory = paths[0] if paths[0].is_dir() else paths[0].parent
        inference_config.validate_configuration()
        service = LocalWebservice(workspace, name)
        service.start(
            inference_config.environment.own,
            inference_config.script_path,
            code=inference_config.source_directory,
            model=directory,
            port=deployment_config.port if deployment_config is not None else None,
        )
        return service


def _environment(
    conda_file: PathLike | None, base_image: str | None, registry: ContainerRegistry | None
) -> Environment:
    environment = Environment("inference")
    environment.named = False
    if conda_file is not None:
        environment.python.conda_dependencies = CondaDependencies(conda_file)
    if base_image is not None:
        environment.docker.base_image = base_image
    if registry is not None:
        environment.docker.base_image_registry = registry
    return environment
