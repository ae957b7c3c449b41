"""Pushing an image to a registry on loopback: envbuild, skopeo and ``docker push``, each to an empty one."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Measurement, measure
from benchmarks.results import Figure

REPEATS = 3
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}
"""
_START_SECONDS = 20

Envbuild = Callable[..., Measurement]


def registry_figures(
    scratch: Path, envbuild: Envbuild, spec: Path, change: Callable[[], None], *, engine: bool
) -> list[Figure]:
    """The figures; none without a ``docker-registry``. ``change`` moves one small package of ``spec`` to
    another version and locks that."""
    if shutil.which("docker-registry") is None:
        return []
    build = ("build", str(spec), "--locked", "--progress", "none")
    image = envbuild(*build).stdout.strip()
    layout = scratch / "push-layout"
    envbuild(*build, "-o", f"oci:{layout}")
    plain = [
        _first(scratch, lambda where: envbuild("push", image, where, "--no-attest")) for _ in range(REPEATS)
    ]
    full = [_first(scratch, lambda where: envbuild("push", image, where)) for _ in range(REPEATS)]
    figures = [
        Figure(
            "push, first",
            _seconds(plain),
            _skopeo(scratch, layout),
            "skopeo copy",
            1.5,
        )
    ]
    if engine:
        name = "envbuild-bench-push:latest"
        envbuild(*build, "--load", "-t", name)
        figures.append(Figure("push, first", _seconds(plain), _docker(scratch, name), "docker push", 0.7))
    figures += [
        Figure("push, first: peak memory", max(each.peak for each in plain) / 1e6, limit=150, unit="MB"),
        Figure("push, first, with bill of materials and provenance", _seconds(full)),
    ]
    return figures + _again(scratch, envbuild, build, image, change)


def _again(
    scratch: Path, envbuild: Envbuild, build: Sequence[str], image: str, change: Callable[[], None]
) -> list[Figure]:
    """The same image again, and one with a small package changed, into a registry that has the first."""
    with _registry(scratch) as address:
        where = f"{address}/bench/sklearn"
        first = envbuild("push", image, where, "--no-attest")
        again = [envbuild("push", image, where, "--no-attest") for _ in range(REPEATS)]
        change()
        changed = envbuild("push", envbuild(*build).stdout.strip(), where, "--no-attest")
    return [
        Figure("push, nothing changed", _seconds(again), limit=0.3),
        Figure("push, one small package changed", changed.seconds, first.seconds, "our first push", 0.1),
    ]


def _skopeo(scratch: Path, layout: Path) -> float | None:
    if shutil.which("skopeo") is None:
        return None
    command = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}"]
    return _seconds(
        [
            _first(scratch, lambda where: measure([*command, f"docker://{where}:bench"]))
            for _ in range(REPEATS)
        ]
    )


def _docker(scratch: Path, name: str) -> float:
    def push(where: str) -> Measurement:
        subprocess.run(["docker", "tag", name, f"{where}:bench"], check=True)
        return measure(["docker", "push", "--quiet", f"{where}:bench"])

    return _seconds([_first(scratch, push) for _ in range(REPEATS)])


def _first(scratch: Path, push: Callable[[str], Measurement]) -> Measurement:
    """A push into an empty registry."""
    with _registry(scratch) as address:
        return push(f"{address}/bench/sklearn")


def _seconds(runs: Sequence[Measurement]) -> float:
    return statistics.median(run.seconds for run in runs)


@contextmanager
def _registry(scratch: Path) -> Iterator[str]:
    """A registry with empty storage: its address, while the context is open."""
    root = scratch / "registry"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = scratch / "registry.yml"
    config.write_text(_CONFIG.format(root=root, address=address))
    log = (scratch / "registry.log").open("wb")
    with log, subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log) as process:
        try:
            _await(address)
            yield address
        finally:
            process.terminate()
            process.wait(_START_SECONDS)
            shutil.rmtree(root, ignore_errors=True)


def _await(address: str) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
