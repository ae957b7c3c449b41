"""The SDK's ``Workspace``: here the records that the settings name (``ENVBUILD_WORKSPACE``)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envbuild.app.environments import Workspace as Records
from envbuild.app.save import write_file
from envbuild.azure.environment import Environment
from envbuild.azure.run import Run
from envbuild.azure.unsupported import WORKSPACE, PartlyThere
from envbuild.errors import PublishError, SpecError, UsageError
from envbuild.specs.text.source import YAML_LIMIT, SourceFile
from envbuild.targets.base import TargetRecord

_FILE = "config.json"
_DIRECTORIES = (".azureml", "aml_config", ".")
"""Where the SDK looks for that file, in a directory and those above it."""


class Workspace(PartlyThere):
    """Environments, runs and targets. Its names are those of the SDK's file, where there is one; they decide
    nothing: all records are in ``records``, the workspace of envbuild's settings."""

    _instead = WORKSPACE

    def __init__(
        self, subscription_id: str, resource_group: str, workspace_name: str, auth: object = None
    ) -> None:
        self.records = Records.open()
        self.name = workspace_name
        self.subscription_id = subscription_id
        self.resource_group = resource_group

    def __repr__(self) -> str:
        return f"Workspace(name={self.name!r}, records={self.records.settings.workspace})"

    @staticmethod
    def from_config(
        path: str | os.PathLike[str] | None = None,
        auth: object = None,
        _logger: object = None,
        _file_name: str | None = None,
    ) -> Workspace:
        """The workspace, with the names of ``config.json`` where there is one. Raises ``UsageError`` where
        ``path`` has none, ``SpecError`` for one that can't be read."""
        file = _config_file(Path(path) if path is not None else Path.cwd(), _file_name or _FILE)
        if file is None:
            if path is not None:
                raise UsageError(f"{os.fspath(path)}: no {_FILE} is there", hint="no path is needed here")
            return Workspace("", "", "local")
        source = SourceFile.at(file)
        try:
            content = json.loads(source.read(YAML_LIMIT))
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{source.shown}: bad JSON") from error
        if not isinstance(content, dict) or not isinstance(content.get("workspace_name"), str):
            raise SpecError(f"{source.shown}: workspace_name is missing", hint="it has three names")
        names = (content.get("subscription_id"), content.get("resource_group"), content["workspace_name"])
        return Workspace(*(str(name or "") for name in names))

    @staticmethod
    def get(
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        cloud: str = "",
        id: str | None = None,
    ) -> Workspace:
        """The workspace under that name; there is only one."""
        return Workspace(subscription_id or "", resource_group or "", name)

    @staticmethod
    def create(
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        **kwargs: object,
    ) -> Workspace:
        """The workspace under that name: its records are made when they are first written."""
        return Workspace(subscription_id or "", resource_group or "", name)

    def write_config(self, path: str | os.PathLike[str] | None = None, file_name: str | None = None) -> None:
        """Writes the names where ``from_config`` finds them. Raises ``PublishError``."""
        file = Path(path or ".") / ".azureml" / (file_name or _FILE)
        try:
            write_file(file, (json.dumps(self.get_details(), indent=4) + "\n").encode())
        except OSError as error:
            raise PublishError(f"can't write {file}: {error.strerror}") from error

    def get_details(self) -> dict[str, Any]:
        """The three names."""
        return {
            "subscription_id": self.subscription_id,
            "resource_group": self.resource_group,
            "workspace_name": self.name,
        }

    @property
    def location(self) -> str:
        """``local``: no region has it."""
        return "local"

    @property
    def environments(self) -> Mapping[str, Environment]:
        """The latest versions of all environments by name."""
        return Environment.list(self)

    @property
    def compute_targets(self) -> Mapping[str, TargetRecord]:
        """The targets by name; ``compute_target`` takes one of them, or its name."""
        return {target.name: target for target in self.records.targets()}

    def get_run(self, run_id: str) -> Run:
        """The run of that name. Raises ``WorkspaceError``."""
        return Run.get(self, run_id)


def _config_file(start: Path, name: str) -> Path | None:
    if start.is_file():
        return start
    if not start.is_dir():
        return None
    for directory in (start, *start.absolute().parents):
        for file in _candidates(directory, name):
            if file.is_file():
                return file
    return None


def _candidates(directory: Path, name: str) -> Iterator[Path]:
    return (directory / inner / name for inner in _DIRECTORIES)
