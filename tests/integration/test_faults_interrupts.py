"""Commands that are ended from outside: quickly and quietly, no process left, and the next one is right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.archive import Deb
from tests.fakes.channel import File, Package, make_channel
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import (
    Ended,
    Machine,
    StallingServer,
    a_world,
    conda,
    demo,
    ended,
    entries,
    group,
    kill_group,
)

pytestmark = pytest.mark.slow

SOON = 5.0
"""Seconds within which an interrupted command has ended, on a busy machine."""

DATA = random.Random(0).randbytes(300_000)


@dataclass(kw_only=True)
class Site:
    """A machine whose sources are all behind one server."""

    machine: Machine
    server: StallingServer


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    wheels = [Wheel(name="alpha", requires=["beta"], files={"alpha/data.bin": DATA}), Wheel(name="beta")]
    world = a_world(tmp_path, wheels, [Deb(name="tool", files=[("./usr/share/tool", DATA)])])
    make_channel(
        tmp_path / "channel",
        python=False,
        packages=[
            Package(name="python", version="3.13.5"),
            Package(name="pack", files=(File(path="lib/pack", content=DATA),)),
        ],
    )
    with StallingServer(tmp_path) as server:
        machine = world.machine
        machine.env["ENVBUILD_DEBIAN_MIRROR"] = f"{server.url}/mirror/debian"
        machine.env["UV_DEFAULT_INDEX"] = f"{server.url}/index/simple"
        machine.write(
            "envbuild.yaml",
            demo("alpha", packages=["tool"], more=conda(f"{server.url}/channel", "pack", "python")),
        )
        yield Site(machine=machine, server=server)


def stopped(process: subprocess.Popen[str], number: signal.Signals, *, whole_group: bool) -> Ended:
    """Sends the signal, as a terminal does (to the group) or as ``kill`` does; nothing may be left of it."""
    (os.killpg if whole_group else os.kill)(process.pid, number)
    done = ended(process, time.monotonic())
    assert done.seconds < SOON
    assert group(process.pid) == []
    assert done.status == 128 + number
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "rror" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("stall", ["InRelease", "by-hash", "channel/.*repodata", "simple/beta/$"])
def test_a_lock_that_is_interrupted(site: Site, stall: str, whole_group: bool) -> None:
    site.server.stall = stall
    process = site.machine.start("lock", "--no-bytecode")
    assert site.server.reached.wait(20)
    stopped(process, signal.SIGINT, whole_group=whole_group)
    assert not site.machine.lock.exists()
    site.server.go_on()
    assert site.machine.run("lock", "--no-bytecode").status == 0
    assert site.machine.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stall", [r"tool_.*\.deb", r"pack-.*\.conda", r"alpha-.*\.whl"])
def test_a_build_that_is_interrupted(site: Site, stall: str, number: signal.Signals) -> None:
    machine = site.machine
    assert machine.run("lock", "--no-bytecode").status == 0
    # uv has seen the wheel while it resolved; elsewhere it has not.
    machine.env["UV_CACHE_DIR"] = str(machine.root / "uv")
    site.server.stall = stall
    process = machine.start("build", "-o", "oci:image")
    assert site.server.reached.wait(20)
    stopped(process, number, whole_group=number == signal.SIGINT)
    assert not (machine.project / "image").exists()
    site.server.go_on()
    digest = machine.run("build", "-o", "oci:image").digest
    assert {"usr/share/tool", "opt/env/lib/pack"} < set(entries(machine.project / "image"))
    assert machine.leftovers() == []
    fresh = {"ENVBUILD_CACHE_DIR": str(machine.root / "other")}
    assert machine.run("build", env=fresh).digest == digest


@pytest.fixture
def heavy(tmp_path: Path) -> Machine:
    """A machine with enough to compose that a signal can arrive in the middle of it."""
    files = {f"alpha/m{number}.bin": random.Random(number).randbytes(400_000) for number in range(40)}
    debs = [Deb(name="tool", files=[("./usr/share/tool", DATA * 20)])]
    machine = a_world(tmp_path, [Wheel(name="alpha", files=files)], debs).machine
    machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    assert machine.run("lock", "--no-bytecode").status == 0
    return machine


BUILD = ("build", "-o", "oci:image", "-o", "docker-archive:image.tar")


def expected(machine: Machine) -> str:
    return machine.run("build", env={"ENVBUILD_CACHE_DIR": str(machine.root / "expected")}).digest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_builds_that_are_ended_at_any_moment_leave_nothing_wrong(
    heavy: Machine, number: signal.Signals
) -> None:
    digest = expected(heavy)
    cut = 0
    for moment in (0.1, 0.2, 0.3, 0.45, 0.6, 0.8):
        process = heavy.start(*BUILD)
        time.sleep(moment)
        if process.poll() is None:
            if number == signal.SIGKILL:
                kill_group(process)
            else:
                os.killpg(process.pid, number)
        done = ended(process, time.monotonic())
        assert group(process.pid) == []
        # A shell calls both of the latter 130; the last is of a command that was done and about to leave.
        assert done.status in (0, -9, 130, -signal.SIGINT), done.stderr
        assert "Traceback" not in done.stderr
        cut += done.status != 0
    assert cut
    assert heavy.run(*BUILD).digest == digest
    assert heavy.leftovers() == []
    entries(heavy.project / "image")


def test_four_builds_of_one_thing_at_once(heavy: Machine) -> None:
    digest = expected(heavy)
    processes = [heavy.start(*BUILD) for _ in range(4)]
    assert {ended(process).digest for process in processes} == {digest}
    entries(heavy.project / "image")
    assert heavy.leftovers() == []


def test_four_locks_of_one_spec_at_once(heavy: Machine) -> None:
    before = {path.name: path.read_bytes() for path in heavy.lock.iterdir()}
    for path in heavy.lock.iterdir():
        path.unlink()
    processes = [heavy.start("lock", "--no-bytecode") for _ in range(4)]
    assert [ended(process).status for process in processes] == [0] * 4
    assert {path.name: path.read_bytes() for path in heavy.lock.iterdir()} == before


def test_pruning_while_a_build_is_under_way(heavy: Machine) -> None:
    digest = expected(heavy)
    process = heavy.start(*BUILD)
    while process.poll() is None:
        assert heavy.run("cache", "prune", "--keep-last", "0", "--max-size", "0").status == 0
    assert ended(process).digest == digest
    entries(heavy.project / "image")
    assert heavy.run(*BUILD).digest == digest
