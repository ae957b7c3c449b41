"""An environment on a base that already holds one: refused, and the user-managed one is taken as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.archive import Deb
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import World, a_world, demo


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A machine that has built ``demo`` with ``alpha`` 2.0 into the layout ``prev``."""
    root: Path = tmp_path_factory.mktemp("world")
    python = Deb(name="program", files=[("./usr/bin/python3.13", b"elf")])
    found = a_world(root, [Wheel(name="alpha", version=version) for version in ("1.0", "2.0")], [python])
    found.machine.write("envbuild.yaml", demo("alpha==2.0", packages=["program"]))
    assert found.machine.run("lock", "--no-bytecode").status == 0
    assert found.machine.run("build", "-o", "oci:prev").status == 0
    return found


def test_two_environments_are_never_mixed(world: World) -> None:
    world.machine.write("on.yaml", "name: on\nimage: oci:prev\nrequirements: [alpha==1.0]\n")
    done = world.machine.run("build", "on.yaml", "-o", "oci:on")
    done.failed(
        4,
        "the base oci:prev@sha256:",
        "already has files in /opt/env: /opt/env/bin/",
        "envbuild inspect names",
    )
    assert not (world.machine.project / "on").exists()
    assert not (world.machine.project / "lockfiles" / "on").exists()


def test_such_an_image_is_taken_as_it_is_by_a_user_managed_environment(world: World) -> None:
    world.machine.write("as-is.yaml", "name: as-is\ntype: user-managed\nimage: oci:prev\n")
    done = world.machine.run("build", "as-is.yaml")
    assert done.status == 0, done.stderr
