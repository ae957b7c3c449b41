"""Locks of other tools through the command line: what they pin is what is locked, whatever is newer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.channel import Package, index_channel, make_channel, make_package, small_packages
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, World, a_world, conda

PYTHON = tuple(
    Package(name="python", version="3.12.4", build="h0_0", subdir=subdir)
    for subdir in ("linux-64", "linux-aarch64")
)
SPEC = (
    "name: demo\nplatforms: [linux/amd64, linux/arm64]\nbase: {debian: trixie}\nrequirements: [app, fast]\n"
)
NEW = Wheel(name="lib", version="9.0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    wheels = [
        Wheel(name="app", requires=["lib"]),
        Wheel(name="lib", version="1.0"),
        Wheel(name="fast", tag="cp312-cp312-manylinux_2_17_x86_64"),
        Wheel(name="fast", tag="cp312-cp312-manylinux_2_17_aarch64"),
    ]
    made = a_world(tmp_path_factory.mktemp("world"), wheels)
    made.archive.clear()
    made.archive.architectures = ("amd64", "arm64")
    made.archive.add_base()
    made.archive.write()
    return made


@pytest.fixture
def channel(tmp_path: Path) -> str:
    return make_channel(tmp_path / "channel", python=False, packages=PYTHON)


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Machine:
    return Machine(root=tmp_path / "machine", env=dict(world.machine.env))


@pytest.fixture
def locked(machine: Machine, channel: str) -> Path:
    """The directory of a lock that envbuild made."""
    machine.write("envbuild.yaml", SPEC + conda(channel, "python", "tool", "libtool"))
    done = machine.run("lock", "--no-bytecode")
    assert done.status == 0, done.stderr
    return machine.lock


def pins(directory: Path, *, via: bool = True) -> dict[str, Any]:
    found = {}
    for platform, record in json.loads((directory / "envbuild.lock").read_text())["platforms"].items():
        pip = [{key: value for key, value in each.items() if via or key != "via"} for each in record["pip"]]
        found[platform] = (record["conda"], pip)
    return found


def test_our_own_conda_lock_file_is_locked_to_the_same_pins(
    world: World, machine: Machine, locked: Path, channel: str, tmp_path: Path
) -> None:
    other = Machine(root=tmp_path / "other", env=dict(world.machine.env))
    for path in locked.iterdir():
        if path.name != "envbuild.lock":
            shutil.copy(path, other.project / path.name)
    world.index.add(NEW)
    directory = Path(channel.removeprefix("file://"))
    newer = Package(name="libtool", version="8.0")
    make_package(newer, directory)
    index_channel(directory, [*small_packages(), *PYTHON, newer])
    done = other.run("lock", ".", "--no-bytecode")
    shutil.rmtree(world.index.simple / "lib")
    world.index.add(Wheel(name="lib", version="1.0"))
    assert done.status == 0, done.stderr
    lock = other.project / "lockfiles" / "project"
    assert pins(lock, via=False) == pins(locked, via=False)
    assert (lock / "conda-lock.yml").read_bytes() == (locked / "conda-lock.yml").read_bytes()
    assert other.run("lock", ".", "--check").status == 0
    upgraded = other.run("lock", ".", "--upgrade", "--no-bytecode")
    assert upgraded.status == 0, upgraded.stderr
    for kind in ("conda packages", "Python distributions"):
        said = f"conda-lock.yml: its {kind} are pinned there and stay; upgrade that file, then lock again"
        assert said in upgraded.stderr
    assert pins(lock, via=False) == pins(locked, via=False)
    shutil.rmtree(directory)
    again = other.run("lock", ".", "--offline", "--no-bytecode")
    assert again.status == 0, again.stderr


def test_an_explicit_list_and_hashed_requirements_are_locked_as_they_are(
    world: World, locked: Path, tmp_path: Path
) -> None:
    conda_pins, pip_pins = pins(locked)["linux/arm64"]
    other = Machine(root=tmp_path / "other", env=dict(world.machine.env))
    lines = [
        "# platform: linux-aarch64",
        "@EXPLICIT",
        *(f"{pin['url']}#{pin['md5']}" for pin in conda_pins),
    ]
    other.write("list.txt", "\n".join(lines) + "\n")
    done = other.run("lock", "list.txt", "--no-bytecode")
    assert done.status == 0, done.stderr
    found = json.loads((other.project / "lockfiles" / "list" / "envbuild.lock").read_text())
    assert list(found["platforms"]) == ["linux/arm64"]
    assert found["platforms"]["linux/arm64"]["conda"] == conda_pins
    # The list of one platform, without the dependency of app.
    app = [pin for pin in pip_pins if pin["name"] == "app"]
    other.write("requirements.txt", f"app==1.0 --hash=sha256:{app[0]['sha256']}\n")
    done = other.run("lock", "requirements.txt", "--no-bytecode")
    assert done.status == 0, done.stderr
    lock = json.loads((other.project / "lockfiles" / "project" / "envbuild.lock").read_text())
    assert [each["name"] for each in lock["platforms"]["linux/amd64"]["pip"]] == ["app"]


def test_a_hash_that_no_file_has_is_an_error(world: World, tmp_path: Path) -> None:
    other = Machine(root=tmp_path / "other", env=dict(world.machine.env))
    other.write("requirements.txt", f"app==1.0 --hash=sha256:{'0' * 64}\n")
    other.run("lock", "requirements.txt").failed(4, "app 1.0: none of its files has a hash of the spec")
