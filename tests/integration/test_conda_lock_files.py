"""``conda-lock.yml`` for conda-lock itself, and conda-lock as the engine that resolves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.channel import Package, make_channel
from tests.fakes.conda_executable import make_conda_executable
from tests.integration.driver import Machine, World, a_world, conda

pytestmark = pytest.mark.slow

PYTHON = Package(name="python", version="3.12.4", build="h0_0")
SPEC = "name: demo\nplatforms: [linux/amd64, linux/arm64]\nbase: {debian: trixie}\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = a_world(tmp_path_factory.mktemp("world"))
    made.archive.clear()
    made.archive.architectures = ("amd64", "arm64")
    made.archive.add_base()
    made.archive.write()
    return made


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_channel(tmp_path_factory.mktemp("channel"), python=False, packages=(PYTHON,))


def a_machine(world: World, root: Path) -> Machine:
    return Machine(root=root, env={**world.machine.env, "ENVBUILD_CACHE_DIR": str(world.machine.cache)})


def lock(machine: Machine, channel: str, *arguments: str) -> None:
    machine.write("envbuild.yaml", SPEC + conda(channel, "tool", "libtool"))
    done = machine.run("lock", "--no-bytecode", *arguments)
    assert done.status == 0, done.stderr


def test_conda_lock_renders_explicit_lists_of_our_pins(world: World, channel: str, tmp_path: Path) -> None:
    machine = a_machine(world, tmp_path)
    lock(machine, channel)
    command = [sys.executable, "-m", "conda_lock", "render", "-k", "explicit", "conda-lock.yml"]
    done = subprocess.run(
        command, cwd=machine.lock, env=machine.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for subdir in ("linux-64", "linux-aarch64"):
        lines = (machine.lock / f"conda-{subdir}.lock").read_text().splitlines()
        start = lines.index("@EXPLICIT") + 1
        found = {line.partition("#")[0] for line in lines[start:]}
        extension = "tar.bz2" if subdir == "linux-64" else "conda"
        assert found == {
            f"{channel}/{subdir}/libtool-1.5-0.{extension}",
            f"{channel}/{subdir}/tool-2.0-0.conda",
        }
        assert all(len(line.partition("#")[2]) == 32 for line in lines[start:]), "each with its MD5"


@pytest.mark.parametrize("name", ["micromamba", "conda"])
def test_conda_lock_as_the_engine_gives_the_same_lock(
    world: World, channel: str, tmp_path: Path, name: str
) -> None:
    ours = a_machine(world, tmp_path / "rattler")
    lock(ours, channel)
    theirs = a_machine(world, tmp_path / "conda-lock")
    executable = make_conda_executable(tmp_path, name)
    theirs.env["PATH"] = f"{tmp_path}:{ours.environment()['PATH']}"
    lock(theirs, channel, "--conda-engine", "conda-lock")
    assert "create" in executable.with_name(f"{name}.log").read_text(), "the user's own conda has solved it"
    assert (theirs.lock / "conda-lock.yml").read_bytes() == (ours.lock / "conda-lock.yml").read_bytes()
    digests = [each.run("build", "--locked").digest for each in (ours, theirs)]
    assert digests[0] == digests[1]


def test_the_engine_says_what_it_needs(world: World, channel: str, tmp_path: Path) -> None:
    machine = a_machine(world, tmp_path)
    machine.write("envbuild.yaml", SPEC + conda(channel, "tool"))
    empty = tmp_path / "bin"
    empty.mkdir()
    for tool in ("sh", "env"):
        (empty / tool).symlink_to(str(shutil.which(tool)))
    machine.run("lock", "--conda-engine", "conda-lock", env={"PATH": str(empty)}).failed(
        4, "conda-lock needs conda, mamba or micromamba", "--conda-engine rattler"
    )
    assert not machine.lock.exists()


def test_one_archive_from_two_channels_is_two_images(world: World, channel: str, tmp_path: Path) -> None:
    """The records in conda-meta name the channel, so a shared cache must not mix the two."""
    copy = tmp_path / "mirror"
    shutil.copytree(channel.removeprefix("file://"), copy)
    digests = []
    for url, name in ((channel, "one"), (copy.as_uri(), "two")):
        machine = a_machine(world, tmp_path / name)
        lock(machine, url)
        digests.append(machine.run("build", "--locked").digest)
    assert digests[0] != digests[1]
