"""The parts of the SDK's ``Environment``: python, docker, spark. They take the attributes they have, and no
others: a typing error is an ``AttributeError``."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from envbuild.azure.conda_dependencies import CondaDependencies
from envbuild.azure.container_registry import ContainerRegistry
from envbuild.azure.unsupported import azure_only
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

_log = logging.getLogger(__name__)

_RUN_OPTIONS = (
    "an environment has nothing of its runs: limits and mounts are options of a target "
    "('envbuild target add'), or of 'envbuild run'"
)


class PythonSection:
    """Who installs Python's packages, and which."""

    __slots__ = ("_file", "conda_dependencies", "interpreter_path", "user_managed_dependencies")

    def __init__(self) -> None:
        self.user_managed_dependencies = False
        """Whether the image is taken as it is: nothing is installed then."""
        self.interpreter_path = "python"
        """What starts scripts in a user-managed image."""
        self.conda_dependencies: CondaDependencies | None = CondaDependencies()
        self._file: str | None = None

    @property
    def conda_dependencies_file(self) -> str | None:
        """The conda file that ``conda_dependencies`` was read from, where it was named here."""
        return self._file

    @conda_dependencies_file.setter
    def conda_dependencies_file(self, value: str | os.PathLike[str] | None) -> None:
        if value is not None:
            self.conda_dependencies = CondaDependencies(value)
        self._file = os.fspath(value) if value is not None else None


@dataclass(slots=True)
class DockerImagePlatform:
    """What the image is for."""

    os: str = field(default="Linux", init=False)
    architecture: str = field(default="amd64", init=False)


@dataclass(slots=True)
class DockerBuildContext:
    """A directory with a Dockerfile."""

    location_type: str | None = None
    location: str | None = None
    dockerfile_path: str = "Dockerfile"

    @staticmethod
    def from_local_directory(
        workspace: object, path: str | os.PathLike[str], dockerfile_path: str = "Dockerfile"
    ) -> DockerBuildContext:
        """A directory of this machine; nothing is copied before a build."""
        return DockerBuildContext("localFile", os.fspath(path), dockerfile_path)


class DockerSection:
    """What the environment stands on: an image, a Dockerfile, or a directory with one; by default envbuild's
    own base. Each takes the place of the other two."""

    __slots__ = (
        "_base_dockerfile",
        "_base_image",
        "_build_context",
        "_enabled",
        "_registry",
        "dockerfile",
        "platform",
    )

    def __init__(self) -> None:
        self._base_image: str | None = None
        self._base_dockerfile: str | None = None
        self._build_context: DockerBuildContext | None = None
        self._registry = ContainerRegistry()
        self._enabled = True
        self.platform = DockerImagePlatform()
        self.dockerfile: Path | None = None
        """The file that ``base_dockerfile`` was read from: its steps see the directory it stands in."""

    @property
    def base_image(self) -> str | None:
        """An image's reference; None: a Dockerfile, or envbuild's own base."""
        return self._base_image

    @base_image.setter
    def base_image(self, value: str | None) -> None:
        if value:
            self._base_dockerfile = self.dockerfile = self._build_context = None
        self._base_image = value or None

    @property
    def base_dockerfile(self) -> str | None:
        """A Dockerfile's text. What names a file, or can be read from, is read."""
        return self._base_dockerfile

    @base_dockerfile.setter
    def base_dockerfile(self, value: str | os.PathLike[str] | TextIO | None) -> None:
        self.dockerfile = None
        if not value:
            self._base_dockerfile = None
            return
        if isinstance(value, (str, os.PathLike)):
            path = _file_named(value)
            if path is not None:
                self.dockerfile = path.absolute()
                value = SourceFile.at(path).read(YAML_LIMIT)
            text = os.fspath(value)
        else:
            text = value.read()
        self._base_image = self._build_context = None
        self._base_dockerfile = text

    @property
    def build_context(self) -> DockerBuildContext | None:
        """A directory with a Dockerfile, taken as it is."""
        return self._build_context

    @build_context.setter
    def build_context(self, value: DockerBuildContext | None) -> None:
        if value is not None:
            self._base_image = self._base_dockerfile = self.dockerfile = None
        self._build_context = value

    @property
    def base_image_registry(self) -> ContainerRegistry:
        """Where ``base_image`` is pulled from; an address alone does for it."""
        return self._registry

    @base_image_registry.setter
    def base_image_registry(self, value: ContainerRegistry | str | None) -> None:
        self._registry = ContainerRegistry.at(value)

    @property
    def enabled(self) -> bool:
        """Changes nothing: an environment is always an image."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool = False) -> None:
        if not value:
            _log.warning("docker.enabled: an environment is always an image")
        self._enabled = bool(value)

    @property
    def gpu_support(self) -> bool:
        """Changes nothing: CUDA is what the base image, or the packages, bring."""
        return False

    @gpu_support.setter
    def gpu_support(self, _: bool) -> None:
        _log.warning("docker.gpu_support changes nothing: name a base image that has CUDA")

    @property
    def shared_volumes(self) -> bool:
        """Changes nothing: it is about Docker on Windows."""
        return True

    @shared_volumes.setter
    def shared_volumes(self, value: bool = True) -> None:
        _log.info("docker.shared_volumes changes nothing")

    @property
    def arguments(self) -> list[str]:
        """Always empty; see the error for what to use instead."""
        return []

    @arguments.setter
    def arguments(self, value: list[str] | None = None) -> None:
        if value:
            raise azure_only("docker.arguments", _RUN_OPTIONS)

    @property
    def shm_size(self) -> str | None:
        """Always None; see the error for what to use instead."""
        return None

    @shm_size.setter
    def shm_size(self, value: str | None = None) -> None:
        if value:
            raise azure_only("docker.shm_size", _RUN_OPTIONS)


@dataclass(slots=True)
class SparkPackage:
    """A jar by its coordinates in a Maven repository."""

    group: str | None = None
    artifact: str | None = None
    version: str | None = None


@dataclass(slots=True)
class SparkSection:
    """What Spark is given besides Python's packages."""

    repositories: list[str] = field(default_factory=list, init=False)
    packages: list[SparkPackage] = field(default_factory=list, init=False)
    precache_packages: bool = field(default=True, init=False)


def _file_named(value: str | os.PathLike[str]) -> Path | None:
    try:
        path = Path(value)
        return path if path.is_file() else None
    except (OSError, ValueError):
        return None  # A Dockerfile's text is no path.
