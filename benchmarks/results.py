"""The table of results, and what machine they hold for."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where and when the figures were measured. Holds no path and no host name."""

    date: str
    processor: str
    cores: int
    memory: int
    load: float
    """Load average of the last minute before the run: others may have used the machine."""
    system: str
    versions: tuple[tuple[str, str], ...]
    engine: str | None

    @classmethod
    def here(cls, engine: str | None) -> Machine:
        names = ("envbuild", "uv", "pip-tools", "pip", "py-rattler", "deflate")
        return cls(
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            load=os.getloadavg()[0],
            system=f"{platform.system()} {platform.release()}",
            versions=(("python", platform.python_version()), *((name, _version(name)) for name in names)),
            engine=engine,
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: ours, theirs where it could be measured, and the target, a ratio or a limit of ours."""

    what: str
    ours: float
    theirs: float | None = None
    against: str = ""
    ratio: float | None = None
    limit: float | None = None
    unit: str = "s"

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none or the other side is missing."""
        if self.limit is not None:
            return self.ours <= self.limit
        if self.ratio is None or self.theirs is None:
            return None
        return self.ours <= self.ratio * self.theirs

    def row(self) -> tuple[str, ...]:
        theirs = "–"
        if self.against:
            theirs = f"{self.against}: " + (
                "not measured" if self.theirs is None else self._amount(self.theirs)
            )
        share = f"{self.ours / self.theirs:.3f}" if self.theirs else "–"
        target = "–"
        if self.limit is not None:
            target = f"≤ {self.limit:g} {self.unit}"
        elif self.ratio is not None:
            target = f"≤ {self.ratio:g} ×"
        verdict = {True: "met", False: "**missed**", None: "–"}[self.met]
        return self.what, self._amount(self.ours), theirs, share, target, verdict

    def _amount(self, value: float) -> str:
        return f"{value:.0f} {self.unit}" if value >= 100 else f"{value:.2f} {self.unit}"


def results_text(machine: Machine, figures: Sequence[Figure], stages: str) -> str:
    """The whole of ``results.md``."""
    head = ("what", "envbuild", "other", "ratio", "target", "")
    rows = [head, tuple("---" for _ in head), *(figure.row() for figure in figures)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions)
    engine = f"Docker {machine.engine}" if machine.engine else "no Docker engine, so its column is empty"
    return f"""# Results of `make bench`

Written by `benchmarks/run.py` on {machine.date}.

* machine: {machine.processor}, {machine.cores} cores, {machine.memory / 1e9:.1f} GB, {machine.system}; \
load average before the run {machine.load:.2f}, \
after it {os.getloadavg()[0]:.2f}
* versions: {versions}; {engine}
* what: `examples/sklearn`, one lock for both sides, byte code included on both. *Cold*: no cache on
  either side; envbuild composes the base as well, docker build finds it loaded. docker build runs
  `pip install --require-hashes` in one step.

{table}

Where the time of the cold build goes (stages inside each other or in parallel overlap):

```
{stages}
```
"""


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    if shutil.which("sysctl"):
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return platform.processor() or platform.machine()
