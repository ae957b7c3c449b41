"""A job of Slurm from its start to its end, watched by asking: Slurm tells nobody on its own."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from envbuild.errors import RunError
from envbuild.progress import Progress
from envbuild.targets.slurm.command import JobState, Login, job_number, state_of
from envbuild.targets.slurm.files import SharedDirectory
from envbuild.targets.slurm.script import SCRIPT

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
"""Seconds between two looks: the longer a job runs, the less often."""
_PAUSE_OVER_SSH = 5.0
"""Every look is a connection of its own, unless the user's ssh shares one."""
_PATIENCE = 600.0
"""Seconds that Slurm's controller may be away: its restarts do jobs no harm."""
_STOP_SECONDS = 120.0
_WAITS = {
    "Resources": "for nodes to become free",
    "Priority": "behind jobs of higher priority",
    "BadConstraints": "for something that no node has: it will never start",
    "PartitionDown": "for its partition to be up again",
    "PartitionTimeLimit": "as its time is more than the partition allows",
    "PartitionNodeLimit": "as it asks for more than the partition allows",
}


def submit_job(
    login: Login, files: SharedDirectory, name: str, script: str, progress: Progress
) -> SlurmExecution:
    """Hands the job in. The run's directory is there then, or nothing of it. Raises ``RunError``."""
    files.begin(name, script)
    run = shlex.quote(files.run(name))
    try:
        said = login.run(f"cd {run} && exec sbatch --parsable {SCRIPT}")
        number = job_number(said.out.decode(errors="replace")) if said.status == 0 else None
        if number is None:
            raise RunError(f"Slurm refuses the job: {said.complaint}", hint=_refusal_hint(said.error))
    except BaseException as error:
        # It may have been handed in all the same where we were cut off; its name is nobody else's.
        with contextlib.suppress(RunError):
            login.run(f"scancel --name={shlex.quote(name)}")
        files.end(name)
        if isinstance(error, Exception) and not isinstance(error, RunError):
            raise RunError(f"can't hand in the job: {error}") from error
        raise
    return SlurmExecution(login, files, name, number, progress)


class SlurmExecution:
    """See ``Execution``. ``pause`` sleeps, ``clock`` counts seconds."""

    def __init__(
        self,
        login: Login,
        files: SharedDirectory,
        name: str,
        number: str,
        progress: Progress,
        *,
        patience: float = _PATIENCE,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._files = files
        self._name = name
        self._number = number
        self._progress = progress
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._ended: JobState | None = None
        self._away_since: float | None = None
        self._told: set[str] = set()
        self._offset = 0

    @property
    def identity(self) -> str:
        return f"job {self._number}"

    def logs(self) -> Iterator[bytes]:
        """The command's output; where Slurm ended the job, a line that says so."""
        for state in self._looks():
            # The state was asked for first: what is printed before the end is seen, all of it.
            yield from self._printed()
            if state is not None and state.ended and state.words is not None:
                yield f"envbuild: {self.identity} {state.words} ({state.name})\n".encode()

    def wait(self) -> int:
        for _ in self._looks():
            pass
        assert self._ended is not None
        if self._ended.lost:
            raise RunError(f"{self.identity} {self._ended.words} ({self._ended.name})")
        return self._ended.status

    def stop(self) -> None:
        if self._ended is not None:
            return
        limit = self._clock() + _STOP_SECONDS
        said = self._login.run(f"scancel {self._number}")
        for state in self._looks():
            if state is not None and state.ended:
                return
            if self._clock() > limit:
                break
        raise RunError(
            f"{self.identity} hasn't ended {_STOP_SECONDS:.0f} s after scancel: {said.complaint}",
            hint=f"look at it by squeue --jobs={self._number}",
        )

    def bring_outputs(self, directory: Path) -> bool:
        try:
            return self._files.bring_outputs(self._name, directory)
        except OSError as error:
            raise RunError(f"the outputs of {self.identity} can't be brought: {error}") from error

    def close(self) -> None:
        """The run's directory stays where the job isn't known to have ended: it may still write there."""
        if self._ended is not None:
            self._files.end(self._name)

    # --- looking ----------------------------------------------------------------------------------------

    def _looks(self) -> Iterator[JobState | None]:
        """The state again and again until the job has ended; None: Slurm doesn't answer now."""
        pause = _FIRST_PAUSE if self._login.host is None else _PAUSE_OVER_SSH
        while True:
            state = self._ended or self._look()
            if state is not None and state.ended:
                self._ended = state
            elif state is not None and state.name == "PENDING":
                self._tell(state.reason)
            yield state
            if self._ended is not None:
                return
            self._pause(pause)
            pause = max(pause, min(pause * 1.3, _LONGEST_PAUSE))

    def _look(self) -> JobState | None:
        """Raises ``RunError`` where Slurm has forgotten the job, or is away for too long."""
        try:
            said = self._login.run(f"exec scontrol show job -o {self._number}")
            complaint = said.complaint
        except RunError as error:
            self._away(error.message)
            return None
        if said.status == 0 and (state := state_of(said.out.decode(errors="replace"))) is not None:
            self._away_since = None
            return state
        if "invalid job id" in said.error.lower():
            return self._forgotten()
        self._away(complaint)
        return None

    def _forgotten(self) -> JobState:
        """The end of a job that the controller knows no more: as it was accounted, or as its script said."""
        said = self._login.run(f"sacct -X -n -P -j {self._number} -o State,ExitCode")
        state = state_of(said.out.decode(errors="replace")) if said.status == 0 else None
        if state is not None and state.ended:
            return state
        status = self._files.status(self._name)
        if status is None:
            raise RunError(f"Slurm knows nothing of {self.identity} any more, and it left no exit status")
        return JobState(name="COMPLETED" if status == 0 else "FAILED", exit_status=status)

    def _away(self, complaint: str) -> None:
        """Raises ``RunError`` where it has been so for too long."""
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
            self._progress.note(f"Slurm doesn't answer; {self.identity} goes on: {complaint}")
        elif now - self._away_since > self._patience:
            raise RunError(
                f"Slurm hasn't answered for {self._patience:.0f} s: {complaint}",
                hint=f"{self.identity} may still run; its files are in {self._files.run(self._name)}",
            )

    def _tell(self, reason: str) -> None:
        if reason not in ("", "None", *self._told):
            self._told.add(reason)
            self._progress.note(f"{self.identity} waits {_WAITS.get(reason, '')}".rstrip() + f" ({reason})")

    def _printed(self) -> Iterator[bytes]:
        try:
            while piece := self._files.log_piece(self._name, self._offset):
                self._offset += len(piece)
                yield piece
        except RunError:
            # The way to the login node is gone for now; what is missing comes with the next look.
            if self._ended is not None:
                raise


def _refusal_hint(error: str) -> str | None:
    lower = error.lower()
    if "partition" in lower:
        return "see the partitions by sinfo; give the target another: partition=NAME"
    if "account" in lower or "qos" in lower:
        return "see what you may use by sacctmgr show associations user=$USER"
    return None
