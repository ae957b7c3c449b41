"""What runs are submitted to: the SDK's ``Experiment``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from envbuild.azure.environment import AnyWorkspace, records_of
from envbuild.azure.run import Run
from envbuild.azure.script_run_config import ScriptRunConfig
from envbuild.azure.unsupported import EXPERIMENT, PartlyThere, azure_only
from envbuild.errors import UsageError


class Experiment(PartlyThere):
    """A name under which runs are submitted. Nothing of it is kept: runs are recorded by their environment.

    >>> run = Experiment(workspace, "iris").submit(config)
    >>> run.wait_for_completion(show_output=True)["status"]
    'Completed'
    """

    _instead = EXPERIMENT

    def __init__(self, workspace: AnyWorkspace, name: str) -> None:
        self.workspace = workspace
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(Name: {self.name})"

    def submit(
        self,
        config: ScriptRunConfig,
        tags: Mapping[str, str] | None = None,
        *,
        out: Callable[[bytes], None] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Runs it to its end: builds where need be, registers a named environment, records the run, and shows
        what it prints, or passes it to ``out``. A script that fails raises nothing here.

        Raises ``AzureOnlyError`` for what is no script or command, ``RunError`` where it can't be started."""
        if not isinstance(config, ScriptRunConfig):
            raise azure_only(
                f"submitting {type(config).__name__}", "submit a ScriptRunConfig for each step, one by one"
            )
        if kwargs:
            raise UsageError(f"no such option: {', '.join(sorted(kwargs))}", hint="tags is one")
        records = records_of(self.workspace)
        if not records.settings.record:
            raise UsageError(
                "a run is shown from its record, and the setting 'record' is off",
                hint="unset ENVBUILD_RECORD, or use envbuild.ScriptRun",
            )
        outcome = config.script_run().submit(records, out=out)
        return Run(self, outcome.name, outcome.outputs, tags=tags)
