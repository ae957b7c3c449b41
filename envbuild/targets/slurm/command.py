"""Slurm's commands, here or on a login node, and what they answer."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import RunError

_SECONDS = 120.0
"""How long a command may take that moves no image: controllers under load are slow."""
_STATE = re.compile(r"(?:^|\s)JobState=([A-Z_]+) Reason=(\S*)")
_EXIT = re.compile(r"(?:^|\s)ExitCode=([0-9]{1,3}):([0-9]{1,3})(?:\s|$)")
_ACCOUNTED = re.compile(r"([A-Z_]+)[^|\n]*\|([0-9]{1,3}):([0-9]{1,3})")
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}
_STATUS = {"CANCELLED": 143, "PREEMPTED": 143, "TIMEOUT": 124, "DEADLINE": 124, "OUT_OF_MEMORY": 137}
_WORDS = {
    "CANCELLED": "was cancelled",
    "PREEMPTED": "made way for another job",
    "TIMEOUT": "took longer than its time limit",
    "DEADLINE": "missed its deadline",
    "OUT_OF_MEMORY": "took more memory than it was given",
    "NODE_FAIL": "is gone: its node failed",
    "BOOT_FAIL": "is gone: its node didn't start",
    "REVOKED": "is gone: another cluster took it",
}
_LOST = ("NODE_FAIL", "BOOT_FAIL", "REVOKED")


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """What a command answered."""

    status: int
    out: bytes
    error: str

    @property
    def complaint(self) -> str:
        """The last line of what it said about its failure."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        return lines[-1][:500] if lines else f"exit status {self.status}"


class SlurmLogin:
    """The machine that has Slurm's commands: this one, or ``host`` over ssh."""

    def __init__(self, environ: Mapping[str, str], host: str | None) -> None:
        self.host = host
        # Variables of sbatch go before the lines of a script: they would change the job.
        self._environ = {name: value for name, value in environ.items() if not name.startswith("SBATCH_")}

    def words(self, script: str) -> list[str]:
        """The command that runs ``script`` by a shell there."""
        if self.host is None:
            return ["sh", "-c", script]
        # BatchMode: a password can't be asked for while a display is on the screen.
        return ["ssh", "-T", "-o", "BatchMode=yes", "--", self.host, f"sh -c {shlex.quote(script)}"]

    def run(self, script: str, *, data: bytes = b"", seconds: float = _SECONDS) -> CommandResult:
        """What the shell script said. Raises ``RunError`` where it couldn't be run, or takes too long."""
        try:
            done = subprocess.run(
                self.words(script),
                input=data,
                capture_output=True,
                env=self._environ,
                timeout=seconds,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{self.place} doesn't answer within {seconds:.0f} s") from error
        except OSError as error:
            raise RunError(f"can't start {self.words('')[0]}: {error.strerror}") from error
        result = CommandResult(
            status=done.returncode, out=done.stdout, error=done.stderr.decode(errors="replace")
        )
        if self.host is not None and result.status == 255:
            raise RunError(
                f"no way to {self.host}: {result.complaint}", hint=f"try it by hand: ssh {self.host} true"
            )
        return result

    def send_directory(self, directory: Path, script: str) -> None:
        """Runs ``script`` with the tar of ``directory`` as its input. Raises ``RunError``."""
        with subprocess.Popen(
            ["tar", "-C", str(directory), "-cf", "-", "."], stdout=subprocess.PIPE, start_new_session=True
        ) as packing:
            try:
                done = subprocess.run(
                    self.words(script),
                    stdin=packing.stdout,
                    capture_output=True,
                    env=self._environ,
                    start_new_session=True,
                    check=False,
                )
            except BaseException:
                packing.kill()
                raise
        error = done.stderr.decode(errors="replace")
        result = CommandResult(status=done.returncode or packing.returncode, out=b"", error=error)
        if result.status != 0:
            raise RunError(f"can't bring the image to {self.place}: {result.complaint}")

    def fetch_to(self, script: str, file: int) -> int:
        """Runs ``script`` with its output going to the descriptor ``file``; its exit status."""
        return subprocess.run(
            self.words(script),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
            env=self._environ,
            start_new_session=True,
            check=False,
        ).returncode

    @property
    def place(self) -> str:
        """For people."""
        return self.host or os.uname().nodename


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """What Slurm says of a job."""

    name: str
    reason: str = ""
    exit_status: int = 0
    signal: int = 0

    @property
    def ended(self) -> bool:
        return self.name in _ENDED

    @property
    def words(self) -> str | None:
        """Why it ended, where it wasn't the command that did."""
        return _WORDS.get(self.name)

    @property
    def lost(self) -> bool:
        """Whether nobody knows what became of the command."""
        return self.name in _LOST

    @property
    def status(self) -> int:
        """As a shell says it; of what Slurm ended: 124 for time, 137 for memory, else 143."""
        if self.name in _STATUS:
            return _STATUS[self.name]
        if self.signal:
            return 128 + self.signal
        return self.exit_status or (0 if self.name == "COMPLETED" else 1)


def state_of(text: str) -> JobState | None:
    """The state in a line of ``scontrol show job -o`` or ``sacct -P -o State,ExitCode``; None: there is
    none."""
    if state := _STATE.search(text):
        code = _EXIT.search(text)
        return JobState(
            name=state[1],
            reason=state[2],
            exit_status=int(code[1]) if code else 0,
            signal=int(code[2]) if code else 0,
        )
    if counted := _ACCOUNTED.match(text.strip()):
        return JobState(name=counted[1], exit_status=int(counted[2]), signal=int(counted[3]))
    return None


def job_number(text: str) -> str | None:
    """The job's id in what ``sbatch --parsable`` printed."""
    # A site's own filters may print lines before it.
    lines = text.strip().splitlines()
    match = re.fullmatch(r"([0-9]{1,12})(?:;.*)?", lines[-1].strip()) if lines else None
    return match[1] if match else None
