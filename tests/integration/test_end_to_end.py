"""The way that envbuild is for, once from end to end with nothing of the tests' own making on it but a wheel:
a base of Debian's archive, a registry that others wrote, a program that runs in the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envbuild.lock.debian.mirror import known_mirror
from envbuild.platforms import Platform, runs_linux
from envbuild.settings import Settings
from tests.fakes import registry_server
from tests.fakes.registry_server import needs_registry
from tests.fakes.wheelhouse import Wheel, Wheelhouse
from tests.integration.driver import Machine, needs_user_namespaces

pytestmark = [
    pytest.mark.network,
    needs_registry(),
    needs_user_namespaces(),
    pytest.mark.skipif(not runs_linux(), reason="runs Linux programs"),
    pytest.mark.skipif(
        known_mirror(Settings(cache_dir=Path("/nonexistent"))) is None,
        reason="no Debian mirror is known here",
    ),
]


def test_a_spec_is_locked_built_run_pushed_and_pulled_by_another_machine(tmp_path: Path) -> None:
    index = Wheelhouse(tmp_path / "index")
    index.simple.mkdir(parents=True)
    index.add(Wheel(name="tiny", version="1.0", files={"tiny.py": b"ANSWER = 42\n"}))
    machine = Machine(root=tmp_path / "first", env={"UV_DEFAULT_INDEX": index.url}, own_interpreters=True)
    machine.write("envbuild.yaml", f"name: demo\nplatforms: [{Platform.host()}]\nrequirements: [tiny]\n")

    locked = machine.run("lock")
    assert locked.status == 0, locked.stderr
    assert machine.run("lock", "--check").status == 0
    built = machine.run("build", "--locked", "--json")
    assert built.status == 0, built.stderr
    image = json.loads(built.stdout)
    assert (image["level"], image["engine"], image["cached"]) == ("L3", "native", False)

    ran = machine.run(
        "run", "--frozen", "--backend", "userns", "--", "python", "-c", "import tiny; print(tiny.ANSWER)"
    )
    assert (ran.status, ran.stdout) == (0, "42\n"), ran.stderr

    with registry_server.serve(tmp_path / "registry") as server:
        pushed = machine.run("build", "--frozen", "--push", f"{server.host}/team/demo")
        assert pushed.status == 0, pushed.stderr
        assert pushed.stdout.strip().endswith(f"@{image['digest']}")
        other = Machine(root=tmp_path / "second", own_interpreters=True)
        pulled = other.run("pull", pushed.stdout.strip())
        assert pulled.status == 0, pulled.stderr
        seen = other.run("inspect", pushed.stdout.strip(), "--json")
        assert seen.status == 0, seen.stderr
        (there,) = json.loads(seen.stdout)["images"]
        assert (there["digest"], there["lock_digest"]) == (image["digest"], image["lock_digest"])
        again = other.run("verify", pushed.stdout.strip(), env={"UV_DEFAULT_INDEX": index.url})
        assert again.status == 0, again.stderr
