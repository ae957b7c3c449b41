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

INTERVAL = 0.02
"""Seconds between two looks at the process tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """``seconds`` of wall-clock time; ``peak`` is the highest sum of resident bytes seen over the tree."""

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
        while not self._over.wait(INTERVAL):
            self.peak = max(self.peak, tree_rss(self._pid))

    def finish(self) -> None:
        self._over.set()
        self.join()


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and its descendants; pages they share count for each. 0 without /proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        base = Path("/proc") / str(each)
        try:
            total += int((base / "statm").read_text().split()[1]) * page
            for task in (base / "task").iterdir():
                waiting.extend(int(child) for child in (task / "children").read_text().split())
        except (OSError, ValueError, IndexError):
            # It ended while we looked.
            continue
    return total
