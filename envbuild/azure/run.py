"""A run that was submitted, as the SDK shows it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.app.jobs import log_file, state_directory
from envbuild.app.run_files import RUN_NOTE
from envbuild.azure.environment import AnyWorkspace, Environment, records_of
from envbuild.azure.unsupported import RUN, PartlyThere
from envbuild.errors import RunError, UsageError

if TYPE_CHECKING:
    from envbuild.workspace.base import RunRecord

_STATUS = {
    "created": "Starting",
    "running": "Running",
    "succeeded": "Completed",
    "failed": "Failed",
    "stopped": "Canceled",
    "lost": "Failed",
}


class Run(PartlyThere):
    """A run as the workspace has recorded it."""

    _instead = RUN

    def __init__(
        self,
        experiment: Any,
        run_id: str,
        outputs: Path | None = None,
        *,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """The run of that name. Raises ``WorkspaceError`` where none is recorded."""
        self.experiment = experiment
        self._workspace = records_of(experiment.workspace)
        self._record: RunRecord = self._workspace.environments.run(run_id)
        self._outputs = outputs if outputs is not None else state_directory(self._workspace) / run_id
        self.tags = dict(tags or {})

    def __repr__(self) -> str:
        return f"Run(Id: {self.id}, Status: {self.status})"

    @staticmethod
    def get(workspace: AnyWorkspace, run_id: str) -> Run:
        """The run of that name. Raises ``WorkspaceError``."""
        return Run(_NoExperiment(workspace), run_id)

    @property
    def id(self) -> str:
        """Its name: 'envbuild runs show NAME' has all that is recorded of it."""
        return self._record.name

    @property
    def name(self) -> str:
        return self.id

    @property
    def display_name(self) -> str:
        return self.id

    @property
    def type(self) -> str:
        return "azureml.scriptrun"

    @property
    def status(self) -> str:
        """``Completed``, ``Failed``, ``Canceled``, ``Running`` or ``Starting``."""
        return _STATUS[self._record.status]

    def get_status(self) -> str:
        """Its status now."""
        self._record = self._workspace.environments.run(self.id)
        return self.status

    def wait_for_completion(
        self, show_output: bool = False, wait_post_processing: bool = False, raise_on_error: bool = True
    ) -> dict[str, Any]:
        """What ``get_details`` returns, at once: ``Experiment.submit`` has run it to its end, and shown what
        it printed. Raises ``RunError`` for one that failed, unless ``raise_on_error`` is False."""
        if raise_on_error and self.status != "Completed":
            how = f" with the exit status {self._record.exit_status}" if self._record.exit_status else ""
            raise RunError(f"{self.id} has {self.status.lower()}{how}", hint=f"its log: {self._log}")
        return self.get_details()

    def get_details(self) -> dict[str, Any]:
        """What is recorded of it: names, times, the image's and the code's digest."""
        record = self._record
        return {
            "runId": record.name,
            "target": record.target,
            "status": self.status,
            "startTimeUtc": record.created.isoformat(),
            "endTimeUtc": record.ended.isoformat() if record.ended is not None else None,
            "properties": {
                "environment": f"{record.environment}:{record.version}",
                "definition": record.definition,
                "image": record.image,
                "code": record.code,
                "exitStatus": record.exit_status,
            },
            "runDefinition": {"command": list(record.command), "target": record.target},
            "logFiles": {self._log.name: str(self._log)},
        }

    def get_details_with_logs(self) -> dict[str, Any]:
        """``get_details``, with what it printed in place of the log's path."""
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.is_file() else ""
        return {**self.get_details(), "logFiles": {self._log.name: text}}

    def get_environment(self) -> Environment:
        """The environment that it ran in, by name and version."""
        return Environment.get(self._workspace, self._record.environment, self._record.version)

    def get_all_logs(self, destination: str | os.PathLike[str] | None = None) -> list[str]:
        """The paths of its logs; copies of them where a directory is named."""
        if destination is None:
            return [str(self._log)]
        directory = Path(destination)
        directory.mkdir(parents=True, exist_ok=True)
        return [str(shutil.copyfile(self._log, directory / self._log.name))]

    def get_file_names(self) -> list[str]:
        """What it wrote below ``outputs/``, sorted."""
        files = (path for path in self._outputs.rglob("*") if path.is_file() and path.name != RUN_NOTE)
        return sorted(f"outputs/{path.relative_to(self._outputs).as_posix()}" for path in files)

    def download_file(self, name: str, output_file_path: str | os.PathLike[str] | None = None) -> None:
        """Copies one of ``get_file_names``, by default into the working directory. Raises ``UsageError``."""
        if name not in self.get_file_names():
            raise UsageError(f"{self.id} wrote no {name}", hint=", ".join(self.get_file_names()) or None)
        source = self._outputs / name.removeprefix("outputs/")
        path = Path(output_file_path) if output_file_path is not None else Path(source.name)
        if path.is_dir():
            path = path / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | os.PathLike[str] | None = None,
        *,
        append_prefix: bool = True,
    ) -> None:
        """Copies all that it wrote below ``prefix`` into a directory."""
        for name in self.get_file_names():
            if name.startswith(prefix or ""):
                inner = name if append_prefix else name.removeprefix(prefix or "").lstrip("/")
                self.download_file(name, Path(output_directory or ".") / inner)

    def cancel(self) -> None:
        """Raises ``UsageError``: it has ended. Ctrl-C during ``Experiment.submit`` stops a run."""
        raise UsageError(f"{self.id} has ended already", hint="Ctrl-C stops a run while it is submitted")

    @property
    def _log(self) -> Path:
        return log_file(self._workspace, self.id)


class _NoExperiment:
    """Of a run that was found by its name."""

    name = ""

    def __init__(self, workspace: AnyWorkspace) -> None:
        self.workspace = workspace
