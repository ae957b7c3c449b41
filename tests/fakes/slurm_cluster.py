"""A cluster of Slurm on this machine: a controller and one node, real ones, with ports and keys of their own.

It needs Debian's ``slurmctld``, ``slurmd``, ``slurm-client`` and ``munge``, and root. All of it is in one
short directory (the paths of sockets are bounded) and ends with this process.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

START_SECONDS = 30.0
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "setpriv")


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    if os.geteuid() != 0:
        return "a cluster of Slurm needs root"
    gone = [each for each in _COMMANDS if shutil.which(each, path=_PATH) is None]
    return f"not installed: {', '.join(gone)} (scripts/system.sh)" if gone else None


class SlurmCluster:
    """Partitions ``main``, the default, and ``closed``, which is down. Both have the one node."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.directory.chmod(0o755)
        self.config = self.directory / "slurm.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead Slurm's commands here."""
        return {"SLURM_CONF": str(self.config), "PATH": _PATH}

    def command(self, *words: str) -> str:
        """What a command of Slurm prints; fails the test where it fails."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.env},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def start(self) -> None:
        """Returns when the node takes jobs."""
        (self.directory / "state").mkdir()
        (self.directory / "node").mkdir()
        key = self.directory / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self.config.write_text(self._configuration())
        munge = [f"--{each}={self.directory}/munge.{each}" for each in ("socket", "pid-file", "log-file")]
        munge += [f"--key-file={key}", f"--seed-file={self.directory}/munge.seed"]
        self._start("munged", ["munged", "--foreground", *munge])
        self._until(lambda: (self.directory / "munge.socket").is_socket(), "munged")
        self.start_controller()
        self._start("slurmd", ["slurmd", "-D", "-N", "node1", "-f", str(self.config)])
        self._until(lambda: self._node_state() == "idle", "the node")

    def start_controller(self) -> None:
        """Also after its end: its jobs are known to it again."""
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(self.config)])

    def settle(self) -> None:
        """Returns when the controller knows the node: one that was started again learns it after seconds."""
        self._until(
            lambda: "Arch=" in self.command("scontrol", "show", "node", "-o"), "the node's architecture"
        )

    def stop_controller(self) -> None:
        """It writes down its jobs first: killed, it would not know those of the last seconds any more."""
        _end(self._processes.pop("slurmctld"))

    def job(self, field: str, *selection: str) -> list[str]:
        """A field of ``squeue -o`` of all jobs that haven't ended, or of those selected."""
        return self.command("squeue", "-h", "-o", field, *selection).split("\n")

    def stop(self) -> None:
        """Cancels all jobs, and ends everything."""
        if "slurmctld" in self._processes:
            with suppress(AssertionError, subprocess.TimeoutExpired):
                self.command("scancel", "--full", "--signal=KILL", "--user=root")
                self.command("scancel", "--user=root")
                self._until(lambda: self.command("squeue", "-h") == "", "the end of jobs", 10)
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            for name in ("munged", "slurmctld", "slurmd"):
                if name in self._processes:
                    stack.callback(_end, self._processes.pop(name))

    def __enter__(self) -> SlurmCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- parts ----------------------------------------------------------------------------------------

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.directory / f"{name}.out").open("ab") as said:
            self._processes[name] = subprocess.Popen(
                # They end with us, however that ends.
                ["setpriv", "--pdeathsig", "KILL", *command],
                env={"PATH": _PATH, "HOME": "/", "SLURM_CONF": str(self.config)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def _node_state(self) -> str:
        done = subprocess.run(
            ["sinfo", "-h", "-p", "main", "-o", "%T"],
            env={**os.environ, **self.env},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        return done.stdout.strip()

    def _until(self, done: object, what: str, seconds: float = START_SECONDS) -> None:
        assert callable(done)
        limit = time.monotonic() + seconds
        while not done():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    said = (self.directory / f"{name}.out").read_text(errors="replace")
                    raise AssertionError(f"{name} has ended:\n{said[-2000:]}")
            assert time.monotonic() < limit, f"waits for {what} for {seconds} s"
            time.sleep(0.02)

    def _configuration(self) -> str:
        here, host = self.directory, socket.gethostname().partition(".")[0]
        controller, node = _free_ports(2)
        return f"""\
ClusterName=envbuild
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={here}/munge.socket
CredType=cred/munge
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/node
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=2
MessageTimeout=5
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 Sockets=4 CoresPerSocket=1 \
ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=node1 MaxTime=INFINITE State=DOWN
"""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
