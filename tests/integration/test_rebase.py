"""``rebase`` as people run it: new base layers below the very same software."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.archive import Archive, Deb
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, World, a_world, demo


def debs(version: str) -> list[Deb]:
    return [Deb(name="tool", version=version, files=[("./usr/bin/tool", f"#!{version}".encode())])]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine that has built an image into the layout ``image``; then the archive got a newer ``tool``."""
    wheels = [
        Wheel(name="alpha", files={"alpha/__init__.py": b"value = 1\n"}),
        Wheel(name="beta", files={"beta/data": random.Random(0).randbytes(1_000_000)}),
        Wheel(name="gamma", tag="cp313-cp313-manylinux_2_39_x86_64", files={"gamma/data": b"1"}),
    ]
    found = a_world(tmp_path, wheels, debs("1.0"))
    found.machine.write("envbuild.yaml", demo("alpha", "beta", "gamma", packages=["tool"]))
    assert found.machine.run("lock", "--no-bytecode").status == 0
    done = found.machine.run("build", "-o", "oci:image")
    assert done.status == 0, done.stderr
    newer(found.archive)
    return found


def newer(archive: Archive) -> None:
    archive.add(*debs("1.1"), suffix="-security")
    archive.write()


def elsewhere(world: World, tmp_path: Path) -> Machine:
    """Another machine with an empty store, which knows the archive, and no index of wheels."""
    (tmp_path / "nothing").mkdir()
    env = {
        **world.machine.env,
        "UV_DEFAULT_INDEX": (tmp_path / "nothing").as_uri(),
        "UV_CACHE_DIR": str(tmp_path / "uv"),
    }
    return Machine(root=tmp_path / "other", env=env)


def manifest(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    return dict(json.loads((layout / "blobs" / "sha256" / digest).read_text()))


def test_the_software_stays_and_nothing_of_it_is_fetched(world: World, tmp_path: Path) -> None:
    """And what comes out is what composing the new lock from packages gives."""
    machine, image = elsewhere(world, tmp_path), world.machine.project / "image"
    done = machine.run("rebase", f"oci:{image}", "--onto", "debian", "-o", f"oci:{tmp_path}/new", "--json")
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(each["name"], each["before"], each["after"]) for each in found["changes"]] == [
        ("tool", "1.0", "1.1")
    ]
    assert found["reasons"] == []
    old, new = (
        [each["digest"] for each in manifest(layout)["layers"]] for layout in (image, tmp_path / "new")
    )
    assert len(old) == len(new)
    same = [a == b for a, b in zip(old, new, strict=True)]
    assert same[0] is False  # base
    assert same[-1] is False  # settings, with the lock
    assert same.count(True) >= found["taken"] >= 2
    verified = world.machine.run("verify", f"oci:{tmp_path}/new")
    assert verified.status == 0, verified.stdout + verified.stderr
    assert machine.leftovers() == []


def test_the_rebased_image_has_the_tags_that_were_asked_for(world: World) -> None:
    done = world.machine.run("rebase", "oci:image", "--onto", "debian", "-t", "team/app:patched")
    assert done.reference.startswith("team/app:patched@sha256:")
    again = world.machine.run("verify", "team/app:patched")
    assert again.status == 0, again.stdout + again.stderr
    assert done.digest in again.stdout


def test_a_base_that_did_not_change_gives_the_same_image(world: World) -> None:
    first = world.machine.run("rebase", "oci:image", "--onto", "debian", "-o", "oci:first")
    second = world.machine.run("rebase", "oci:first", "--onto", "debian:trixie")
    assert first.reference == second.reference


def test_a_file_of_the_base_in_the_prefix_has_all_composed_from_packages(world: World) -> None:
    inside = Deb(name="tool", version="1.2", files=[("./opt/env/share/tool", b"x")])
    world.archive.add(inside, suffix="-security")
    world.archive.write()
    done = world.machine.run("rebase", "oci:image", "--onto", "debian", "-o", "oci:new", "--json")
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["taken"] == 0
    assert "the base has files in /opt/env itself" in found["reasons"][0]
    assert world.machine.run("verify", "oci:new").status == 0


def test_an_image_of_others_is_refused(world: World) -> None:
    from envbuild.store.content import Store
    from tests.fakes.image import Item, put_image, put_layer

    store = Store(world.machine.cache)
    image = put_image(store, [put_layer(store, [Item(name="file")])])
    done = world.machine.run("rebase", image.digest, "--onto", "debian")
    done.failed(6, "wasn't composed by envbuild")
