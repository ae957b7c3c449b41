"""A spec as the directory that Azure ML's first SDK saves and loads."""

from __future__ import annotations

import json

from envbuild.platforms import LINUX_AMD64
from envbuild.specs.exporters.conda import conda_mapping
from envbuild.specs.exporters.native import inference_mapping
from envbuild.specs.exporters.unsupported_fields import beyond
from envbuild.specs.importers.azure.v1 import CONDA_FILE, DIRECTORY, DOCKERFILE, OLD_SPARK
from envbuild.specs.model import (
    BuildContextSpec,
    EnvironmentType,
    ImageBaseSpec,
    Runtime,
    SparkSpec,
    Spec,
)
from envbuild.specs.plugins import Exported
from envbuild.specs.serving import DEFAULT_ROUTES
from envbuild.specs.text.source import YAML_LIMIT, SourceFile
from envbuild.specs.text.yaml import dump_yaml


def export_azure_v1(spec: Spec) -> Exported:
    """``azureml_environment.json``, and ``conda_dependencies.yml`` or ``BaseDockerfile`` where it has one.

    Another build context stays where it is, beside the files. Raises ``SpecError`` for a ``BaseDockerfile``
    that can't be read any more.
    """
    managed = spec.type is not EnvironmentType.USER_MANAGED
    carried = {"name", "version", "type", "base"}
    lines: list[str] = []
    conda: dict[str, object] | None = None
    pip = spec.pip.requirements or spec.pip.options
    if managed and (spec.conda is not None or pip or spec.python is not None):
        conda, lines = conda_mapping(spec, variables=False)
        carried |= {"python", "conda_file", "requirements"}
    elif managed:
        lines.append("conda_file: Azure ML installs a python of conda where none is said")
    docker, dockerfile = _docker(spec, lines)
    if dockerfile is None and docker["buildContext"] is None:
        carried.add("environment_variables")
    if spec.spark is not None or spec.runtime is Runtime.SPARK:
        carried.add("spark")
    if spec.runtime is Runtime.SPARK and spec.spark is not None and _says(spec.spark):
        carried.add("runtime")
    if len(spec.platforms) == 1:
        carried.add("platforms")
    server = None
    if spec.inference_config == DEFAULT_ROUTES:
        server = "latest"
        carried.add("inference_config")
    content = {
        "name": spec.name,
        "version": spec.version,
        "environmentVariables": dict(spec.environment_variables),
        "inferencingStackVersion": server,
        "assetId": None,
        "python": {
            "userManagedDependencies": not managed,
            "interpreterPath": "python",
            "condaDependencies": conda,
            "condaDependenciesFile": None,
            "baseCondaEnvironment": None,
        },
        "docker": docker,
        "spark": _spark(spec.spark),
    }
    files = {DIRECTORY: (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()}
    if conda is not None:
        files[CONDA_FILE] = dump_yaml(conda).encode()
    if dockerfile is not None:
        files[DOCKERFILE] = dockerfile.encode()
    told = beyond(spec, carried)
    if dockerfile is not None:
        told = tuple(line for line in told if not line.startswith("build: "))
    return Exported(
        files=tuple(files.items()),
        left_out=(*lines, *told),
        names_context=docker["buildContext"] is not None,
    )


def _docker(spec: Spec, lines: list[str]) -> tuple[dict[str, object], str | None]:
    """The docker section, and the text of the Dockerfile where the environment is one alone."""
    base = spec.base
    platform = spec.platforms[0] if len(spec.platforms) == 1 else LINUX_AMD64
    image: str | None = None
    context: dict[str, object] | None = None
    dockerfile: str | None = None
    if isinstance(base, ImageBaseSpec):
        image = base.reference
    elif isinstance(base, BuildContextSpec):
        if base.dockerfile_path == DOCKERFILE and (spec.directory / base.path / DIRECTORY).is_file():
            dockerfile = SourceFile.at(spec.directory / base.path / DOCKERFILE).read(YAML_LIMIT)
        else:
            context = {
                "locationType": "localFile",
                "location": base.path.as_posix(),
                "dockerfilePath": base.dockerfile_path,
            }
    else:
        image = IMAGE
        chosen = base is not None
        lines.append(
            f"base: Azure ML needs an image, so {IMAGE} is named" + (" in its place" if chosen else "")
        )
    section: dict[str, object] = {
        "baseImage": image,
        "baseDockerfile": dockerfile,
        "buildContext": context,
        "baseImageRegistry": {"address": None, "username": None, "password": None, "registryIdentity": None},
        "platform": {"os": "Linux", "architecture": platform.architecture},
        "arguments": [],
        "shmSize": None,
    }
    return section, dockerfile


def _spark(spark: SparkSpec | None) -> dict[str, object]:
    spark = spark or SparkSpec()
    return {
        "repositories": list(spark.repositories),
        "packages": [
            {"group": package.group, "artifact": package.artifact, "version": package.version}
            for package in spark.packages
        ],
        "precachePackages": spark.precache_packages,
    }


def _says(spark: SparkSpec) -> bool:
    """Whether the section is told from the one that every object of the SDK has."""
    packages = [f"{package.group}:{package.artifact}:{package.version}" for package in spark.packages]
    return packages != [OLD_SPARK] and bool(packages or spark.repositories)


SCHEMA = "https://azuremlschemas.azureedge.net/latest/environment.schema.json"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
"""What a conda file is installed on there where a spec names no image."""


def export_azure_v2(spec: Spec) -> Exported:
    """``environment.yaml``. A build context stays where it is, beside the file."""
    carried = {"name", "version", "description", "tags", "inference_config"}
    lines: list[str] = []
    document: dict[str, object] = {
        "$schema": SCHEMA,
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "tags": dict(spec.tags),
    }
    base = spec.base
    software = spec.conda is not None or bool(spec.pip.requirements or spec.pip.options or spec.python)
    managed = spec.type is not EnvironmentType.USER_MANAGED
    if isinstance(base, BuildContextSpec):
        carried |= {"base", "type"}
        document["build"] = {"path": base.path.as_posix(), "dockerfile_path": base.dockerfile_path}
    else:
        document["image"] = base.reference if isinstance(base, ImageBaseSpec) else IMAGE
        if isinstance(base, ImageBaseSpec):
            carried.add("base")
        elif base is None:
            lines.append(f"base: Azure ML needs an image, so {IMAGE} is named")
        if not managed:
            carried.add("type")
    if managed and (software or not isinstance(base, ImageBaseSpec)):
        content, more = conda_mapping(spec)
        document["conda_file"] = content
        lines += more
        carried |= {"python", "conda_file", "requirements", "environment_variables"}
    elif managed:
        lines.append("type: an image with nothing to install on it is user-managed there")
    document["os_type"] = "linux"
    document["inference_config"] = inference_mapping(spec.inference_config)
    kept = {key: value for key, value in document.items() if value not in (None, {}, "")}
    return Exported(
        files=(("environment.yaml", dump_yaml(kept).encode()),),
        left_out=(*lines, *beyond(spec, carried)),
        names_context=isinstance(base, BuildContextSpec),
    )
