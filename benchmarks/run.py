"""``make bench``: measures everything in one run and writes ``benchmarks/results.md``.

Both sides get fresh caches for what is called cold, and the same lock, which this run makes first. A figure
that can't be measured here (no Docker engine, say) says so in its column.
"""

from __future__ import annotations

import argparse
import compileall
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.docker_side import BASE, BASE_SPEC, DockerSide, drop_build_cache, find_engine, rendered_build
from benchmarks.measure import Measurement, measure
from benchmarks.registry import registry_figures
from benchmarks.results import Figure, Machine, results_text
from benchmarks.workspace import workspace_figures

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "sklearn"
ENVBUILD = (sys.executable, "-m", "envbuild")
SMALL_PACKAGE = "tqdm"
"""A pure-Python package that nothing else in the example pins, so that a bound on it changes one pin."""
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One run: a scratch directory with a cache, a lock directory and a copy of the example in it."""

    scratch: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Path:
        return self.scratch / "example"

    @property
    def locks(self) -> Path:
        return self.spec / "lockfiles"

    def envbuild(self, *arguments: str) -> Measurement:
        return measure([*ENVBUILD, *arguments], env=self.env)

    def requirements(self) -> Path:
        """The lock's pip pins for this machine's platform, as pip reads them."""
        (found,) = self.locks.glob("*/requirements.linux-64.txt")
        return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--skip-pip-compile", action="store_true", help="leave out the slowest measurement")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results.md")
    options = parser.parse_args(argv)
    machine = Machine.here(find_engine())
    # As after an installation: envbuild's own modules are compiled, and the other side's are too.
    compileall.compile_dir(ROOT / "envbuild", quiet=1)
    with tempfile.TemporaryDirectory(prefix="envbuild-bench-") as name:
        figures, stages = run(Path(name), pip_compile=not options.skip_pip_compile, engine=machine.engine)
    text = results_text(machine, figures, stages)
    options.output.write_text(text)
    print(text)
    return 0


def run(scratch: Path, *, pip_compile: bool, engine: str | None) -> tuple[list[Figure], str]:
    """All figures in the order of the table, and the stages of the cold build."""
    shutil.copytree(EXAMPLE, scratch / "example", ignore=shutil.ignore_patterns("lockfiles", "outputs"))
    bench = Bench(scratch=scratch, env=_caches(scratch / "lock-caches"))
    note("lock, cold")
    lock_cold = bench.envbuild("lock", str(bench.spec))
    note("lock --upgrade, warm")
    lock_warm = bench.envbuild("lock", str(bench.spec), "--upgrade")
    compile_cold, compile_warm = _pip_compile(bench) if pip_compile else (None, None)

    bench = Bench(scratch=scratch, env=_caches(scratch / "build-caches"))
    build = ("build", str(bench.spec), "--locked", "--progress", "none", "-v")
    note("build, cold")
    cold = bench.envbuild(*build)
    note("build, warm")
    warm = [bench.envbuild(*build) for _ in range(REPEATS)]
    original = scratch / "requirements.txt"
    shutil.copyfile(bench.requirements(), original)
    _change_one(bench)
    note("build, one small package changed")
    changed = bench.envbuild(*build)
    help_time = [measure([*ENVBUILD, "--help"]) for _ in range(2 * REPEATS)]

    docker = _docker(bench, original, engine) if engine else {}
    seconds: Callable[[str], float | None] = lambda key: docker[key].seconds if key in docker else None  # noqa: E731
    figures = [
        Figure("build, cold", cold.seconds, seconds("cold"), "docker build", 0.5),
        Figure("build, one small package changed", changed.seconds, seconds("changed"), "docker build", 0.05),
        Figure("build, nothing changed", _median(warm), seconds("warm"), "docker build", limit=0.3),
        Figure("lock, cold", lock_cold.seconds, compile_cold, "pip-compile", 0.02),
        Figure("lock --upgrade, warm", lock_warm.seconds, compile_warm, "pip-compile"),
        Figure("envbuild --help", _median(help_time), limit=0.2),
        Figure("build, cold: peak memory", cold.peak / 1e6, limit=400, unit="MB"),
    ]
    if "rendered" in docker:
        figures += [
            Figure("render --offline-context, wheels in uv's cache", docker["render"].seconds),
            Figure(
                "build --engine docker of it, engine's cache empty",
                docker["engine"].seconds,
                docker["rendered"].seconds,
                "docker build of the same context",
            ),
        ]
    if "load" in docker:
        figures.insert(1, Figure("build --load after it", docker["load"].seconds))
    note("push")
    change = partial(_change_one, bench)
    figures += registry_figures(scratch, bench.envbuild, bench.spec, change, engine=bool(engine))
    note("workspace")
    figures += workspace_figures(scratch)
    return figures, _stages(cold.stderr)


def note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _caches(root: Path) -> dict[str, str]:
    """Fresh, empty caches of everything that either side may cache below."""
    return {
        "ENVBUILD_CACHE_DIR": str(root / "envbuild"),
        "UV_CACHE_DIR": str(root / "uv"),
        "PIP_CACHE_DIR": str(root / "pip"),
        "XDG_CACHE_HOME": str(root / "xdg"),
        "XDG_DATA_HOME": str(root / "data"),
    }


def _pip_compile(bench: Bench) -> tuple[float, float]:
    """Seconds of pip-compile over the same requirements: with empty caches, then again with full ones."""
    output = bench.scratch / "compiled.txt"
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--upgrade"]
    command += [
        "--strip-extras",
        "--cache-dir",
        str(bench.scratch / "pip-tools"),
        "--output-file",
        str(output),
    ]
    command.append(str(bench.spec / "requirements.in"))
    note("pip-compile, cold (minutes)")
    cold = measure(command, env=bench.env).seconds
    note("pip-compile, warm")
    return cold, measure(command, env=bench.env).seconds


def _change_one(bench: Bench) -> None:
    """Moves the one small package to the version before, and locks that."""
    pinned = next(
        line.split("==")[1].split()[0]
        for line in bench.requirements().read_text().splitlines()
        if line.startswith(f"{SMALL_PACKAGE}==")
    )
    path = bench.spec / "requirements.in"
    lines = [line for line in path.read_text().splitlines() if line.strip() != SMALL_PACKAGE]
    path.write_text("\n".join([*lines, f"{SMALL_PACKAGE}<{pinned}"]) + "\n")
    bench.envbuild("lock", str(bench.spec))


def _docker(bench: Bench, original: Path, engine: str) -> dict[str, Measurement]:
    """The same three builds by docker build; the base is composed and loaded before the clock runs."""
    note("loading the base into the engine")
    base = bench.scratch / "base.yaml"
    base.write_text(BASE_SPEC)
    bench.envbuild("build", str(base), "--load", "-t", BASE)
    side = DockerSide(bench.scratch / "context", engine)
    side.write(original)
    drop_build_cache()
    note("docker build, cold")
    found = {"cold": side.build(cache=False)}
    note("docker build, warm")
    found["warm"] = min((side.build(cache=True) for _ in range(REPEATS)), key=lambda each: each.seconds)
    side.write(bench.requirements())
    note("docker build, one small package changed")
    found["changed"] = side.build(cache=True)
    note("build --load")
    found["load"] = bench.envbuild("build", str(bench.spec), "--locked", "--load")
    return {**found, **_rendered(bench)}


def _rendered(bench: Bench) -> dict[str, Measurement]:
    """The rendered Dockerfile, built by docker build and by our engine, which also brings it to the store."""
    context = bench.scratch / "rendered"
    spec = (str(bench.spec), "--locked")
    note("render --offline-context")
    found = {"render": bench.envbuild("render", *spec, "-o", str(context), "--offline-context")}
    note("docker build of the rendered context")
    drop_build_cache()
    found["rendered"] = rendered_build(context)
    note("build --engine docker")
    drop_build_cache()
    found["engine"] = bench.envbuild("build", *spec, "--engine", "docker", "--no-cache")
    return found


def _median(runs: Sequence[Measurement]) -> float:
    return statistics.median(each.seconds for each in runs)


def _stages(stderr: str) -> str:
    """The table of stages that ``-v`` printed."""
    lines = stderr.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("stage ")), None)
    if start is None:
        return ""
    end = next(number for number, line in enumerate(lines) if number > start and line.startswith("total "))
    return "\n".join(lines[start : end + 1])


if __name__ == "__main__":
    sys.exit(main())
