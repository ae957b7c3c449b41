"""Runs one command and says how long it took and how much memory its process tree held at most."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two looks at the process tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """``seconds`` of wall-clock time; ``peak`` is the most memory the process tree was seen to hold."""

    seconds: float
    peak: int
    stdout: str
    stderr: str


class CommandFailed(Exception):
    """A measured command ended with an error; holds the end of what it wrote."""


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment with ``added``; the modules' byte code may be read and written."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}, **(added or {})}


def measure(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Measurement:
    """Runs ``command`` to its end. ``env`` is added to this process's. Raises ``CommandFailed``."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        with subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=_environment(env),
            cwd=cwd,
        ) as process:
            watch = _Watch(process.pid)
            watch.start()
            status = process.wait()
            seconds = time.perf_counter() - started
            watch.finish()
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if status:
        tail = "\n".join((stderr or stdout).splitlines()[-20:])
        raise CommandFailed(f"{' '.join(command)} ended with {status}:\n{tail}")
    return Measurement(seconds=seconds, peak=watch.peak, stdout=stdout, stderr=stderr)


class _Watch(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.peak = 0

    def run(self) -> None:
        before = 0
        while not self._over.wait(INTERVAL):
            # The lower of two looks in a row: between vfork and exec a child is seen with all of its
            # parent's memory, which is the very same memory.
            now = tree_memory(self._pid)
            self.peak = max(self.peak, min(before, now))
            before = now

    def finish(self) -> None:
        self._over.set()
        self.join()


def tree_memory(pid: int) -> int:
    """Bytes that a process and its descendants hold in memory; a page that several share counts once.

    That is the kernel's proportional set size. 0 without ``/proc``.
    """
    total, waiting = 0, [pid]
    while waiting:
        base = Path("/proc") / str(waiting.pop())
        try:
            rollup = (base / "smaps_rollup").read_text()
            total += (
                sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
            )
            for task in (base / "task").iterdir():
                waiting.extend(int(child) for child in (task / "children").read_text().split())
        except (OSError, ValueError, IndexError):
            # It ended while we looked.
            continue
    return total
