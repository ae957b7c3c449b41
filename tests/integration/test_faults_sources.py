"""Sources that fail, through the command line: damaged, gone or changed files, no network, no answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.archive import Deb
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Ended, Machine, World, a_world, demo, entries

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens at the port of the discard service."""

WHEELS = (Wheel(name="alpha", requires=["beta"]), Wheel(name="beta", files={"beta.py": b"1"}))
OTHER = Wheel(name="beta", files={"beta.py": b"2"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine whose spec is locked; nothing is fetched yet but the indexes."""
    world = a_world(tmp_path, WHEELS, [Deb(name="tool", files=[("./usr/share/tool", b"tool" * 1000)])])
    world.machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    assert world.machine.run("lock", "--no-bytecode").status == 0
    return world


def deb(world: World) -> Path:
    (path,) = (world.archive.root / "debian" / "pool").rglob("tool_*.deb")
    return path


def wheel(world: World) -> Path:
    return world.index.simple / "beta" / WHEELS[1].file


def forget(machine: Machine) -> None:
    """Removes all that is composed; what was downloaded stays."""
    for area in ("images", "blobs", "segments", "layers"):
        shutil.rmtree(machine.cache / area, ignore_errors=True)


def refused(machine: Machine, *words: str, env: dict[str, str | None] | None = None) -> Ended:
    """A build that fails, and leaves neither an image nor a temporary file nor anything that was pinned
    by another hash."""
    ended = machine.run("build", "-o", "oci:image", env=env)
    ended.failed(6, *words)
    assert not (machine.project / "image").exists()
    assert machine.leftovers() == []
    return ended


@pytest.mark.parametrize("page_agrees", [False, True])
def test_an_index_that_serves_another_file(world: World, page_agrees: bool) -> None:
    if page_agrees:
        world.index.add(OTHER)
    else:
        wheel(world).write_bytes(OTHER.data())
    refused(world.machine, "beta-1.0-py3-none-any.whl", WHEELS[1].pin().sha256, "hint: the index")
    world.index.add(WHEELS[1])
    assert world.machine.run("build").status == 0


def test_a_wheel_that_is_cut_short(world: World) -> None:
    whole = wheel(world).read_bytes()
    wheel(world).write_bytes(whole[: len(whole) // 2])
    refused(world.machine, "beta-1.0-py3-none-any.whl", "hint: the file is damaged")
    wheel(world).write_bytes(whole)
    assert world.machine.run("build").status == 0


def test_a_debian_package_that_is_cut_short(world: World) -> None:
    whole = deb(world).read_bytes()
    deb(world).write_bytes(whole[:100])
    ended = refused(
        world.machine, f"only 100 of {len(whole)} bytes (3 tries)", "hint: the server's file is cut short"
    )
    assert f"can't get tool 1.0 from {deb(world).as_uri()}" in ended.stderr
    deb(world).write_bytes(whole)
    assert world.machine.run("build").status == 0


def test_a_debian_package_that_was_replaced(world: World) -> None:
    whole = deb(world).read_bytes()
    deb(world).write_bytes(whole[:-1] + b"?")
    refused(
        world.machine, "tool 1.0", "its SHA-256 is", world.archive.pin("tool").sha256, "hint: the file was"
    )
    deb(world).write_bytes(whole)
    assert world.machine.run("build").status == 0


def test_a_debian_package_that_has_left_the_mirror_is_upgraded_as_the_error_says(world: World) -> None:
    deb(world).unlink()
    world.archive.clear()
    world.archive.add_base()
    world.archive.add(Deb(name="tool", version="2.0", files=[("./usr/share/tool", b"new")]))
    world.archive.write()
    refused(
        world.machine,
        "tool_1.0_amd64.deb: no such file",
        "hint: pin what the mirror has now: envbuild lock --upgrade-package tool",
        "ENVBUILD_DEBIAN_SNAPSHOT",
    )
    assert world.machine.run("lock", "--upgrade-package", "tool").status == 0
    assert world.machine.run("build", "--locked", "-o", "oci:image").status == 0
    assert entries(world.machine.project / "image")["usr/share/tool"].size == 3


def test_a_debian_package_that_has_left_the_mirror_is_taken_from_the_store(world: World) -> None:
    digest = world.machine.run("build").digest
    deb(world).unlink()
    forget(world.machine)
    assert world.machine.run("build").digest == digest


def test_a_debian_package_that_has_left_the_mirror_is_taken_from_a_snapshot(world: World) -> None:
    pooled = deb(world)
    kept = world.archive.root / "snapshot" / pooled.relative_to(world.archive.root)
    kept.parent.mkdir(parents=True)
    pooled.rename(kept)
    snapshot = (world.archive.root / "snapshot").as_uri()
    digest = world.machine.run("build", env={"ENVBUILD_DEBIAN_SNAPSHOT": snapshot}).digest
    kept.rename(pooled)
    fresh = {"ENVBUILD_CACHE_DIR": str(world.machine.root / "other")}
    assert world.machine.run("build", env=fresh).digest == digest


def test_an_unreachable_mirror_is_tried_again_and_named(world: World) -> None:
    dead: dict[str, str | None] = {"ENVBUILD_DEBIAN_MIRROR": f"{NOWHERE}/debian"}
    world.machine.run("lock", "--upgrade", env=dead).failed(
        4,
        f"InRelease from {NOWHERE}/debian/dists/trixie",
        "Connection refused (3 tries)",
        "hint: check the network",
    )
    refused(world.machine, f"from {NOWHERE}/debian/pool", "(3 tries)", "hint: check the network", env=dead)


def test_an_unreachable_index_is_named(world: World) -> None:
    dead: dict[str, str | None] = {"UV_DEFAULT_INDEX": f"{NOWHERE}/simple", "UV_HTTP_RETRIES": "1"}
    world.machine.run("lock", "--upgrade", env=dead).failed(
        4, NOWHERE, "after 1 retry", "hint: check the network"
    )
    refused(
        world.machine,
        ".whl: uv can't install from the lock",
        NOWHERE,
        "hint: check the network",
        env=dead,
    )


def test_offline_without_caches_names_all_that_is_missing(world: World) -> None:
    ended = world.machine.run("build", "--offline")
    ended.failed(6, "can't get tool 1.0 from the store", "hint: run once without --offline")
    missing = {line.split()[-11] for line in ended.stderr.splitlines() if "this is offline" in line}
    assert len(missing) == 25


def test_offline_without_indexes_says_so(world: World, tmp_path: Path) -> None:
    shutil.rmtree(world.machine.lock)
    fresh: dict[str, str | None] = {"ENVBUILD_CACHE_DIR": str(tmp_path / "other")}
    world.machine.run("build", "--offline", env=fresh).failed(
        4, "offline, and", "was never read before", "hint: "
    )
    assert not world.machine.lock.exists()


def without_network() -> tuple[str, ...]:
    """A command that starts others where no network is; empty where that takes rights we don't have."""
    command = ("unshare", "--net", *(() if os.getuid() == 0 else ("--map-root-user",)))
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("no network namespace can be made here")
    return command


def test_everything_works_offline_from_warm_caches(world: World) -> None:
    machine = world.machine
    with world.index.serve() as address:
        machine.env["UV_DEFAULT_INDEX"] = address
        assert machine.run("lock", "--upgrade").status == 0
        digest = machine.run("build").digest
    machine.prefix = without_network()
    assert machine.run("build", "--offline").digest == digest
    forget(machine)
    assert machine.run("build", "--offline").digest == digest
    # A change that the caches know the answer to.
    machine.write("envbuild.yaml", demo("alpha", "beta", packages=["tool"]))
    assert machine.run("lock", "--offline").status == 0
    assert machine.run("lock", "--offline", "--check").status == 0


def test_a_locked_build_that_is_done_asks_nobody(world: World) -> None:
    machine = world.machine
    digest = machine.run("build").digest
    shutil.rmtree(world.archive.root)
    shutil.rmtree(world.index.root)
    assert machine.run("build").digest == digest
    assert machine.run("build", "-o", "oci:image").digest == digest
