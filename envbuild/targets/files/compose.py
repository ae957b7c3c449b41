"""Files for ``docker compose``: a job, a service."""

from __future__ import annotations

from typing import Any

from envbuild.targets.base import Job, Service, TargetFile
from envbuild.targets.files.base import FilesOnly
from envbuild.targets.yaml import yaml_text

FILE = "compose.yaml"


class ComposeFiles(FilesOnly):
    """``compose.yaml``, for whichever engine it is brought to."""

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return (job_file(job),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        return (service_file(service),)


FILES = ComposeFiles


def job_file(job: Job, *, gpus: bool = False) -> TargetFile:
    """A compose file whose one service runs the job's command once (compose-spec)."""
    service: dict[str, Any] = {"image": job.reference, "command": _literal(job.command), "restart": "no"}
    return _file(job.name, service, job.env, gpus)


def service_file(service: Service, *, gpus: bool = False) -> TargetFile:
    """A compose file that serves the scoring route on this machine's port of the same number."""
    body: dict[str, Any] = {
        "image": service.reference,
        "restart": "unless-stopped",
        "ports": [f"{service.port}:{service.port}"],
        "healthcheck": {
            "test": ["CMD", "python", "-c", _PROBE.format(port=service.port, path=service.liveness)],
            "interval": "10s",
            "timeout": "5s",
            "start_period": "60s",
        },
    }
    return _file(service.name, body, service.env, gpus)


_PROBE = "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}{path}', timeout=4).read()"


def _file(name: str, body: dict[str, Any], env: tuple[tuple[str, str], ...], gpus: bool) -> TargetFile:
    if env:
        body["environment"] = {key: _dollars(value) for key, value in env}
    if gpus:
        devices = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
        body["deploy"] = {"resources": {"reservations": {"devices": devices}}}
    return TargetFile(name=FILE, content=yaml_text({"name": name, "services": {"main": body}}))


def _literal(words: tuple[str, ...]) -> list[str]:
    return [_dollars(word) for word in words]


def _dollars(text: str) -> str:
    """As it is, since compose replaces ``$NAME`` and takes ``$$`` for a dollar."""
    return text.replace("$", "$$")
