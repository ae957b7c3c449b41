"""The SDK's ``Environment``: edited in sections, and one of envbuild's as soon as it is registered, built or
run.

Its sections are what Azure ML writes as ``azureml_environment.json``, and they are read as that file is: a
program and a file that say the same are one environment.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from envbuild import api
from envbuild.app.edit import requirement_name
from envbuild.app.environments import Workspace as Records
from envbuild.app.save import write_file
from envbuild.app.sources import checked, requirements_file
from envbuild.azure.conda_dependencies import PYTHON_DEFAULT_VERSION, CondaDependencies
from envbuild.azure.container_registry import ContainerRegistry
from envbuild.azure.images import (
    DEFAULT_CPU_IMAGE,
    DEFAULT_GPU_IMAGE,
    DockerImageDetails,
    ImageBuildDetails,
)
from envbuild.azure.sections import (
    DockerBuildContext,
    DockerImagePlatform,
    DockerSection,
    PythonSection,
    SparkPackage,
    SparkSection,
)
from envbuild.azure.unsupported import azure_only
from envbuild.errors import PublishError, SpecError, UsageError
from envbuild.oci.digest import digest_bytes
from envbuild.resources import curated_names
from envbuild.settings import load_settings
from envbuild.specs.exporters.conda import conda_mapping
from envbuild.specs.exporters.formats import export
from envbuild.specs.exporters.native import pip_line, pip_options
from envbuild.specs.importers.azure.v1 import (
    CONDA_FILE,
    DIRECTORY,
    DOCKERFILE,
    AzureV1Parts,
    read_azure_v1,
)
from envbuild.specs.importers.conda.environment import conda_python
from envbuild.specs.model import (
    BuildContextSpec,
    DebianBaseSpec,
    EnvironmentType,
    ImageBaseSpec,
    SparkSpec,
    Spec,
)
from envbuild.specs.serving import served
from envbuild.specs.text.document import parse_json
from envbuild.specs.text.section import LeftOut
from envbuild.specs.text.source import YAML_LIMIT, SourceFile
from envbuild.store.content import Store

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "CondaDependencies",
    "ContainerRegistry",
    "DockerBuildContext",
    "DockerEnvironment",
    "DockerImageDetails",
    "DockerImagePlatform",
    "DockerSection",
    "Environment",
    "EnvironmentReference",
    "ImageBuildDetails",
    "PythonEnvironment",
    "PythonSection",
    "SparkEnvironment",
    "SparkPackage",
    "SparkSection",
]

_log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
PythonEnvironment, DockerEnvironment, SparkEnvironment = PythonSection, DockerSection, SparkSection
_INSTEAD = {
    "RCranPackage": "add R's packages as conda's: r-base, r-…",
    "RGitHubPackage": "add R's packages as conda's: r-base, r-…",
    "RSection": "add R's packages as conda's: r-base, r-…",
    "DatabricksSection": "pip packages go into CondaDependencies, jars into Environment.spark.packages",
}


def __getattr__(name: str) -> object:
    if name in _INSTEAD:
        raise azure_only(name, _INSTEAD[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class HasRecords(Protocol):
    """A workspace of the SDK's."""

    @property
    def records(self) -> Records: ...


AnyWorkspace = HasRecords | Records


def records_of(workspace: AnyWorkspace) -> Records:
    """The workspace behind the SDK's, or itself. Raises ``UsageError`` for what is none."""
    records = getattr(workspace, "records", workspace)
    if not isinstance(records, Records):
        raise UsageError(f"{workspace!r} is no workspace", hint="Workspace.from_config() opens one")
    return records


class Environment:
    """An environment in sections that are changed in place.

    >>> env = Environment("train")
    >>> env.python.conda_dependencies.add_pip_package("scikit-learn==1.5.2")
    >>> env.register(Workspace.from_config()).version
    '1'
    """

    # As with the SDK's, a name that isn't there can't be set: it would change nothing.
    __slots__ = (
        *("_directory", "_loaded", "_loaded_version", "_origin", "_variables", "asset_id", "docker"),
        *("inferencing_stack_version", "name", "named", "python", "spark", "version"),
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.version: str | None = None
        self.python = PythonSection()
        self.docker = DockerSection()
        self.spark = SparkSection()
        self._variables: dict[str, str] = {}
        self.inferencing_stack_version: str | None = None
        """``"latest"`` adds the server; None leaves that to whoever serves it."""
        self.asset_id: str | None = None
        self._directory = Path.cwd()
        """What relative paths mean, and where locks are kept."""
        self._origin: Spec | None = None
        self._loaded: tuple[object, ...] = ()
        """What the sections said when they were made from ``_origin``."""
        self._loaded_version: str | None = None
        self.named = True
        """Whether somebody gave it its name: then submitting a run of it registers it."""

    def __repr__(self) -> str:
        version = f", version={self.version!r}" if self.version else ""
        return f"Environment(name={self.name!r}{version})"

    @property
    def environment_variables(self) -> dict[str, str]:
        """What processes in the image find in their environment."""
        return self._variables

    @environment_variables.setter
    def environment_variables(self, value: Mapping[str, str] | None) -> None:
        self._variables = dict(value or {})

    @property
    def r(self) -> None:
        """Always None: R's packages are conda's."""
        return None

    @r.setter
    def r(self, value: object) -> None:
        if value is not None:
            raise azure_only("Environment.r", _INSTEAD["RSection"])

    @property
    def databricks(self) -> None:
        """Raises ``AzureOnlyError``."""
        raise azure_only("Environment.databricks", _INSTEAD["DatabricksSection"])

    # --- where it comes from --------------------------------------------------------------------------

    @staticmethod
    def from_conda_specification(name: str, file_path: PathLike) -> Environment:
        """The environment of a conda file. One that names no Python gets one; one that does keeps it."""
        env = Environment(name)
        env.python.conda_dependencies = _conda_file(file_path)
        return env

    @staticmethod
    def from_pip_requirements(name: str, file_path: PathLike, pip_version: str | None = None) -> Environment:
        """The environment of a requirements file; ``-r`` is followed."""
        env = Environment(name)
        env.python.conda_dependencies = _requirements(file_path, pip_version)
        return env

    @staticmethod
    def from_docker_image(
        name: str,
        image: str,
        container_registry: ContainerRegistry | None = None,
        conda_specification: PathLike | None = None,
        pip_requirements: PathLike | None = None,
    ) -> Environment:
        """An image as it is, or with what one of the two files names on it."""
        env = Environment._from_dependencies(name, conda_specification, pip_requirements)
        env.docker.base_image = image
        if container_registry is not None:
            env.docker.base_image_registry = container_registry
        return env

    @staticmethod
    def from_dockerfile(
        name: str,
        dockerfile: PathLike,
        conda_specification: PathLike | None = None,
        pip_requirements: PathLike | None = None,
    ) -> Environment:
        """What a Dockerfile makes, given as a file or as text, or what one of the two files names on that."""
        env = Environment._from_dependencies(name, conda_specification, pip_requirements)
        env.docker.base_dockerfile = dockerfile
        return env

    @staticmethod
    def from_docker_build_context(name: str, docker_build_context: DockerBuildContext) -> Environment:
        """What a Dockerfile makes of its directory."""
        env = Environment._from_dependencies(name, None, None)
        env.docker.build_context = docker_build_context
        return env

    @staticmethod
    def from_existing_conda_environment(name: str, conda_environment_name: str) -> Environment:
        """The exact packages of a conda environment of this machine. Raises ``SpecError`` where there is
        none."""
        return Environment.from_own(
            api.Environment.from_existing_conda_environment(name, conda_environment_name)
        )

    @staticmethod
    def _from_dependencies(name: str, conda: PathLike | None, pip: PathLike | None) -> Environment:
        if conda is not None and pip is not None:
            raise UsageError(
                "conda_specification and pip_requirements exclude each other",
                hint="a conda specification has a pip section",
            )
        env = Environment(name)
        env.python.user_managed_dependencies = conda is None and pip is None
        if conda is not None:
            env.python.conda_dependencies = _conda_file(conda)
        elif pip is not None:
            env.python.conda_dependencies = _requirements(pip, None)
        else:
            env.python.conda_dependencies = None
        return env

    @classmethod
    def from_own(cls, own: api.Environment) -> Environment:
        """One of envbuild's own in sections. What those can't say is kept as it is while they aren't
        changed."""
        spec = own.spec
        env = cls(spec.name)
        env.named = spec.named
        env.version = env._loaded_version = spec.version
        env.environment_variables = dict(spec.environment_variables)
        env._directory = spec.directory
        env.python.user_managed_dependencies = spec.type is EnvironmentType.USER_MANAGED
        env.python.conda_dependencies = None
        if spec.type is not EnvironmentType.USER_MANAGED:
            content, _ = conda_mapping(spec, variables=False)
            env.python.conda_dependencies = CondaDependencies(_underlying_structure=content)
        if isinstance(spec.base, ImageBaseSpec):
            env.docker.base_image = spec.base.reference
        elif isinstance(spec.base, BuildContextSpec):
            location = spec.directory / spec.base.path
            env.docker.build_context = DockerBuildContext(
                "localFile", os.fspath(location), spec.base.dockerfile_path
            )
        if len(spec.platforms) == 1:
            env.docker.platform.architecture = spec.platforms[0].architecture
        spark = spec.spark or SparkSpec()
        env.spark.repositories = list(spark.repositories)
        env.spark.packages = [
            SparkPackage(package.group, package.artifact, package.version) for package in spark.packages
        ]
        env.spark.precache_packages = spark.precache_packages
        env._origin, env._loaded = spec, env._said()
        return env

    # --- what it says ---------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """All it says now, as one of envbuild's. Raises ``SpecError`` for what no environment can say."""
        spec = self._origin if self._origin is not None and self._said() == self._loaded else self._read()
        variables = tuple(sorted((str(k), str(v)) for k, v in self._variables.items()))
        changed = replace(spec, name=self.name, version=self.version, environment_variables=variables)
        changed = replace(changed, named=self.named)
        return spec if changed == spec else checked(changed)

    @property
    def own(self) -> api.Environment:
        """The same as envbuild's own ``Environment``, which has all that the SDK's lacks."""
        return api.Environment(self.spec)

    def document(self) -> dict[str, Any]:
        """What ``azureml_environment.json`` has, and the environment of a runconfig."""
        head = {
            "name": self.name,
            "version": self.version,
            "environmentVariables": dict(self.environment_variables),
            "assetId": self.asset_id,
        }
        return head | self._document()

    def _said(self) -> tuple[object, ...]:
        """What the sections say, for comparison; the name, the version and the variables apart."""
        document = self._document()
        # What starts scripts is no part of an environment.
        del document["python"]["interpreterPath"]
        return json.dumps(document, sort_keys=True), self.docker.dockerfile

    def _document(self) -> dict[str, Any]:
        """The sections as ``azureml_environment.json`` has them."""
        python, docker, spark = self.python, self.docker, self.spark
        conda, context = python.conda_dependencies, docker.build_context
        return {
            "inferencingStackVersion": self.inferencing_stack_version,
            "python": {
                "userManagedDependencies": bool(python.user_managed_dependencies),
                "interpreterPath": python.interpreter_path,
                "condaDependencies": conda.as_dict() if conda is not None else None,
            },
            "docker": {
                "baseImage": docker.base_image,
                "baseDockerfile": docker.base_dockerfile,
                "buildContext": {
                    "locationType": context.location_type,
                    "location": context.location,
                    "dockerfilePath": context.dockerfile_path,
                }
                if context is not None
                else None,
                "baseImageRegistry": {"address": docker.base_image_registry.address},
                "platform": {"os": docker.platform.os, "architecture": docker.platform.architecture},
            },
            "spark": {
                "repositories": list(spark.repositories),
                "packages": [
                    {"group": package.group, "artifact": package.artifact, "version": package.version}
                    for package in spark.packages
                ],
                "precachePackages": spark.precache_packages,
            },
        }

    def _read(self) -> Spec:
        document = self._document()
        # These two are not the importer's: one is done below, the other when a script is started.
        del document["inferencingStackVersion"], document["python"]["interpreterPath"]
        conda = self.python.conda_dependencies
        if self.python.user_managed_dependencies:
            document["python"]["condaDependencies"] = None
        elif conda is not None:
            document["python"]["condaDependencies"] = _with_wheels(conda)
        if not self.spark.packages and not self.spark.repositories:
            del document["spark"]
        directory, dockerfile = self._directory, None
        if self.docker.base_dockerfile is not None:
            document["docker"]["baseDockerfile"] = None
            dockerfile = self._written_dockerfile(self.docker.base_dockerfile)
            directory = dockerfile.parent
        elif self.docker.build_context is not None and self.docker.build_context.location:
            # Its Dockerfile sees it, and its locks are kept beside it, wherever this program stands.
            directory = Path(os.path.normpath(directory / self.docker.build_context.location))
            document["docker"]["buildContext"]["location"] = "."
        elif conda is not None and conda.directory is not None:
            directory = conda.directory
        text = json.dumps({"name": self.name, **document})
        file = SourceFile(directory / DIRECTORY, self.name)
        parts = AzureV1Parts(dockerfile=SourceFile.at(dockerfile) if dockerfile is not None else None)
        spec = read_azure_v1(parse_json(text, self.name), file, LeftOut(), beside=parts)
        for line in spec.left_out:
            _log.warning("left out: %s", line)
        return self._served(self._carried(spec))

    def _written_dockerfile(self, text: str) -> Path:
        """The file that the Dockerfile was read from; for a text, one in a directory of its own."""
        if self.docker.dockerfile is not None:
            return self.docker.dockerfile
        settings = load_settings({"record": False}, os.environ, Path.cwd())
        content = text.encode()
        name = digest_bytes(content).removeprefix("sha256:")
        place = Store(settings.cache_dir).directory("metadata/dockerfiles") / name
        try:
            write_file(place / DOCKERFILE, content)
        except OSError as error:
            raise PublishError(f"can't write {place}: {error.strerror}") from error
        return place / DOCKERFILE

    def _carried(self, spec: Spec) -> Spec:
        """``spec`` with what the sections can't say of the environment they were made from."""
        origin = self._origin
        if origin is None:
            return spec
        spec = replace(spec, description=origin.description, tags=origin.tags, as_of=origin.as_of)
        spec = replace(spec, inference_config=origin.inference_config)
        if spec.type is not EnvironmentType.USER_MANAGED:
            spec = replace(spec, user=origin.user)
        if len(origin.platforms) > 1:
            spec = replace(spec, platforms=origin.platforms)
        if spec.base is None and isinstance(origin.base, DebianBaseSpec):
            spec = replace(spec, base=origin.base)
        only_python = spec.conda is not None and all(
            requirement_name(package) in ("python", "pip") for package in spec.conda.dependencies
        )
        if origin.conda is None and only_python:
            # Conda was only the section's way to name a Python.
            loaded = CondaDependencies(_underlying_structure=conda_mapping(origin, variables=False)[0])
            conda = self.python.conda_dependencies
            same = conda is not None and conda.get_python_version() == loaded.get_python_version()
            spec = replace(spec, conda=None, python=origin.python if same else conda_python(spec))
        if origin.pip.constraints:
            spec = replace(spec, pip=replace(spec.pip, constraints=origin.pip.constraints))
        return spec

    def _served(self, spec: Spec) -> Spec:
        version = self.inferencing_stack_version
        if version is None:
            return spec
        if version != "latest":
            raise azure_only(
                f"inferencing_stack_version {version!r}",
                "use 'latest', or pin azureml-inference-server-http with add_pip_package",
            )
        return replace(served(spec), name=spec.name, version=spec.version)

    def clone(self, new_name: str) -> Environment:
        """The same under another name, without a version, free to be changed."""
        clone = copy.deepcopy(self)
        clone.name, clone.version, clone.asset_id = new_name, None, None
        clone._loaded_version, clone.named = None, True
        return clone

    def save_to_directory(self, path: PathLike, overwrite: bool = False) -> None:
        """Writes ``azureml_environment.json``, ``conda_dependencies.yml`` and ``BaseDockerfile``.

        Raises ``UsageError`` where the directory is there, unless ``overwrite``."""
        directory = Path(path)
        if directory.exists() and not overwrite:
            raise UsageError(f"{directory} is there already", hint="choose another directory, or overwrite")
        document = self.document()
        document["docker"].pop("baseDockerfile")
        document["python"].pop("condaDependencies")
        files = {DIRECTORY: json.dumps(document, indent=4, ensure_ascii=False) + "\n"}
        if self.python.conda_dependencies is not None:
            files[CONDA_FILE] = self.python.conda_dependencies.serialize_to_string()
        if self.docker.base_dockerfile is not None:
            files[DOCKERFILE] = self.docker.base_dockerfile
        if self._origin is not None:
            for line in export(self._origin, "azure-v1").left_out:
                _log.warning("left out: %s", line)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                write_file(directory / name, text.encode())
        except OSError as error:
            raise PublishError(f"can't write {directory}: {error.strerror}") from error

    @staticmethod
    def load_from_directory(path: PathLike) -> Environment:
        """What ``save_to_directory`` wrote, here or by Azure ML's own SDK. Raises ``SpecError``."""
        directory = Path(path)
        file = SourceFile.at(directory / DIRECTORY)
        if not file.is_there():
            return Environment.from_own(api.Environment.load_from_directory(directory))
        document, said = parse_json(file.read(YAML_LIMIT), file.shown), json.loads(file.read(YAML_LIMIT))
        conda, dockerfile = file.beside(CONDA_FILE), file.beside(DOCKERFILE)
        as_it_is = bool((said.get("python") or {}).get("userManagedDependencies"))
        # Packages on a Dockerfile can't be built, but be looked at, and changed.
        parts = AzureV1Parts(
            conda_file=conda if conda.is_there() else None,
            dockerfile=dockerfile if dockerfile.is_there() and as_it_is else None,
        )
        env = Environment.from_own(api.Environment(read_azure_v1(document, file, LeftOut(), beside=parts)))
        if conda.is_there():
            env.python.conda_dependencies = CondaDependencies(conda.path)
        if dockerfile.is_there():
            env.docker.base_dockerfile = dockerfile.path
        env._loaded = env._said() if as_it_is or not dockerfile.is_there() else ()
        env.take(said)
        return env

    def take(self, document: object) -> None:
        """Takes from a mapping of Azure ML's what no spec carries: what starts scripts, and the server."""
        said = document if isinstance(document, dict) else {}
        python = said.get("python")
        if isinstance(python, dict):
            self.python.interpreter_path = str(python.get("interpreterPath") or "python")
        self.inferencing_stack_version = said.get("inferencingStackVersion") or None

    # --- in a workspace -------------------------------------------------------------------------------

    def register(self, workspace: AnyWorkspace) -> Environment:
        """The registered environment: the same definition keeps its version, another one gets the next.

        A ``version`` that was set is the one it gets; raises ``WorkspaceError`` where another definition has
        it."""
        version = self.version if self.version != self._loaded_version else None
        registered = records_of(workspace).register(self.spec, version=version).version
        same = copy.deepcopy(self)
        same.version = same._loaded_version = registered.version
        same.asset_id = registered.reference
        return same

    @staticmethod
    def get(
        workspace: AnyWorkspace, name: str, version: str | None = None, label: str | None = None
    ) -> Environment:
        """A registered environment, by default its latest version; else the curated one of that name."""
        return Environment.from_own(api.Environment.get(records_of(workspace), name, version, label))

    @staticmethod
    def list(workspace: AnyWorkspace) -> Mapping[str, Environment]:
        """The latest versions of all environments by name, curated ones among them; each is read when it is
        looked at."""
        return _Latest(records_of(workspace))

    @staticmethod
    def label(workspace: AnyWorkspace, name: str, version: str, labels: Iterable[str]) -> None:
        """Moves ``labels`` to that version, from whichever had them."""
        api.Environment.label(records_of(workspace), name, version, labels)

    @staticmethod
    def add_private_pip_wheel(workspace: AnyWorkspace, file_path: PathLike, exist_ok: bool = False) -> str:
        """Keeps a wheel with the user's data, under its digest, and returns its address, which
        ``add_pip_package`` takes. ``exist_ok`` changes nothing: another content has another address.

        Raises ``SpecError`` for what is no wheel."""
        wheel = Path(file_path)
        try:
            parse_wheel_filename(wheel.name)
            with zipfile.ZipFile(wheel):
                pass
        except (InvalidWheelFilename, OSError, zipfile.BadZipFile) as error:
            raise SpecError(f"{wheel} is no wheel: {error}", hint="'pip wheel .' makes one") from error
        content = wheel.read_bytes()
        name = digest_bytes(content).removeprefix("sha256:")
        kept = records_of(workspace).data_directory / "wheels" / name / wheel.name
        try:
            write_file(kept, content)
        except OSError as error:
            raise PublishError(f"can't write {kept}: {error.strerror}") from error
        return kept.as_uri()

    # --- made of it -----------------------------------------------------------------------------------

    def get_image_details(self, workspace: AnyWorkspace) -> DockerImageDetails:
        """The newest image that was built of this definition, and whether there is one."""
        images = self.own.get_image_details(records_of(workspace))
        return DockerImageDetails(images[0] if images else None)

    def build(self, workspace: AnyWorkspace, image_build_compute: str | None = None) -> ImageBuildDetails:
        """Registers it and builds its image here; returns once that is done. Raises an ``EnvbuildError``
        where it can't be built."""
        if image_build_compute is not None:
            raise azure_only("image_build_compute", "leave it out: images are composed on this machine")
        return ImageBuildDetails(self.register(workspace).own.build(records_of(workspace)))

    def build_local(
        self, workspace: AnyWorkspace, platform: str | None = None, **kwargs: object
    ) -> ImageBuildDetails:
        """Builds its image here, and with ``useDocker=True`` brings it into the Docker engine. It needn't be
        registered."""
        if platform not in (None, "Linux"):
            raise azure_only(f"platform {platform!r}", "docker.platform names a CPU; images are Linux's")
        load = bool(kwargs.pop("useDocker", False))
        if kwargs.pop("pushImageToWorkspaceAcr", False):
            raise azure_only(
                "pushImageToWorkspaceAcr", "env.own.build(push='registry.example.org/name') pushes an image"
            )
        if kwargs:
            raise UsageError(f"no such option: {', '.join(sorted(kwargs))}", hint="useDocker is one")
        return ImageBuildDetails(self.own.build(records_of(workspace), load=load))


class _Latest(Mapping[str, Environment]):
    """The environments of a workspace by name."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._names = {summary.name: None for summary in records.environments.list()}
        self._names |= dict.fromkeys(curated_names())

    def __getitem__(self, name: str) -> Environment:
        if name not in self._names:
            raise KeyError(name)
        return Environment.get(self._records, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class EnvironmentReference:
    """An environment by its name, and its version where it isn't the latest."""

    def __init__(self, name: str, version: str | None = None) -> None:
        self.name = name
        self.version = version

    def get_environment(self, workspace: AnyWorkspace) -> Environment:
        """The environment itself. Raises ``WorkspaceError``."""
        return Environment.get(workspace, self.name, self.version)


def _with_wheels(dependencies: CondaDependencies) -> dict[str, Any]:
    """What they say, with each wheel of this machine as its version and the directory it is found in: an
    environment holds no path to a file, so that its lock is the same everywhere."""
    changed = copy.deepcopy(dependencies)
    lines: list[str] = []
    for line in (*changed.pip_options, *changed.pip_packages):
        directory, _, file = line.rpartition("/")
        if line.startswith("file:///") and file.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(unquote(file))
            lines = [f"--find-links {directory}", *lines, f"{name}=={version}"]
        else:
            lines.append(line)
    if lines:
        changed.set_pip_requirements(lines)
    return changed.as_dict()


def _conda_file(path: PathLike) -> CondaDependencies:
    dependencies = CondaDependencies(path)
    if "python" not in map(requirement_name, dependencies.conda_packages):
        _log.warning("%s names no python: python=%s is added", os.fspath(path), PYTHON_DEFAULT_VERSION)
        dependencies.set_python_version(PYTHON_DEFAULT_VERSION)
    return dependencies


def _requirements(path: PathLike, pip_version: str | None) -> CondaDependencies:
    """A new value with the lines of a requirements file, options first."""
    pip = requirements_file("requirements", Path(path)).pip
    dependencies = CondaDependencies()
    dependencies.directory = Path(path).absolute().parent
    if pip.constraints:
        # Constraints have no place among conda's dependencies; a file of its own may have them.
        lines = [f"-r {Path(path).name}"]
    else:
        lines = [*pip_options(pip.options), *map(pip_line, pip.requirements)]
    dependencies.set_pip_requirements(lines)
    dependencies.add_conda_package(f"pip={pip_version}" if pip_version else "pip")
    return dependencies
