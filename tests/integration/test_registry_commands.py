"""``build --push`` as people run it: judged from outside, killed in the middle, run twice at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest

from envbuild.oci.digest import digest_file
from envbuild.store.content import Store
from tests.fakes import registry_server
from tests.fakes.archive import Deb
from tests.fakes.fault_proxy import Fault, FaultProxy, proxy
from tests.fakes.registry_server import RegistryServer, needs_registry
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo, ended, group, kill_group

pytestmark = [needs_registry()]

SOON = 5.0
"""Seconds within which an interrupted command has ended, on a busy machine."""


@dataclass(kw_only=True)
class Site:
    machine: Machine
    server: RegistryServer
    way: FaultProxy

    @property
    def repository(self) -> str:
        return f"{self.way.host}/team/app"

    def tags(self) -> list[str]:
        """Those of images, without those that list what refers to one."""
        status, _, content = self.server.get("/v2/team/app/tags/list")
        tags = json.loads(content)["tags"] or () if status == 200 else ()
        return [tag for tag in tags if not tag.startswith("sha256-")]

    def right(self, digest: str) -> None:
        """Asserts that the repository has one tag, and that it names the whole image ``digest``."""
        (tag,) = self.tags()
        content = Store(self.machine.cache).blob(digest).read_bytes()
        assert self.server.manifest("team/app", tag) == content
        assert self.server.complete("team/app", tag)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with an image in its store."""
    data = random.Random(0)
    wheel = Wheel(name="alpha", files={"alpha/data.bin": data.randbytes(3_000_000)})
    deb = Deb(name="tool", files=[("./usr/share/tool", data.randbytes(1_000_000))])
    machine = a_world(tmp_path_factory.mktemp("machine"), [wheel], [deb]).machine
    machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    assert machine.run("lock", "--no-bytecode").status == 0
    assert machine.run("build").status == 0
    return machine


@pytest.fixture
def site(built: Machine, tmp_path: Path) -> Iterator[Site]:
    with registry_server.serve(tmp_path / "registry") as server, proxy(server.host) as way:
        yield Site(machine=built, server=server, way=way)


def test_what_build_prints_is_what_the_registry_has(site: Site) -> None:
    done = site.machine.run("build", "--push", site.repository)
    name, _, digest = done.reference.partition("@")
    (tag,) = site.tags()
    assert name == f"{site.repository}:{tag}"
    assert digest.startswith("sha256:")
    site.right(digest)
    # Once more: a look at the tag and at what refers to it, and no byte that is not needed.
    site.way.break_next()
    assert site.machine.run("build", "--push", site.repository).reference == done.reference
    assert sum(seen.body for seen in site.way.requests) == 0
    assert {seen.method for seen in site.way.requests} <= {"GET", "HEAD"}
    assert len(site.way.requests) <= 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_push_that_is_ended_in_the_middle_of_a_blob(site: Site, number: signal.Signals) -> None:
    site.way.faults = [Fault(kind="stall request", method="PUT", path="/blobs/uploads/")]
    process = site.machine.start("build", "--push", site.repository)
    assert site.way.reached.wait(30)
    began = time.monotonic()
    if number == signal.SIGKILL:
        kill_group(process)
    else:
        os.killpg(process.pid, number)
    done = ended(process, began)
    assert done.seconds < SOON
    assert group(process.pid) == []
    assert done.status == (-9 if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert site.tags() == []
    site.way.break_next()
    site.right(site.machine.run("build", "--push", site.repository).digest)
    assert site.machine.leftovers() == []


def test_a_push_that_is_ended_at_any_moment(site: Site) -> None:
    """Before any of its requests, by SIGKILL; each goes on where the last one stopped."""
    started: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    for number in range(0, 40, 4):
        site.way.break_next(Fault(kind="cut before", number=number, first=lambda: kill_group(started.get())))
        process = site.machine.start("build", "--push", site.repository)
        started.put(process)
        done = ended(process)
        for tag in site.tags():
            assert site.server.complete("team/app", tag)
        if done.status == 0:
            site.right(done.digest)
            break
        assert done.status == -9
    else:
        raise AssertionError("it never came to an end")
    assert number >= 2 * 4
    site.right(site.machine.run("build", "--push", site.repository).digest)
    assert site.machine.leftovers() == []


def test_two_pushes_of_one_image_at_once(site: Site) -> None:
    processes = [site.machine.start("build", "--push", site.repository) for _ in range(3)]
    (reference,) = {ended(process).reference for process in processes}
    site.right(reference.partition("@")[2])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_pull_that_is_ended_in_the_middle_of_a_blob(
    site: Site, tmp_path: Path, number: signal.Signals
) -> None:
    reference = site.machine.run("build", "--push", site.repository).reference
    tag, _, digest = reference.partition("@")
    fresh = {"ENVBUILD_CACHE_DIR": str(tmp_path / "pulled")}
    site.way.break_next(Fault(kind="stall answer", path="/blobs/"))
    process = site.machine.start("pull", tag, env=fresh)
    assert site.way.reached.wait(30)
    began = time.monotonic()
    if number == signal.SIGKILL:
        kill_group(process)
    else:
        os.killpg(process.pid, number)
    done = ended(process, began)
    assert done.seconds < SOON
    assert (done.status, done.stdout) == (-9 if number == signal.SIGKILL else 128 + number, "")
    assert "Traceback" not in done.stderr
    site.way.break_next()
    # Two at once, of which neither is in the other's way.
    processes = [site.machine.start("pull", tag, env=fresh) for _ in range(2)]
    assert {ended(process).reference for process in processes} == {reference}
    store = Store(tmp_path / "pulled")
    assert digest_file(store.blob(digest)) == digest
    for path in store.directory("blobs/sha256").iterdir():
        assert digest_file(path) == f"sha256:{path.name}"
    assert list((tmp_path / "pulled" / "scratch").glob("*")) == []


def test_a_copy_that_is_ended_at_any_moment(site: Site, tmp_path: Path) -> None:
    """From one repository of a registry to another, by way of a store that is empty."""
    done = site.machine.run("build", "--push", f"{site.server.host}/source")
    content = site.server.manifest("source", done.digest)
    source = done.reference.partition("@")[0].replace(site.server.host, site.way.host)
    fresh = {"ENVBUILD_CACHE_DIR": str(tmp_path / "copied")}
    started: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    for number in range(0, 60, 5):
        site.way.break_next(Fault(kind="cut before", number=number, first=lambda: kill_group(started.get())))
        process = site.machine.start("copy", source, f"{site.way.host}/target:1", env=fresh)
        started.put(process)
        done = ended(process)
        if site.server.manifest("target", "1") is not None:
            assert site.server.complete("target", "1")
        if done.status == 0:
            break
        assert done.status == -9
    assert number >= 2 * 5
    assert site.server.manifest("target", "1") == content
    assert list((tmp_path / "copied" / "scratch").glob("*")) == []


def test_a_registry_that_refuses_is_named(site: Site) -> None:
    site.way.faults = [Fault(kind="status", method="PUT", status=403, path="/manifests/", times=None)]
    done = site.machine.run("build", "--push", site.repository)
    done.failed(7, site.repository, "HTTP 403", "docker login")
    assert site.tags() == []


def test_a_registry_that_is_away_is_named(site: Site) -> None:
    site.server.kill()
    host = site.server.host
    done = site.machine.run("build", "--push", f"{host}/app")
    done.failed(7, host, "can't be reached")
    assert done.seconds < 20
