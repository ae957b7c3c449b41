"""GitHub Actions: a job's ``container:``, the image by digest, and the command as its one step."""

from __future__ import annotations

import shlex
from typing import Any, NoReturn

from envbuild.errors import UsageError
from envbuild.targets.base import CODE_DIRECTORY, Job, PublishedEnvironment, Service, TargetFile
from envbuild.targets.files.base import FilesOnly
from envbuild.targets.yaml import yaml_text

FILE = "job.yaml"
_OPTIONS = "--user root"
"""What the runner mounts into a container is its own user's, which only root may write to."""


class GithubFiles(FilesOnly):
    """A job of a GitHub Actions workflow."""

    def environment_files(self, published: PublishedEnvironment) -> tuple[TargetFile, ...]:
        """The lines below ``jobs.<id>`` that make a job's steps run in the environment."""
        return (_file({"container": _container(published.reference)}),)

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return (_job_file(job),)

    def service_files(self, service: Service) -> NoReturn:
        raise UsageError(
            "a workflow of GitHub runs commands and serves nothing",
            hint="give a command: -- python test.py",
        )


FILES = GithubFiles


def _job_file(job: Job) -> TargetFile:
    """A whole job below ``jobs:``, whose one step is the command."""
    line = shlex.join(job.command)
    values = [line, *(value for _, value in job.env)]
    if any("${{" in value for value in values):
        raise UsageError(
            "the command or a variable has ${{, which GitHub replaces in workflows",
            hint="put the command into a script of the code",
        )
    container = _container(job.reference)
    if job.env:
        container["env"] = dict(job.env)
    step: dict[str, Any] = {"run": line}
    if job.code_digest is not None:
        step["working-directory"] = str(CODE_DIRECTORY)
    body = {"runs-on": "ubuntu-latest", "container": container, "steps": [step]}
    return _file({job.name: body})


def _container(reference: str) -> dict[str, Any]:
    return {"image": reference, "options": _OPTIONS}


def _file(body: dict[str, Any]) -> TargetFile:
    return TargetFile(name=FILE, content=yaml_text(body))
