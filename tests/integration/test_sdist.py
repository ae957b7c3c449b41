"""An sdist through the command line: locked as a wheel, kept, composed, and built again elsewhere."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from envbuild.lock.debian.mirror import known_mirror
from envbuild.settings import Settings
from tests.fakes.sdist import namespaces, source_dist
from tests.fakes.wheelhouse import Wheelhouse
from tests.integration.driver import LIMIT, Machine, ended, group, kill_group

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(
        known_mirror(Settings(cache_dir=Path("/nonexistent"))) is None,
        reason="this machine knows no Debian archive",
    ),
    pytest.mark.skipif(not namespaces(), reason="user namespaces are forbidden on this machine"),
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    index = Wheelhouse(tmp_path / "index")
    index.add_file("demo", "demo-1.0.tar.gz", source_dist("demo"))
    return Machine(root=tmp_path, env={"UV_DEFAULT_INDEX": index.url})


def spec(*platforms: str) -> str:
    return f"name: demo\nplatforms: {json.dumps(platforms)}\nbase: {{debian: trixie}}\nrequirements: [demo]\n"


def pins(machine: Machine) -> list[dict[str, Any]]:
    lock = json.loads((machine.lock / "envbuild.lock").read_text())
    return [pin for platform in lock["platforms"].values() for pin in platform["pip"]]


def test_a_wheel_is_locked_kept_composed_and_built_again_elsewhere(machine: Machine) -> None:
    machine.own_interpreters = True
    machine.write("envbuild.yaml", spec("linux/amd64", "linux/arm64"))
    assert machine.run("lock").status == 0
    first, second = pins(machine)
    assert first == second
    assert first["file"] == "demo-1.0-py3-none-any.whl"
    assert first["sdist"]["file"] == "demo-1.0.tar.gz"
    text = (machine.lock / "requirements.linux-64.txt").read_text()
    assert text.count("--hash=sha256:") == 2
    before = {path.name: path.read_bytes() for path in machine.lock.iterdir()}
    assert machine.run("lock", "--check").status == 0
    assert machine.run("lock", "--offline").status == 0
    assert {path.name: path.read_bytes() for path in machine.lock.iterdir()} == before
    built = machine.run("build", "--locked", "--platform", "linux/amd64").reference
    elsewhere = machine.run(
        "build",
        "--locked",
        "--platform",
        "linux/amd64",
        env={"ENVBUILD_CACHE_DIR": str(machine.root / "elsewhere")},
    )
    assert elsewhere.reference == built
    said = machine.run("run", "--", "python", "-c", "import demo; print(demo.value)")
    assert (said.status, said.stdout) == (0, "1\n")
    assert machine.leftovers() == []


def test_a_lock_for_another_architecture_is_built_by_its_toolchain(machine: Machine) -> None:
    machine.write("envbuild.yaml", spec("linux/arm64"))
    assert machine.run("lock", "--no-bytecode").status == 0
    assert [pin["file"] for pin in pins(machine)] == ["demo-1.0-py3-none-any.whl"]
    elsewhere = machine.run("build", "--locked", env={"ENVBUILD_CACHE_DIR": str(machine.root / "elsewhere")})
    assert elsewhere.digest.startswith("sha256:")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_process_and_no_file(machine: Machine, number: signal.Signals) -> None:
    index = Wheelhouse(machine.root / "index")
    index.add_file("demo", "demo-1.0.tar.gz", source_dist("demo", code="exec('while True: pass')"))
    machine.write("envbuild.yaml", spec("linux/amd64"))
    process = machine.start("lock")
    deadline = time.monotonic() + LIMIT
    try:
        while not any("/sandbox/launcher.py" in command for command in group(process.pid)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
    except BaseException:
        kill_group(process)
        process.communicate()
        raise
    ended(process).failed(128 + number)
    while group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not machine.lock.exists()
    assert machine.leftovers() == []
