"""A job of Slurm from its start to its end, watched by asking: Slurm tells nobody on its own."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from envbuild.errors import RunError
from envbuild.progress import Progress
from envbuild.targets.polling import Absence, Pauses, Polling
from envbuild.targets.slurm.command import JobState, job_number, state_of
from envbuild.targets.slurm.files import SharedDirectory
from envbuild.targets.slurm.script import SCRIPT

POLLING = Polling(pauses=Pauses(0.2, 2.0), patience=600)
"""The restarts of Slurm's controller do jobs no harm."""
POLLING_OVER_SSH = replace(POLLING, pauses=Pauses(5.0, 5.0))
"""Every look is a connection of its own, unless the user's ssh shares one."""
_STOP_SECONDS = 120.0
_WAITS = {
    "Resources": "for nodes to become free",
    "Priority": "behind jobs of higher priority",
    "BadConstraints": "for something that no node has: it will never start",
    "PartitionDown": "for its partition to be up again",
    "PartitionTimeLimit": "as its time is more than the partition allows",
    "PartitionNodeLimit": "as it asks for more than the partition allows",
}


def submit_job(files: SharedDirectory, name: str, script: str, progress: Progress) -> SlurmExecution:
    """Hands the job in. The run's directory is there then, or nothing of it. Raises ``RunError``."""
    files.create_run(name, script)
    login = files.login
    run = shlex.quote(files.run(name))
    try:
        answer = login.run(f"cd {run} && exec sbatch --parsable {SCRIPT}")
        number = job_number(answer.out.decode(errors="replace")) if answer.status == 0 else None
        if number is None:
            raise RunError(f"Slurm refuses the job: {answer.complaint}", hint=_refusal_hint(answer.error))
    except BaseException as error:
        # It may have been handed in all the same where we were cut off; its name is nobody else's.
        with contextlib.suppress(RunError):
            login.run(f"scancel --name={shlex.quote(name)}")
        files.remove_run(name)
        if isinstance(error, Exception) and not isinstance(error, RunError):
            raise RunError(f"can't hand in the job: {error}") from error
        raise
    polling = POLLING if login.host is None else POLLING_OVER_SSH
    return SlurmExecution(files, name, number, progress, polling)


class SlurmExecution:
    """See ``Execution``. Slurm is asked by the login of ``files``."""

    def __init__(
        self,
        files: SharedDirectory,
        name: str,
        number: str,
        progress: Progress,
        polling: Polling = POLLING,
    ) -> None:
        self._login = files.login
        self._files = files
        self._name = name
        self._number = number
        self._progress = progress
        self._polling = polling
        self._ended: JobState | None = None
        self._absence = Absence(polling.clock)
        self._noted: set[str] = set()
        self._offset = 0

    @property
    def identity(self) -> str:
        return f"job {self._number}"

    def logs(self) -> Iterator[bytes]:
        """The command's output; where Slurm ended the job, a line that says so."""
        for state in self._polling.states(self._look):
            # The state was asked for first: what is printed before the end is seen, all of it.
            yield from self._read_log()
            if state is not None and state.ended:
                if state.words is not None:
                    yield f"envbuild: {self.identity} {state.words} ({state.name})\n".encode()
                return

    def wait(self) -> int:
        state = self._polling.until(self._end)
        assert state is not None, "it is waited for"
        if state.lost:
            raise RunError(f"{self.identity} {state.words} ({state.name})")
        return state.status

    def stop(self) -> None:
        if self._ended is not None:
            return
        answer = self._login.run(f"scancel {self._number}")
        if self._polling.until(self._end, _STOP_SECONDS) is None:
            raise RunError(
                f"{self.identity} hasn't ended {_STOP_SECONDS:.0f} s after scancel: {answer.complaint}",
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
            self._files.remove_run(self._name)

    # --- looking ----------------------------------------------------------------------------------------

    def _end(self) -> JobState | None:
        state = self._look()
        return state if state is not None and state.ended else None

    def _look(self) -> JobState | None:
        """The state; None: Slurm doesn't answer now. Raises ``RunError`` where it has forgotten the job, or
        is away for too long."""
        state = self._ended or self._ask()
        if state is not None and state.ended:
            self._ended = state
        elif state is not None and state.name == "PENDING":
            self._note_reason(state.reason)
        return state

    def _ask(self) -> JobState | None:
        try:
            answer = self._login.run(f"exec scontrol show job -o {self._number}")
        except RunError as error:
            self._missed(error.message)
            return None
        if answer.status == 0 and (state := state_of(answer.out.decode(errors="replace"))) is not None:
            self._absence.end()
            return state
        if "invalid job id" in answer.error.lower():
            return self._ask_accounting()
        self._missed(answer.complaint)
        return None

    def _ask_accounting(self) -> JobState:
        """The end of a job that the controller knows no more: as it was accounted, or as its script said."""
        answer = self._login.run(f"sacct -X -n -P -j {self._number} -o State,ExitCode")
        state = state_of(answer.out.decode(errors="replace")) if answer.status == 0 else None
        if state is not None and state.ended:
            return state
        status = self._files.status(self._name)
        if status is None:
            raise RunError(f"Slurm knows nothing of {self.identity} any more, and it left no exit status")
        return JobState(name="COMPLETED" if status == 0 else "FAILED", exit_status=status)

    def _missed(self, complaint: str) -> None:
        away = self._absence.seconds()
        if away == 0:
            self._progress.note(f"Slurm doesn't answer; {self.identity} goes on: {complaint}")
        elif away > self._polling.patience:
            raise RunError(
                f"Slurm hasn't answered for {self._polling.patience:.0f} s: {complaint}",
                hint=f"{self.identity} may still run; its files are in {self._files.run(self._name)}",
            )

    def _note_reason(self, reason: str) -> None:
        if reason not in ("", "None", *self._noted):
            self._noted.add(reason)
            self._progress.note(f"{self.identity} waits {_WAITS.get(reason, '')}".rstrip() + f" ({reason})")

    def _read_log(self) -> Iterator[bytes]:
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
