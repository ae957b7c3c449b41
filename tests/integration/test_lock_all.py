"""``lock --all``: every spec below a directory is accounted for, with a lock or without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.driver import Machine, a_world, demo


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = a_world(tmp_path).machine
    machine.write("envs/locked/envbuild.yaml", demo().replace("name: demo", "name: locked"))
    assert machine.run("lock", "envs/locked", "--no-bytecode").status == 0
    return machine


def test_check_names_every_spec_without_a_lock(machine: Machine) -> None:
    assert machine.run("lock", "--all", "envs", "--check").status == 0
    machine.write("envs/new/envbuild.yaml", demo().replace("name: demo", "name: new"))
    machine.write("envs/team/apps/environment.yml", "channels: [conda-forge]\ndependencies: [python]\n")
    machine.write("envs/app/Dockerfile", "FROM registry.example/a\n")
    done = machine.run("lock", "--all", "envs", "--check", "--offline")
    envs = machine.project / "envs"
    done.failed(
        1,
        "the lock of locked answers its spec",
        f"{envs}/new/envbuild.yaml has no lock in {envs}/new/lockfiles/new",
        f"{envs}/team/apps/environment.yml has no lock in {envs}/team/apps/lockfiles/apps",
        "passed over, as they may be no specs: envs/app/Dockerfile",
        "2 specs without a lock: new, apps",
    )
    machine.run("lock", "--all", "envs/new", "--check").failed(1, "1 spec without a lock: new")
    assert machine.run("lock", "envs/new", "--no-bytecode").status == 0
    machine.run("lock", "--all", "envs", "--check").failed(1, "1 spec without a lock: apps")


def test_check_tells_a_program_what_became_of_each(machine: Machine) -> None:
    machine.write("envs/new/envbuild.yaml", demo().replace("name: demo", "name: new"))
    machine.write("envs/old/envbuild.yaml", demo().replace("name: demo", "name: old"))
    assert machine.run("lock", "envs/old", "--no-bytecode").status == 0
    machine.write("envs/old/envbuild.yaml", demo(packages=["libc6"]).replace("name: demo", "name: old"))
    machine.write("envs/bad/envbuild.yaml", "name: [\n")
    machine.write("envs/pyproject.toml", "[project]\nname = 'a'\n")
    done = machine.run("lock", "--all", "envs", "--check", "--json")
    assert done.status == 1
    told = json.loads(done.stdout)
    envs = machine.project / "envs"
    assert [(each["name"], each["state"]) for each in told["environments"]] == [
        ("envs/bad", "unreadable"),
        ("locked", "answers"),
        ("new", "missing"),
        ("old", "stale"),
    ]
    assert told["environments"][1] == {
        "name": "locked",
        "spec": str(envs / "locked"),
        "state": "answers",
        "error": None,
    }
    assert told["passed_over"] == [str(envs / "pyproject.toml")]
    assert "error: 1 lock out of date: old; 1 spec without a lock: new" in done.stderr


def test_a_spec_that_can_not_be_read_does_not_hide_the_others(machine: Machine) -> None:
    machine.write("envs/bad/envbuild.yaml", "name: [\n")
    done = machine.run("lock", "--all", "envs", "--check")
    done.failed(
        3, "envs/bad/envbuild.yaml", "the lock of locked answers", "1 spec could not be checked: envs/bad"
    )


def test_without_check_what_has_no_lock_is_said_and_left(machine: Machine) -> None:
    machine.write("envs/new/envbuild.yaml", demo().replace("name: demo", "name: new"))
    done = machine.run("lock", "--all", "envs", "--no-bytecode")
    assert done.status == 0, done.stderr
    assert "passed over, without a lock: envs/new" in done.stderr.splitlines()
    assert not (machine.project / "envs/new/lockfiles").exists()
    machine.run("lock", "--all", "envs/new").failed(
        2, "envs/new: no spec with a lock below it", "hint: envs/new can be locked, one by one"
    )
    machine.write("empty/notes.md", "")
    for more in ((), ("--check",)):
        machine.run("lock", "--all", "empty", *more).failed(2, "hint: name the directory of your specs")
