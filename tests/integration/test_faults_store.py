"""A store that a bad disk changed: found and made anew, or told; never a wrong image."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.fakes.archive import Deb
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo, entries


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """A machine with an image in its store, and the image's digest."""
    root = tmp_path_factory.mktemp("built")
    data = random.Random(0).randbytes(50_000)
    world = a_world(
        root,
        [Wheel(name="alpha", files={"alpha/data": data})],
        [Deb(name="tool", files=[("./usr/share/tool", data)])],
    )
    world.machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    assert world.machine.run("lock", "--no-bytecode").status == 0
    digest = world.machine.run("build").digest
    shutil.copytree(world.machine.cache, root / "sound")
    return world.machine, digest


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    elif how == "cut":
        del data[len(data) // 2 :]
    else:
        data.clear()
    path.write_bytes(data)


def spoil(machine: Machine, area: str, how: str) -> None:
    """Puts the sound store back and damages every file of an area."""
    shutil.rmtree(machine.cache)
    shutil.copytree(machine.root / "sound", machine.cache)
    shutil.rmtree(machine.project / "image", ignore_errors=True)
    files = [path for path in (machine.cache / area).rglob("*") if path.is_file()]
    assert files
    for path in files:
        damage(path, how)


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
@pytest.mark.parametrize("area", ["blobs", "segments", "layers", "images", "artifacts", "metadata"])
def test_what_is_damaged_is_made_anew(built: tuple[Machine, str], area: str, how: str) -> None:
    """Where nothing but the damaged area says that the image is already there."""
    machine, digest = built
    spoil(machine, area, how)
    for other in {"images", "layers"} - {area}:
        shutil.rmtree(machine.cache / other)
    if area in ("artifacts", "metadata"):
        shutil.rmtree(machine.cache / "segments")
        shutil.rmtree(machine.cache / "blobs")
    assert machine.run("build", "-o", "oci:image").digest == digest
    assert "usr/share/tool" in entries(machine.project / "image")


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_image_is_never_handed_out(built: tuple[Machine, str], how: str) -> None:
    machine, digest = built
    spoil(machine, "blobs", how)
    for _ in range(8):
        done = machine.run("build", "-o", "oci:image", "-o", "docker-archive:image.tar")
        if done.status == 0:
            break
        done.failed(7, "was damaged and is removed", "hint: run the build again")
        assert not (machine.project / "image" / "index.json").exists()
    assert done.digest == digest
    assert "usr/share/tool" in entries(machine.project / "image")
    done = machine.run("build", "--no-cache")
    assert done.digest == digest
