"""``rebase`` as people run it: new base layers below the very same software."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envbuild.images.sinks.layout import LayoutSink
from envbuild.oci.image import ImageSet
from envbuild.platforms import LINUX_AMD64
from envbuild.progress import Silent
from envbuild.store.content import Store
from tests.fakes.archive import Archive, Deb
from tests.fakes.channel import make_channel
from tests.fakes.image import Item, directory, put_image, put_layer, symlink
from tests.fakes.registry_server import needs_registry, serve
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, World, a_world, conda, demo


def debs(version: str) -> list[Deb]:
    return [Deb(name="tool", version=version, files=[("./usr/bin/tool", f"#!{version}".encode())])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A machine that has built an image into the layout ``image``; then the archive got a newer ``tool``."""
    return make_world(tmp_path_factory.mktemp("world"))


def make_world(root: Path) -> World:
    wheels = [
        Wheel(name="alpha", files={"alpha/__init__.py": b"value = 1\n"}),
        Wheel(name="beta", files={"beta/data": random.Random(0).randbytes(1_000_000)}),
        Wheel(name="gamma", tag="cp313-cp313-manylinux_2_39_x86_64", files={"gamma/data": b"1"}),
    ]
    found = a_world(root, wheels, debs("1.0"))
    found.machine.write("envbuild.yaml", demo("alpha", "beta", "gamma", packages=["tool"]))
    assert found.machine.run("lock", "--no-bytecode").status == 0
    done = found.machine.run("build", "-o", "oci:image")
    assert done.status == 0, done.stderr
    newer(found.archive)
    return found


def newer(archive: Archive) -> None:
    archive.add(*debs("1.1"), suffix="-security")
    archive.write()


def elsewhere(world: World, tmp_path: Path, *, wheels: bool = False) -> Machine:
    """Another machine with an empty store, which knows the archive, and the index of wheels or none."""
    if wheels:
        return Machine(root=tmp_path / "other", env=world.machine.env)
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


@needs_registry()
def test_a_rebased_image_is_pushed_with_what_its_new_lock_says(world: World, tmp_path: Path) -> None:
    with serve(tmp_path / "registry") as server:
        repository = f"{server.host}/team/app"
        done = world.machine.run(
            "rebase", "oci:image", "--onto", "debian", "--push", f"{repository}:new", "--json"
        )
        assert done.status == 0, done.stderr
        found = json.loads(done.stdout)
        assert server.complete("team/app", "new")
        listed = json.loads(server.manifest("team/app", found["digest"].replace(":", "-")) or b"")
        (entry,) = (each for each in listed["manifests"] if "in-toto" in each["artifactType"])
        layer = json.loads(server.manifest("team/app", entry["digest"]) or b"")["layers"][0]["digest"]
        _, _, content = server.get(f"/v2/team/app/blobs/{layer}")
        verified = elsewhere(world, tmp_path, wheels=True).run("verify", f"{repository}:new")
    assert found["pushed"][0]["references"] == [f"{repository}:new@{found['digest']}"]
    assert (verified.status, found["digest"] in verified.stdout) == (0, True), verified.stderr
    materials = json.loads(content)["predicate"]["buildDefinition"]["resolvedDependencies"]
    (image,) = found["images"]
    named = {material["name"]: material["digest"]["sha256"] for material in materials}
    assert named["lock"] == image["lock_digest"].removeprefix("sha256:")
    tools = [name for name in named if name.startswith("tool_")]
    assert [name.split("_")[1] for name in tools] == ["1.1"]
    assert any(name.startswith("alpha-") for name in named)


def test_a_base_that_did_not_change_gives_the_same_image(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.machine, "own_interpreters", True)
    first = world.machine.run("rebase", "oci:image", "--onto", "debian", "-o", "oci:first")
    second = world.machine.run("rebase", "oci:first", "--onto", "debian:trixie")
    assert first.reference == second.reference


def test_a_file_of_the_base_in_the_prefix_has_all_composed_from_packages(tmp_path: Path) -> None:
    world = make_world(tmp_path)
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
    store = Store(world.machine.cache)
    image = put_image(store, [put_layer(store, [Item(name="file")])])
    done = world.machine.run("rebase", image.digest, "--onto", "debian")
    done.failed(6, "wasn't composed by envbuild")


@pytest.fixture(scope="module")
def on_an_image(world: World, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine that has built conda packages on an image into the layout ``conda``."""
    root = tmp_path_factory.mktemp("conda")
    machine = Machine(root=root, env=world.machine.env)
    url = make_channel(root / "channel", python=False)
    base(machine, "below", "2.36", [directory("usr")])
    spec = "name: demo\nplatforms: [linux/amd64]\ntype: system-managed\nimage: oci:below\n"
    machine.write("conda.yaml", spec + conda(url, "tool", "undated"))
    assert machine.run("lock", "conda.yaml").status == 0
    done = machine.run("build", "conda.yaml", "-o", "oci:conda")
    assert done.status == 0, done.stderr
    return machine


def base(machine: Machine, name: str, glibc: str, items: Sequence[Item]) -> None:
    """Writes an image with this glibc and ``items`` to the layout ``name``."""
    status = f"Package: libc6\nStatus: install ok installed\nVersion: {glibc}-1\n\n".encode()
    store = Store(machine.cache)
    layer = put_layer(store, [*items, Item(name="var/lib/dpkg/status", content=status)])
    image = put_image(store, [layer], {"Env": [f"N={name}"]}, LINUX_AMD64)
    publication = ImageSet(images=(image,), names=())
    LayoutSink(machine.project / name, store, Silent()).publish(publication)


def test_an_image_on_another_image(on_an_image: Machine) -> None:
    """With conda packages; the new base's settings and the modes of its directories count."""
    base(on_an_image, "above", "2.41", [directory("usr", 0o750)])
    base(on_an_image, "old", "2.16", [directory("usr")])
    rebased = on_an_image.run("rebase", "oci:conda", "--onto", "oci:above", "-o", "oci:new", "--json")
    assert rebased.status == 0, rebased.stderr
    found = json.loads(rebased.stdout)
    assert found["reasons"] == []
    assert found["taken"] >= 2
    verified = on_an_image.run("verify", "oci:new")
    assert verified.status == 0, verified.stdout + verified.stderr
    refused = on_an_image.run("rebase", "oci:conda", "--onto", "oci:old")
    refused.failed(6, "tool 2.0 needs glibc 2.17, and the image oci:old has 2.16")


@pytest.mark.parametrize("item", [directory("opt", 0o700), symlink("opt", "usr/opt")], ids=["mode", "link"])
def test_a_base_with_an_opt_of_its_own_has_all_composed_from_packages(
    on_an_image: Machine, item: Item, request: pytest.FixtureRequest
) -> None:
    name = f"opt-{request.node.callspec.id}"
    base(on_an_image, name, "2.41", [directory("usr"), directory("usr/opt"), item])
    rebased = on_an_image.run(
        "rebase", "oci:conda", "--onto", f"oci:{name}", "-o", f"oci:new-{name}", "--json"
    )
    assert rebased.status == 0, rebased.stderr
    assert json.loads(rebased.stdout)["taken"] == 0
    assert on_an_image.run("verify", f"oci:new-{name}").status == 0
