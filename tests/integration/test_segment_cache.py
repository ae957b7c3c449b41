"""Two machines and a real registry between them: the second one composes without any package."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.archive import Deb
from tests.fakes.registry_server import WRITER, RegistryServer, needs_registry, serve
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo

pytestmark = [needs_registry()]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve(tmp_path_factory.mktemp("registry"), htpasswd=True) as server:
        yield server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with a lock, and packages to be had."""
    data = random.Random(0)
    wheels = [Wheel(name=name, files={f"{name}/data": data.randbytes(50_000)}) for name in ("alpha", "beta")]
    debs = [Deb(name="tool", files=[("./usr/share/tool", data.randbytes(50_000))])]
    machine = a_world(tmp_path_factory.mktemp("locked"), wheels, debs).machine
    machine.write("envbuild.yaml", demo("alpha", "beta", packages=["tool"]))
    assert machine.run("lock", "--no-bytecode").status == 0
    return machine


def another(locked: Machine, root: Path, registry: RegistryServer, *, cut: bool = False) -> Machine:
    """A machine with that lock, logged in to the registry. ``cut``: it can fetch no package."""
    env = dict(locked.env)
    if cut:
        env |= {
            "ENVBUILD_DEBIAN_MIRROR": (root / "nothing").as_uri(),
            "UV_DEFAULT_INDEX": (root / "nothing").as_uri(),
        }
    machine = Machine(root=root, env=env)
    shutil.copytree(locked.project, machine.project, dirs_exist_ok=True)
    auth = base64.b64encode(":".join(WRITER).encode()).decode()
    (machine.home / ".docker").mkdir()
    (machine.home / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    return machine


def planted(root: Path) -> list[Path]:
    """The files below ``root`` in which the registry's password is, in either form."""
    words = [WRITER[1].encode(), base64.b64encode(":".join(WRITER).encode())]
    return [
        path
        for path in root.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def test_the_second_machine_needs_no_package(
    locked: Machine, registry: RegistryServer, tmp_path: Path
) -> None:
    cache = f"{registry.host}/team/cache"
    one = another(locked, tmp_path / "one", registry)
    first = one.run("build", "--frozen", "--cache-to", cache)
    assert f"went to {cache}" in first.stderr
    two = another(locked, tmp_path / "two", registry, cut=True)
    two.run("build", "--frozen").failed(6)
    second = two.run("build", "--frozen", env={"ENVBUILD_CACHE_FROM": f"{registry.host}/none, {cache}"})
    assert second.digest == first.digest
    assert "segments came from the cache" in second.stderr
    assert not any((two.cache / "artifacts").glob("*"))
    for machine in (one, two):
        assert planted(machine.root) == [machine.home / ".docker/config.json"]
        assert machine.leftovers() == []
    assert planted(registry.storage) == []


def test_two_machines_fill_an_empty_cache_at_once(
    locked: Machine, registry: RegistryServer, tmp_path: Path
) -> None:
    cache = f"{registry.host}/at-once"
    machines = [another(locked, tmp_path / name, registry) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(machine.run, "build", "--frozen", "--cache-to", cache) for machine in machines]
        first, second = (job.result() for job in jobs)
    assert first.digest == second.digest
    assert "not all segments" not in first.stderr + second.stderr
    third = another(locked, tmp_path / "three", registry, cut=True)
    assert third.run("build", "--frozen", "--cache-from", cache).digest == first.digest


def test_a_registry_that_refuses_the_login_costs_a_note_and_a_warning(
    locked: Machine, registry: RegistryServer, tmp_path: Path
) -> None:
    machine = another(locked, tmp_path, registry)
    wrong = base64.b64encode(b"writer:no-such-word").decode()
    (machine.home / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": wrong}}}))
    cache = f"{registry.host}/refused"
    ended = machine.run("build", "--frozen", "--cache-from", cache, "--cache-to", cache)
    assert ended.status == 0, ended.stderr
    assert ended.stderr.count(f"segment cache {cache}: ") == 1
    assert ended.stderr.count(f"not all segments went to the cache {cache}: ") == 1
    assert "no-such-word" not in ended.stderr
    assert wrong not in ended.stderr


def test_an_offline_build_asks_no_cache(locked: Machine, registry: RegistryServer, tmp_path: Path) -> None:
    machine = another(locked, tmp_path, registry)
    cache = f"{registry.host}/team/cache"
    machine.run("build", "--frozen", "--offline", "--cache-from", cache, "--cache-to", cache).failed(6)


@pytest.mark.parametrize("value", ["user:word@host.example/cache", "host.example/cache:1", "Upper/case"])
def test_what_is_no_repository_is_refused_before_any_work(locked: Machine, value: str) -> None:
    for option in ("--cache-from", "--cache-to"):
        ended = locked.run("build", "--frozen", option, value)
        ended.failed(2)
        assert "word" not in ended.stderr
