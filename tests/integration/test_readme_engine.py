"""What the README says to type runs as it is written: in order, in a checkout, with an empty home."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.platforms import Platform, runs_linux
from tests.documents import ROOT, Typed, commands
from tests.fakes import registry_server
from tests.fakes.registry_server import RegistryServer, needs_registry

LIMIT = 900

pytestmark = [
    pytest.mark.engine,
    pytest.mark.network,
    needs_registry(),
    pytest.mark.skipif(
        not runs_linux() or Platform.host().architecture != "amd64", reason="locked for linux/amd64"
    ),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What git has of the working tree."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            target = tmp_path / "checkout" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return tmp_path / "checkout"


def script(typed: list[Typed], output: Path) -> str:
    """One shell for all, as a person has: directories, variables and jobs stay. Ends at the first failure."""
    lines = ["set -e -m -o pipefail", "trap 'jobs -p | xargs -r kill' EXIT"]
    for number, one in enumerate(typed):
        lines += [f"echo {number} >'{output}/reached'", "{", one.command, f"}} >'{output}/{number}'"]
    return "\n".join(lines)


def run(typed: list[Typed], checkout: Path, env: dict[str, str], output: Path) -> tuple[Typed, int, str]:
    """The last command that was begun, the status and what was said."""
    output.mkdir()
    process = subprocess.Popen(
        ["bash", "-c", script(typed, output)],
        cwd=checkout,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return typed[int((output / "reached").read_text())], process.returncode, said


def test_the_readme_runs_as_it_is_written(checkout: Path, server: RegistryServer, tmp_path: Path) -> None:
    typed = [one for one in commands(checkout / "README.md") if one.runs]
    output, home = tmp_path / "output", tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENVBUILD_", "XDG_"))}
    env = {
        **kept,
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:{os.environ['PATH']}:{Path(sys.executable).parent}",
        "REGISTRY": server.host,
    }
    last, status, said = run(typed, checkout, env, output)
    if status != 0 and "--upgrade-package" in said:
        # A pinned Debian package has left its mirror since, which happens to every lock in time.
        for name in ("sklearn", "train-and-serve/environment.yaml"):
            subprocess.run(
                ["envbuild", "lock", "--upgrade", f"examples/{name}"], cwd=checkout, env=env, check=True
            )
        output = tmp_path / "again"
        last, status, said = run(typed, checkout, env, output)
    assert status == 0, f"{last.command}\n{said[-4000:]}"
    for number, one in enumerate(typed):
        printed = (output / str(number)).read_text()
        pattern = ".*".join(map(re.escape, one.printed.split("…")))
        assert not one.printed or re.fullmatch(pattern, printed), f"{one.command}{printed}"
