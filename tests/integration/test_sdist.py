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
from tests.fakes.wheelhouse import Wheel, Wheelhouse
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


OLD_METADATA = {"PKG-INFO": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"}
"""Says nothing for certain: a resolver has to build the project to know what it depends on."""
PYPROJECT = '[build-system]\nrequires = {requires}\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def needs_old_tool(machine: Machine, *requires: str) -> None:
    """Puts a project into the machine's index whose build works with ``tool`` 1 only."""
    index = Wheelhouse(machine.root / "index")
    index.add(
        Wheel(name="tool", version="1.0", files={"tool.py": b"old = 1\n"}),
        Wheel(name="tool", version="1.5", files={"tool.py": b"old = 1\n"}),
        Wheel(name="tool", version="2.0", files={"tool.py": b"new = 1\n"}),
    )
    pyproject = PYPROJECT.format(requires=json.dumps(requires))
    made = source_dist("demo", code="import tool; tool.old", pyproject=pyproject, files=OLD_METADATA)
    index.add_file("demo", "demo-1.0.tar.gz", made)


def requires_of(machine: Machine) -> list[str]:
    return [text.partition(" ")[0] for pin in pins(machine) for text in pin["sdist"]["requires"]]


def test_what_builds_is_constrained_for_the_resolver_and_for_the_build(machine: Machine) -> None:
    needs_old_tool(machine, "tool")
    machine.write("envbuild.yaml", spec("linux/amd64"))
    failed = machine.run("lock")
    assert failed.status == 4
    assert "has no attribute 'old'" in failed.stderr
    assert "hint: where its build needs older tools, say so in the spec: build_constraints: " in failed.stderr
    assert failed.stderr.count("hint: ") == 1

    machine.write("envbuild.yaml", f"{spec('linux/amd64')}build_constraints: [tool<2]\n")
    assert machine.run("lock").status == 0
    assert requires_of(machine) == ["tool==1.5"]
    before = (machine.lock / "envbuild.lock").read_bytes()
    assert machine.run("lock").status == 0
    assert (machine.lock / "envbuild.lock").read_bytes() == before

    # What no longer fits is built anew; what still does stays.
    machine.write("envbuild.yaml", f"{spec('linux/amd64')}build_constraints: [tool<1.5]\n")
    assert machine.run("lock", "--check").status == 1
    assert machine.run("lock").status == 0
    assert requires_of(machine) == ["tool==1.0"]
    machine.write("envbuild.yaml", f"{spec('linux/amd64')}build_constraints: [tool<2]\n")
    assert machine.run("lock").status == 0
    assert requires_of(machine) == ["tool==1.0"]


def test_what_a_build_does_not_state_can_be_said_for_it(machine: Machine) -> None:
    needs_old_tool(machine)
    machine.write("envbuild.yaml", spec("linux/amd64"))
    failed = machine.run("lock")
    assert failed.status == 4
    assert "No module named 'tool'" in failed.stderr
    assert "extra_build_dependencies: {NAME: [setuptools]}" in failed.stderr
    machine.write("envbuild.yaml", f"{spec('linux/amd64')}extra_build_dependencies: {{Demo: ['tool<2']}}\n")
    assert machine.run("lock").status == 0
    assert requires_of(machine) == ["tool==1.5"]
