"""A script in an environment on a target, for Python programs: what ``envbuild run --target`` does."""

from __future__ import annotations

import codecs
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.errors import UsageError

if TYPE_CHECKING:
    from envbuild.api import Environment
    from envbuild.app.jobs import JobRequest, Outcome
    from envbuild.app.workspace import Workspace
    from envbuild.targets.base import TargetFile

PathLike = str | os.PathLike[str]


class ScriptRun:
    """What is to be run, where, and in which environment. Names follow ``ScriptRunConfig`` of Azure ML.

    >>> run = ScriptRun("src", "train.py", ["--depth", 3], environment=env, target="cluster")
    >>> run.submit(workspace).exit_status
    0
    """

    def __init__(
        self,
        source_directory: PathLike | None = None,
        script: str | None = None,
        arguments: Sequence[object] = (),
        *,
        environment: Environment,
        target: str = "local",
        command: Sequence[str] | str | None = None,
        environment_variables: Mapping[str, str] | None = None,
    ) -> None:
        """``script`` is a Python file of ``source_directory``, started with ``arguments``; ``command`` stands
        for both, as words or as a line. Raises ``UsageError`` where neither, or both, are given."""
        if (script is None) == (command is None):
            raise UsageError("a run needs a script or a command, and not both")
        if script is not None and (
            source_directory is None or not (Path(source_directory) / script).is_file()
        ):
            raise UsageError(f"there is no script {script} in {source_directory}")
        self.source_directory = Path(source_directory) if source_directory is not None else None
        self.environment = environment
        self.target = target
        self.environment_variables = dict(environment_variables or {})
        if isinstance(command, str):
            command = shlex.split(command)
        words = ["python", str(script), *map(str, arguments)] if command is None else [*map(str, command)]
        if command is not None and arguments:
            raise UsageError("arguments belong to a script, a command has its own")
        self.command = tuple(words)

    def files(self, workspace: Workspace, **options: Any) -> tuple[TargetFile, ...]:
        """What the target would be given. Builds the image; brings and starts nothing. Raises ``RunError``
        where it couldn't run there."""
        from envbuild.app.jobs import Jobs, refuse

        with self.environment.pipeline(workspace) as pipeline:
            jobs = Jobs(pipeline)
            with jobs.prepared(self.environment.spec, self._request(options)) as prepared:
                refuse(prepared.findings, prepared.target.record.name)
                return prepared.files

    def submit(
        self,
        workspace: Workspace,
        *,
        outputs: PathLike | None = None,
        out: Callable[[bytes], None] | None = None,
        **options: Any,
    ) -> Outcome:
        """Runs it to its end: builds where need be, records, and passes what it prints to ``out``, by default
        standard output. ``options`` are those of ``BuildRequest``. Raises ``RunError`` where it can't be
        started or the target goes away; an exit status is no error."""
        from envbuild.app.jobs import Jobs

        with self.environment.pipeline(workspace) as pipeline:
            jobs = Jobs(pipeline)
            with jobs.prepared(self.environment.spec, self._request(options)) as prepared:
                return jobs.run(prepared, out or _writer(), outputs=Path(outputs) if outputs else None)

    def _request(self, options: Mapping[str, Any]) -> JobRequest:
        from envbuild.api import request_of
        from envbuild.app.jobs import JobRequest
        from envbuild.app.requests import BuildRequest

        return JobRequest(
            target=self.target,
            command=self.command,
            code=self.source_directory,
            env=tuple(sorted(self.environment_variables.items())),
            build=request_of(BuildRequest, options),
        )


def _writer() -> Callable[[bytes], None]:
    """Writes to standard output as it is now, which may be a notebook's and take text only."""
    stream = sys.stdout
    # Pieces end anywhere, also within a character.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def write(piece: bytes) -> None:
        stream.write(decoder.decode(piece))
        stream.flush()

    return write
