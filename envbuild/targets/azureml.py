"""Azure ML: writes what its command line takes (``az ml``), the image by digest; submits nothing.

The code is in the image, so no file uploads any. A job's command starts in a directory of the service's own,
whose ``outputs`` it keeps: the command goes to the code first, and ``outputs`` there leads back.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from envbuild.errors import UsageError
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference
from envbuild.targets.base import (
    CODE_DIRECTORY,
    OUTPUTS,
    Finding,
    Job,
    Option,
    PublishedEnvironment,
    Service,
    TargetFile,
    TargetRecord,
)
from envbuild.targets.kinds import TargetContext
from envbuild.targets.options import COMMON, check_options, limits_of, whole
from envbuild.targets.yaml import yaml_text

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_GROUP = re.compile(r"[\w().-]{0,89}[\w()-]", re.ASCII)
_SUBSCRIPTION = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MACHINE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_ENDPOINT = re.compile(r"[a-z](?:[a-z0-9-]{1,30})[a-z0-9]")
_LONGEST_ENDPOINT = 32
_DEPLOYMENT = "main"


def _like(pattern: re.Pattern[str], what: str) -> Any:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {what}")
        return text

    return check


class AzureTarget:
    """One workspace of Azure ML, or whichever its user's ``az`` is set to."""

    def __init__(self, record: TargetRecord, surroundings: TargetContext) -> None:
        options = check_options(record, KIND.options)
        self.record = record
        self.limits = limits_of(options)
        self.registry = options.get("registry")
        self._options = options

    def findings(self, image: Image) -> Sequence[Finding]:
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
            "experiment_name": self._options.get("experiment") or _experiment(job),
            "command": _command(job),
            "environment": {"image": _image(job.reference)},
        }
        if job.env:
            body["environment_variables"] = dict(job.env)
        if "compute" in self._options:
            body["compute"] = f"azureml:{self._options['compute']}"
        resources: dict[str, Any] = {}
        if "instance-type" in self._options:
            resources["instance_type"] = self._options["instance-type"]
        if "instance-count" in self._options:
            resources["instance_count"] = whole(self._options["instance-count"])
        if resources:
            body["resources"] = resources
        return (self._file("job.yaml", body),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        """``endpoint.yaml`` and ``deployment.yaml``: a managed online endpoint, and what answers at it."""
        endpoint = self._options.get("endpoint") or _endpoint(service.name)
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
        count = self._options.get("instance-count")
        deployment |= {
            "instance_type": self._options.get("instance-type") or "Standard_DS3_v2",
            "instance_count": whole(count) if count else service.replicas,
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
        return tuple(self._az(file.name) for file in files)

    def submit(self, job: Job) -> NoReturn:
        """Raises ``UsageError`` that says what does."""
        raise UsageError(
            "jobs for Azure ML are written, not submitted",
            hint="write job.yaml by envbuild publish, or print it with --dry-run; "
            f"then: {self._az('job.yaml')}",
        )

    def _file(self, name: str, body: dict[str, Any]) -> TargetFile:
        return TargetFile(name=name, content=f"# {self._az(name)}\n{yaml_text(body)}")

    def _az(self, file: str) -> str:
        verb, *more = _VERBS[file]
        words = ["az", "ml", verb, "create", "--file", file]
        for option, flag in _PLACE:
            if option in self._options:
                words += [flag, self._options[option]]
        return shlex.join([*words, *more])


_VERBS = {
    "environment.yaml": ("environment",),
    "job.yaml": ("job",),
    "endpoint.yaml": ("online-endpoint",),
    "deployment.yaml": ("online-deployment", "--all-traffic"),
}
_PLACE = (
    ("workspace", "--workspace-name"),
    ("resource-group", "--resource-group"),
    ("subscription", "--subscription"),
)


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
    found = name[:_LONGEST_ENDPOINT].rstrip("-")
    return found if _ENDPOINT.fullmatch(found) else f"{found}-service"[-_LONGEST_ENDPOINT:]


def _probe(failures: int) -> dict[str, int]:
    return {
        "initial_delay": 10,
        "period": 10,
        "timeout": 4,
        "success_threshold": 1,
        "failure_threshold": failures,
    }


class AzureKind:
    name = "azureml"
    options: Sequence[Option] = (
        Option(
            name="workspace", help="the Azure ML workspace [that of az]", check=_like(_NAME, "a workspace")
        ),
        Option(name="resource-group", help="its resource group", check=_like(_GROUP, "a resource group")),
        Option(name="subscription", help="the id of its subscription", check=_like(_SUBSCRIPTION, "a UUID")),
        Option(name="compute", help="the compute that jobs run on", check=_like(_NAME, "a compute's name")),
        Option(name="experiment", help="of jobs [the environment]", check=_like(_NAME, "an experiment")),
        Option(name="endpoint", help="of services [the environment]", check=_like(_ENDPOINT, "an endpoint")),
        Option(
            name="instance-type", help="a machine type: Standard_DS3_v2", check=_like(_MACHINE, "a machine")
        ),
        Option(name="instance-count", help="how many machines", check=whole),
        *(replace(each, default="linux/amd64") for each in COMMON if each.name == "platform"),
    )

    def open(self, record: TargetRecord, surroundings: TargetContext) -> AzureTarget:
        return AzureTarget(record, surroundings)


KIND = AzureKind()
