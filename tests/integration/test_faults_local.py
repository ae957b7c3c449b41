"""Wheels that lie beside the spec: pinned by a relative path, found again wherever the project is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo, entries


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = a_world(tmp_path).machine
    wheel = Wheel(name="local")
    place = machine.project / "wheels" / wheel.file
    place.parent.mkdir()
    place.write_bytes(wheel.data())
    machine.write("requirements.in", f"./wheels/{wheel.file}\n")
    machine.write("envbuild.yaml", demo(more="requirements: requirements.in\n"))
    assert machine.run("lock", "--no-bytecode").status == 0
    return machine


def test_a_local_wheel_is_locked_without_a_path_of_this_machine(machine: Machine) -> None:
    for path in machine.lock.iterdir():
        assert str(machine.root) not in path.read_text(), path


def test_a_local_wheel_is_found_after_the_project_has_moved(machine: Machine) -> None:
    digest = machine.run("build").digest
    moved = machine.root / "moved"
    shutil.move(machine.project, moved)
    fresh = {"ENVBUILD_CACHE_DIR": str(machine.root / "new"), "UV_CACHE_DIR": str(machine.root / "newuv")}
    assert machine.run("build", "--locked", "-o", "oci:image", env=fresh, cwd=moved).digest == digest
    assert "opt/env/lib/python3.13/site-packages/local.py" in entries(moved / "image")


def test_a_local_wheel_that_was_replaced_is_refused(machine: Machine) -> None:
    (wheel,) = (machine.project / "wheels").iterdir()
    wheel.write_bytes(Wheel(name="local", files={"local.py": b"other"}).data())
    machine.run("build", "--frozen").failed(6, wheel.name, "another file than the one that was locked")
