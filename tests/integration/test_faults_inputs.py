"""Bad input through the command line: what is wrong, where, what next; the right status; nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from envbuild.oci.digest import canonical_digest
from tests.fakes.sdist import source_dist
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, World, a_world, conda, demo


@pytest.fixture
def world(tmp_path: Path) -> World:
    wheels = [
        Wheel(name="alpha", requires=["beta"]),
        Wheel(name="beta"),
        Wheel(name="gamma", requires=["beta<1"]),
    ]
    return a_world(tmp_path, wheels)


@pytest.fixture
def machine(world: World) -> Machine:
    return world.machine


def locked(machine: Machine, text: str) -> None:
    machine.write("envbuild.yaml", text)
    assert machine.run("lock", "--no-bytecode").status == 0


def test_all_problems_of_a_spec_are_told_at_once(machine: Machine) -> None:
    machine.write("envbuild.yaml", "name: demo\nrequirments: [a]\nplatfroms: [linux/amd64]\nusr: root\n")
    machine.run("lock").failed(
        3,
        "envbuild.yaml:2: requirments: unknown key; did you mean 'requirements'?",
        "envbuild.yaml:3: platfroms: unknown key; did you mean 'platforms'?",
        "envbuild.yaml:4: usr: unknown key; did you mean 'user'?",
        "hint: ",
    )
    assert not machine.lock.exists()


def test_bad_yaml_names_its_line(machine: Machine) -> None:
    machine.write("envbuild.yaml", "name: demo\nrequirements: [a\n")
    machine.run("build").failed(3, "envbuild.yaml:", "bad YAML", "hint: ")
    assert not machine.lock.exists()


def test_a_missing_spec_is_named(machine: Machine) -> None:
    machine.run("build", "nowhere.yaml").failed(3, "nowhere.yaml: no such file", "hint: ")


def test_missing_files_of_a_spec_are_named_together(machine: Machine) -> None:
    machine.write("envbuild.yaml", "name: demo\nrequirements: no.in\nconda_file: no.yml\n")
    machine.run("lock").failed(
        3, "envbuild.yaml:2: requirements: no.in: no such file", "conda_file: no.yml: no such file"
    )
    assert not machine.lock.exists()


def test_requirements_that_exclude_each_other_show_the_reason(machine: Machine) -> None:
    machine.write("envbuild.yaml", demo("alpha", "gamma", "beta>=1"))
    machine.run("lock").failed(4, "all versions of gamma depend on beta<1", "beta>=1", "hint: loosen")
    assert not machine.lock.exists()


def test_unknown_packages_of_the_index_are_named(machine: Machine) -> None:
    machine.write("envbuild.yaml", demo("nothere"))
    machine.run("lock").failed(4, "nothere was not found", "hint: check the name's spelling")
    assert not machine.lock.exists()


def test_unknown_debian_packages_are_named_together(machine: Machine) -> None:
    machine.write("envbuild.yaml", demo(packages=["libgomp11", "nopkg"]))
    machine.run("lock").failed(
        4, "no package libgomp11; did you mean libgomp1?", "no package nopkg", "hint: change base.packages"
    )
    assert not machine.lock.exists()


def test_an_unknown_channel_is_named(machine: Machine, tmp_path: Path) -> None:
    channel = (tmp_path / "nochannel").as_uri()
    machine.write("envbuild.yaml", demo(more=conda(channel, "tool")))
    machine.run("lock").failed(4, f"unknown conda channel {channel}", "hint: check the channel's name")
    assert not machine.lock.exists()


def test_an_unknown_conda_package_is_named(machine: Machine, tmp_path: Path) -> None:
    from tests.fakes.channel import make_channel

    channel = make_channel(tmp_path / "channel", python=False)
    machine.write("envbuild.yaml", demo(more=conda(channel, "toool")))
    machine.run("lock").failed(4, "toool", "hint: ")
    assert not machine.lock.exists()


def test_a_failed_lock_leaves_the_one_before_as_it_was(machine: Machine) -> None:
    locked(machine, demo("alpha"))
    before = {path.name: path.read_bytes() for path in machine.lock.iterdir()}
    machine.write("envbuild.yaml", demo("alpha", "nothere"))
    machine.run("lock").failed(4, "nothere was not found")
    assert {path.name: path.read_bytes() for path in machine.lock.iterdir()} == before


def test_an_archive_signed_by_others_is_refused(machine: Machine) -> None:
    machine.write("envbuild.yaml", demo())
    machine.run("lock", env={"ENVBUILD_DEBIAN_KEYRING": None}).failed(
        4, "not validly signed by Debian's archive keys for trixie", "hint: the mirror"
    )
    assert not machine.lock.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read: No such file"), (b"no key\n", "can't be read"), (b"", "holds no OpenPGP key")],
)
def test_a_keyring_that_cannot_be_used_is_named(
    machine: Machine, tmp_path: Path, content: bytes | None, said: str
) -> None:
    ring = tmp_path / "ring.pgp"
    if content is not None:
        ring.write_bytes(content)
    machine.write("envbuild.yaml", demo())
    machine.run("lock", env={"ENVBUILD_DEBIAN_KEYRING": str(ring)}).failed(4, str(ring), said, "hint: ")


def test_a_source_distribution_that_cannot_be_built_is_told_by_lock(world: World) -> None:
    """The archive's interpreter is no program, so the build ends before it begins."""
    world.index.add_file("tarball", "tarball-1.0.tar.gz", source_dist("tarball"))
    machine = world.machine
    machine.write("envbuild.yaml", demo("tarball"))
    machine.run("lock").failed(4, "tarball-1.0.tar.gz can't be built here: ", "hint: ")
    assert not machine.lock.exists()
    assert machine.leftovers() == []


def edit_text(text: str) -> str:
    return text.replace('"user": "1000:1000"', '"user": "0:0"')


def edit_newer(text: str) -> str:
    return json.dumps({**json.loads(text), "format": 999, "wholly": "new"})


def edit_cut(text: str) -> str:
    return text[: len(text) // 2]


def edit_escape(text: str) -> str:
    """A lock whose author meant harm: whole in itself, with a package that leads out of the archive."""
    body = json.loads(text)
    body.pop("integrity")
    body["platforms"]["linux/amd64"]["base"]["packages"][0]["file"] = "../../../etc/passwd"
    return json.dumps({**body, "integrity": canonical_digest("lock-file", body["format"], body)})


@pytest.mark.parametrize(
    ("edit", "said", "hint"),
    [
        (edit_text, "envbuild.lock was changed after it was made", "take the file back from version control"),
        (edit_newer, "lock format 999 is newer than", "upgrade envbuild"),
        (edit_cut, "envbuild.lock: not a lock", "take the file back"),
        (edit_escape, "'../../../etc/passwd' leaves the archive", "take the file back"),
        (lambda text: "[]", "envbuild.lock: not a lock", "take the file back"),
    ],
)
def test_a_lock_that_was_changed_is_refused(
    machine: Machine, edit: Callable[[str], str], said: str, hint: str
) -> None:
    locked(machine, demo("alpha"))
    path = machine.lock / "envbuild.lock"
    changed = edit(path.read_text())
    path.write_text(changed)
    machine.run("build").failed(5, said, f"hint: {hint}")
    assert path.read_text() == changed


def test_no_command_takes_a_lock_that_was_changed(machine: Machine) -> None:
    locked(machine, demo("alpha"))
    path = machine.lock / "envbuild.lock"
    changed = edit_text(path.read_text())
    path.write_text(changed)
    for command in (("build", "--frozen"), ("build", "--locked"), ("lock",), ("lock", "--check"), ("plan",)):
        machine.run(*command).failed(5, "envbuild.lock was changed after it was made", "hint: ")
    assert path.read_text() == changed


@pytest.mark.parametrize("command", [("build",), ("build", "--frozen"), ("lock", "--check")])
def test_pins_edited_beside_the_lock_are_refused(machine: Machine, command: tuple[str, ...]) -> None:
    locked(machine, demo("alpha"))
    pins = machine.lock / "requirements.linux-64.txt"
    pins.write_text(pins.read_text().replace("alpha==1.0", "alpha==1.1"))
    machine.run(*command).failed(5, "requirements.linux-64.txt was changed after the lock was made", "hint: ")


def test_a_pins_file_that_was_deleted_is_named(machine: Machine) -> None:
    locked(machine, demo("alpha"))
    (machine.lock / "requirements.linux-64.txt").unlink()
    machine.run("build").failed(5, "requirements.linux-64.txt is missing", "hint: ")


def test_a_damaged_lock_is_made_anew_on_request(machine: Machine) -> None:
    locked(machine, demo("alpha"))
    path = machine.lock / "envbuild.lock"
    good = path.read_text()
    path.write_text(good[:99])
    assert machine.run("lock", "--no-bytecode", "--upgrade").status == 0
    assert path.read_text() == good


def test_a_stale_lock_is_told_apart_from_a_broken_one(machine: Machine) -> None:
    locked(machine, demo("alpha"))
    machine.write("envbuild.yaml", demo("alpha", "gamma"))
    machine.run("lock", "--check").failed(1, "does not answer", "gamma", "hint: bring it up to date")
    machine.run("build", "--locked").failed(1, "does not answer", "gamma")


def test_frozen_without_a_lock_says_how_to_make_one(machine: Machine) -> None:
    machine.write("envbuild.yaml", demo("alpha"))
    machine.run("build", "--frozen").failed(5, "has no lock in", "hint: make it with: envbuild lock")
