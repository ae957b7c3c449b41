"""Registered versions through the command line, as processes of their own: built, recorded, found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    wheels = [Wheel(name="tiny", version=version, files={"tiny.py": b"1"}) for version in ("1.0", "2.0")]
    return a_world(tmp_path_factory.mktemp("world"), wheels).machine


@pytest.fixture
def machine(world: Machine, tmp_path: Path) -> Machine:
    found = Machine(root=tmp_path, env={**world.env, "ENVBUILD_CACHE_DIR": str(tmp_path / "cache")})
    found.write("envbuild.yaml", demo("tiny==1.0"))
    # Without byte code, which the base of this archive has no interpreter for.
    locked = found.run("lock", "--no-bytecode")
    assert locked.status == 0, locked.stderr
    return found


def shown(machine: Machine, *arguments: str) -> dict[str, object]:
    ended = machine.run(*arguments, "--json")
    assert ended.status == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def test_a_version_is_built_by_its_name_on_another_machine(machine: Machine, tmp_path: Path) -> None:
    """What was locked before it was registered is what is built, wherever the workspace is reached from."""
    digest = machine.run("build").digest
    assert machine.run("env", "register", "--label", "prod").stdout == "demo:1\n"
    other = Machine(
        root=tmp_path / "other",
        env={
            **{key: value for key, value in machine.env.items() if key != "ENVBUILD_CACHE_DIR"},
            "ENVBUILD_WORKSPACE": str(machine.home / ".local" / "share" / "envbuild" / "workspace.db"),
        },
    )
    for name in ("demo", "demo:1", "demo@prod"):
        assert other.run("build", "--locked", name).digest == digest
    assert not (other.project / "lockfiles").exists()
    found = shown(other, "env", "show", f"sha256:{digest.removeprefix('sha256:')}")
    assert (found["name"], found["version"], found["versions"]) == ("demo", "1", ["demo:1"])
    assert len(found["images"]) == 1  # type: ignore[arg-type]


def test_a_build_of_no_registered_spec_is_found_by_its_digest(machine: Machine) -> None:
    first = machine.run("build", "-t", "repo:1")
    found = shown(machine, "env", "show", first.reference)
    assert found["anonymous"] is True
    assert "tiny==1.0" in str(found["content"])
    assert found["images"][0]["references"] == ["repo:1"]  # type: ignore[index]
    assert shown(machine, "env", "list") == {"environments": []}
    again = machine.run("build", "-t", "repo:1")
    assert (again.digest, "recorded" in again.stderr) == (first.digest, False)
    events = shown(machine, "env", "history")["events"]
    assert [event["action"] for event in events] == ["image", "lock", "record"]  # type: ignore[attr-defined]


def test_no_record_leaves_no_workspace(machine: Machine) -> None:
    assert machine.run("build", "--no-record").status == 0
    assert not (machine.home / ".local").exists()
    assert machine.run("build", env={"ENVBUILD_RECORD": "0"}).status == 0
    assert not (machine.home / ".local").exists()


def test_a_broken_workspace_fails_what_needs_it_and_no_build(machine: Machine) -> None:
    (machine.root / "broken.db").write_bytes(b"this is no database" * 100)
    env = {"ENVBUILD_WORKSPACE": str(machine.root / "broken.db")}
    built = machine.run("build", env=env)
    assert built.reference.startswith("demo:")
    assert built.stderr.count("warning: the build isn't recorded in the workspace: ") == 1
    machine.run("env", "list", env=env).failed(8, "broken.db")
    machine.run("build", "other", env=env).failed(8, "broken.db")


def test_a_new_lock_of_a_version_is_everyones(machine: Machine) -> None:
    machine.write("envbuild.yaml", demo("tiny"))
    assert machine.run("env", "register").stdout == "demo:1\n"
    assert machine.run("lock", "demo:1", "--no-bytecode").status == 0
    found = shown(machine, "env", "history", "demo", "--package", "tiny")
    assert found["versions"][0]["pins"] == [  # type: ignore[index]
        {"platform": "linux/amd64", "kind": "pip", "version": "2.0"}
    ]
    assert machine.run("build", "--locked", "demo:1").status == 0
