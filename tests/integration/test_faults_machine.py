"""Machines that are not as one would wish: full or read-only disks, no home, other locales, odd names."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.archive import Deb
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo, entries, tmpfs

pytestmark = pytest.mark.slow

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount file systems")

NAME = "名前 ünï.txt"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose spec is locked."""
    files = {f"alpha/{number}.bin": random.Random(number).randbytes(200_000) for number in range(10)}
    wheels = [Wheel(name="alpha", requires=["beta"], files={**files, f"alpha/{NAME}": b"1"})]
    debs = [Deb(name="tool", files=[(f"./usr/share/{NAME}", random.Random(0).randbytes(2_000_000))])]
    machine = a_world(tmp_path, [*wheels, Wheel(name="beta")], debs).machine
    machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    assert machine.run("lock", "--no-bytecode").status == 0
    return machine


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@needs_root
@pytest.mark.parametrize("size", ["16k", "200k", "3m", "5m", "9m"])
def test_a_full_disk_under_the_store(machine: Machine, size: str) -> None:
    small = machine.root / "small"
    with tmpfs(small, size):
        machine.run("build", env={"ENVBUILD_CACHE_DIR": str(small)}).failed(
            6, str(small) if size == "16k" else "No space left on device", "hint: ", "ENVBUILD_CACHE_DIR"
        )
        # With more room the same store does.
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        digest = machine.run("build", env={"ENVBUILD_CACHE_DIR": str(small)}).digest
        assert list((small / "scratch").iterdir()) == []
    assert machine.run("build").digest == digest


@needs_root
def test_a_full_disk_under_the_lock_keeps_the_lock_that_was_there(machine: Machine) -> None:
    small = machine.root / "small"
    with tmpfs(small, "40k"):
        shutil.copytree(machine.lock, small / "demo")
        before = {path.name: path.read_bytes() for path in (small / "demo").iterdir()}
        (small / "ballast").write_bytes(bytes(4096 * os.statvfs(small).f_bavail))
        machine.write("envbuild.yaml", demo("alpha"))
        machine.run("lock", "--lock-dir", str(small)).failed(
            5, f"can't write the lock in {small}/demo: No space left on device", "hint: ", "--lock-dir"
        )
        assert {path.name: path.read_bytes() for path in (small / "demo").iterdir()} == before


@needs_root
def test_a_full_disk_under_a_new_lock_leaves_nothing(machine: Machine) -> None:
    with tmpfs(machine.root / "small", "8k") as small:
        machine.run("lock", "--lock-dir", str(small)).failed(5, "No space left on device", "hint: ")
        assert list(small.iterdir()) == []


@needs_root
@pytest.mark.parametrize(
    "output", ["oci-archive:{}/image.tar", "docker-archive:{}/image.tar", "oci:{}/image"]
)
def test_a_full_disk_under_an_output(machine: Machine, output: str) -> None:
    with tmpfs(machine.root / "small", "1m") as small:
        machine.run("build", "-o", output.format(small)).failed(7, str(small), "No space left", "hint: ")
        assert [path for path in small.rglob("*") if "part" in path.name or path.name.startswith(".")] == []
        assert not (small / "image.tar").exists()
        assert not (small / "image" / "index.json").exists()
    assert machine.run("build").status == 0


@needs_root
def test_read_only_directories_are_named(machine: Machine) -> None:
    digest = machine.run("build").digest
    with read_only(machine.project):
        assert machine.run("build").digest == digest
        machine.run("lock", "--upgrade-package", "alpha", "--bytecode").failed(
            5, f"can't write the lock in {machine.lock}: Read-only file system", "hint: "
        )
        machine.run("build", "-o", "oci:image").failed(7, "image: Read-only file system", "hint: ")
        machine.run("build", "--metadata-file", "out.json").failed(
            7, "out.json: Read-only file system", "hint: the image itself is built"
        )
    with read_only(machine.cache):
        machine.run("build", "--no-cache").failed(
            6, str(machine.cache), "Read-only file system", "ENVBUILD_CACHE_DIR"
        )
        assert machine.run("lock", "--check").status == 0


def test_a_store_that_is_a_file(machine: Machine) -> None:
    file = machine.write("file", "")
    machine.run("build", env={"ENVBUILD_CACHE_DIR": str(file)}).failed(
        6, str(file), "hint: ", "ENVBUILD_CACHE_DIR"
    )
    assert file.read_text() == ""


def test_nothing_depends_on_home_locale_umask_or_names_of_directories(machine: Machine) -> None:
    digest = machine.run("build", "-o", "oci:image").digest
    names = entries(machine.project / "image")
    assert f"usr/share/{NAME}" in names
    assert f"opt/env/lib/python3.13/site-packages/alpha/{NAME}" in names
    odd = machine.root / "ä  中 'x'"
    shutil.copytree(machine.project, odd)
    cache: dict[str, str | None] = {"ENVBUILD_CACHE_DIR": str(odd / "câche")}
    places: list[tuple[dict[str, str | None], Path]] = [
        ({"HOME": None}, machine.project),
        (
            {"HOME": None, "ENVBUILD_CACHE_DIR": None, "XDG_CACHE_HOME": str(machine.root / "x")},
            machine.project,
        ),
        # A locale of another encoding: with these, Python takes C for what it says.
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **cache}, odd),
        ({"LC_ALL": "de_DE.ISO-8859-1", "TZ": "Asia/Tokyo", **cache}, odd),
        ({"LANG": None, "PYTHONHASHSEED": "5", **cache}, odd),
    ]
    for number, (env, cwd) in enumerate(places):
        out = f"oci:ö {number}/image"
        assert machine.run("build", "--no-cache", "-o", out, env=env, cwd=cwd).digest == digest, env
        assert entries(cwd / f"ö {number}" / "image").keys() == names.keys()


def test_a_spec_is_named_as_it_was_typed(machine: Machine) -> None:
    machine.run("build", "spéc mit 空.yaml").failed(3, "spéc mit 空.yaml: no such file")
    spec = machine.write("spéc mit 空.yaml", demo("alpha").replace("beta", "x"))
    assert machine.run("lock", "--no-bytecode", str(spec)).status == 0
