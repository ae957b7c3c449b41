"""A conda package with a post-link script ends a build by name before anything of it is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fakes.channel import File, Package, make_channel, serve
from tests.integration.driver import a_world, conda, demo


def test_a_post_link_script_is_refused_before_any_download(tmp_path: Path) -> None:
    world = a_world(tmp_path / "world")
    large = Package(name="large", files=(File(path="lib/large", content=os.urandom(1 << 20)),))
    make_channel(tmp_path / "channel", python=False, packages=(large,))
    machine = world.machine
    with serve(tmp_path / "channel") as (url, requests):
        machine.write("envbuild.yaml", demo(more=conda(url, "large", "scripted", "tool")))
        assert machine.run("lock", "--no-bytecode").status == 0
        requests.clear()
        before = sorted((machine.cache / "artifacts").glob("*"))
        machine.run("build", "--locked").failed(
            6, "conda package scripted 1.0 can't be composed: it runs a post-link script", "hint: "
        )
        assert [request for request in requests if " bytes=" not in request] == []
        assert any(request.startswith("/linux-64/scripted-1.0-0.conda bytes=") for request in requests)
    assert sorted((machine.cache / "artifacts").glob("*")) == before
    assert machine.leftovers() == []


def test_a_channel_on_disk_is_read_there(tmp_path: Path) -> None:
    world = a_world(tmp_path / "world")
    url = make_channel(tmp_path / "channel", python=False)
    machine = world.machine
    machine.write("envbuild.yaml", demo(more=conda(url, "scripted", "tool")))
    assert machine.run("lock", "--no-bytecode").status == 0
    machine.run("build", "--locked").failed(6, "conda package scripted 1.0 can't be composed")
