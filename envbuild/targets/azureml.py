"""Azure ML: writes what its command line takes (``az ml``), the image by digest; submits nothing.

The code is in the image, so no file uploads any. A job's command starts in a directory of the service's own,
whose ``outputs`` it keeps: the command goes to the code first, and ``outputs`` there leads back.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from envbuild.errors import UsageError
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.targets.base import (
    CODE_DIRECTORY,
    OUTPUTS,
    Job,
    PreflightFinding,
    PublishedEnvironment,
    Service,
    TargetFile,
)
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget
from envbuild.targets.options import TargetOptions, matching, option, parse_platform, whole
from envbuild.targets.yaml import yaml_text

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_GROUP = re.compile(r"[\w().-]{0,89}[\w()-]", re.ASCII)
_SUBSCRIPTION = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MACHINE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_ENDPOINT = re.compile(r"[a-z](?:[a-z0-9-]{1,30})[a-z0-9]")
_LONGEST_ENDPOINT = 32
_DEPLOYMENT = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureOptions(TargetOptions):
    workspace: str | None = option("the Azure ML workspace [that of az]", matching(_NAME, "a workspace"))
    resource_group: str | None = option("its resource group", matching(_GROUP, "a resource group"))
    subscription: str | None = option("the id of its subscription", matching(_SUBSCRIPTION, "a UUID"))
    compute: str | None = option("the compute that jobs run on", matching(_NAME, "a compute's name"))
    experiment: str | None = option("of jobs [the environment]", matching(_NAME, "an experiment"))
    endpoint: str | None = option("of services [the environment]", matching(_ENDPOINT, "an endpoint"))
    instance_type: str | None = option("a machine type: Standard_DS3_v2", matching(_MACHINE, "a machine"))
    instance_count: int | None = option("how many machines", whole)
    platform: Platform | None = option(  # noqa: RUF009 - it is a field
        "what it runs, like linux/amd64", parse_platform, default="linux/amd64"
    )


class AzureTarget(ConfiguredTarget[AzureOptions]):
    """One workspace of Azure ML, or whichever its user's ``az`` is set to."""

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return ()

    def bytes_to_pull(self, image: Image) -> int | None:
        return None

    def environment_files(self, published: PublishedEnvironment) -> tuple[TargetFile, ...]:
        """``environment.yaml``: the environment under its own name and version."""
        serving = published.inference_config
        body: dict[str, Any] = {
            "$schema": f"{_SCHEMAS}/environment.schema.json",
            "name": re.sub(r"[^a-zA-Z0-9_-]", "-", published.name),
            "version": published.version or published.image.lock_digest.removeprefix("sha256:")[:12],
            "image": _image(published.reference),
            "os_type": "linux",
        }
        if published.description:
            body["description"] = published.description
        if published.tags:
            body["tags"] = dict(published.tags)
        if serving is not None:
            routes = {
                "liveness_route": serving.liveness_route,
                "readiness_route": serving.readiness_route,
                "scoring_route": serving.scoring_route,
            }
            body["inference_config"] = {
                name: {"path": route.path, "port": route.port} for name, route in routes.items()
            }
        return (self._file("environment.yaml", body),)

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        """``job.yaml``: a command job, its environment inline."""
        body: dict[str, Any] = {
            "$schema": f"{_SCHEMAS}/commandJob.schema.json",
            "type": "command",
            # A name could be used but once; without one the service makes one.
            "display_name": job.name,
            "experiment_name": self._options.experiment or _experiment(job),
            "command": _command(job),
            "environment": {"image": _image(job.reference)},
        }
        if job.env:
            body["environment_variables"] = dict(job.env)
        if self._options.compute is not None:
            body["compute"] = f"azureml:{self._options.compute}"
        machines = {
            "instance_type": self._options.instance_type,
            "instance_count": self._options.instance_count,
        }
        resources = {name: value for name, value in machines.items() if value is not None}
        if resources:
            body["resources"] = resources
        return (self._file("job.yaml", body),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        """``endpoint.yaml`` and ``deployment.yaml``: a managed online endpoint, and what answers at it."""
        endpoint = self._options.endpoint or _endpoint(service.name)
        routes = {
            "liveness_route": service.liveness,
            "readiness_route": service.readiness,
            "scoring_route": service.scoring,
        }
        serving = {name: {"path": path, "port": service.port} for name, path in routes.items()}
        deployment: dict[str, Any] = {
            "$schema": f"{_SCHEMAS}/managedOnlineDeployment.schema.json",
            "name": _DEPLOYMENT,
            "endpoint_name": endpoint,
            "environment": {"image": _image(service.reference), "inference_config": serving},
        }
        if service.env:
            deployment["environment_variables"] = dict(service.env)
        deployment |= {
            "instance_type": self._options.instance_type or "Standard_DS3_v2",
            "instance_count": self._options.instance_count or service.replicas,
            "liveness_probe": _probe(30),
            "readiness_probe": _probe(3),
        }
        return (
            self._file(
                "endpoint.yaml",
                {
                    "$schema": f"{_SCHEMAS}/managedOnlineEndpoint.schema.json",
                    "name": endpoint,
                    "auth_mode": "key",
                },
            ),
            self._file("deployment.yaml", deployment),
        )

    def how_to_submit(self, files: Sequence[TargetFile]) -> tuple[str, ...]:
        """See ``WritesOnly``."""
        return tuple(self._az_command(file.name) for file in files)

    def submit(self, job: Job) -> NoReturn:
        """Raises ``UsageError`` that says what does."""
        raise UsageError(
            "jobs for Azure ML are written, not submitted",
            hint="write job.yaml by envbuild publish, or print it with --dry-run; "
            f"then: {self._az_command('job.yaml')}",
        )

    def _file(self, name: str, body: dict[str, Any]) -> TargetFile:
        return TargetFile(name=name, content=f"# {self._az_command(name)}\n{yaml_text(body)}")

    def _az_command(self, file: str) -> str:
        verb, *more = _VERBS[file]
        words = ["az", "ml", verb, "create", "--file", file]
        place = {
            "--workspace-name": self._options.workspace,
            "--resource-group": self._options.resource_group,
            "--subscription": self._options.subscription,
        }
        for flag, value in place.items():
            if value is not None:
                words += [flag, value]
        return shlex.join([*words, *more])


_VERBS = {
    "environment.yaml": ("environment",),
    "job.yaml": ("job",),
    "endpoint.yaml": ("online-endpoint",),
    "deployment.yaml": ("online-deployment", "--all-traffic"),
}


def _image(reference: str) -> str:
    """``repository@sha256:…``; the service isn't known to take a tag besides."""
    name, at, digest = reference.partition("@")
    host, slash, _ = name.partition("/")
    if not at or not slash or not ("." in host or ":" in host or host == "localhost"):
        raise UsageError(
            f"Azure ML pulls images from a registry, and {name} names none",
            hint="give the target one: registry=NAME.azurecr.io",
        )
    return f"{Reference.parse(reference).name}@{digest}"


def _command(job: Job) -> str:
    line = shlex.join(job.command)
    if "${{" in line:
        raise UsageError(
            "the command has ${{, which Azure ML replaces by inputs; this job has none",
            hint="pass the value by an environment variable: -e NAME=VALUE",
        )
    if job.code_digest is None:
        return line
    outputs = shlex.quote(str(OUTPUTS))
    # A link, so that what the job writes beside its code is where the service looks for it.
    link = f'mkdir -p outputs && {{ [ -e {outputs} ] || ln -s "$PWD/outputs" {outputs}; }}'
    return f"{link} && cd {CODE_DIRECTORY} && exec {line}"


def _experiment(job: Job) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "-", job.environment.partition(":")[0]) or job.name


def _endpoint(name: str) -> str:
    """``name`` as an endpoint may be called: 3 to 32 letters, digits and ``-``, from a letter on."""
    endpoint = name[:_LONGEST_ENDPOINT].rstrip("-")
    return endpoint if _ENDPOINT.fullmatch(endpoint) else f"{endpoint}-service"[-_LONGEST_ENDPOINT:]


def _probe(failures: int) -> dict[str, int]:
    return {
        "initial_delay": 10,
        "period": 10,
        "timeout": 4,
        "success_threshold": 1,
        "failure_threshold": failures,
    }


KIND = ConfiguredKind("azureml", AzureOptions, AzureTarget)
