"""Environments that programs make and change, a package at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild import Environment, Workspace
from envbuild.errors import SpecError, UsageError
from envbuild.specs.model import CondaSpec, DebianBaseSpec
from tests.unit.app.conftest import write


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def requirements(env: Environment) -> list[str]:
    return [requirement.text for requirement in env.spec.pip.requirements]


def test_a_new_environment_is_edited_and_registered_as_versions(workspace: Workspace) -> None:
    env = Environment("train")
    env.python = "3.13"
    env.add_pip_package("six==1.16")
    env.add_debian_package("git")
    env.environment_variables["THREADS"] = "4"
    assert env.register(workspace).version == "1"
    changed = Environment.get(workspace, "train")
    changed.add_pip_package("Six>=1.17")
    changed.add_conda_package("numpy=2.*")
    assert changed.register(workspace).version == "2"
    again = Environment.get(workspace, "train", version=2)
    assert requirements(again) == ["six>=1.17"]
    assert again.spec.conda == CondaSpec(channels=("conda-forge",), dependencies=("numpy=2.*",))
    assert again.spec.base == DebianBaseSpec(packages=("git",))
    again.remove_pip_package("six")
    again.remove_conda_package("numpy")
    again.remove_debian_package("git")
    del again.environment_variables["THREADS"]
    emptied = again.spec
    assert emptied.pip.requirements == ()
    assert emptied.conda is None
    assert emptied.base == DebianBaseSpec()
    assert again.register(workspace).version == "3"


def test_channels_wait_for_the_first_conda_package() -> None:
    env = Environment("train")
    env.add_channel("bioconda")
    env.add_channel("conda-forge")
    env.add_channel("bioconda")
    assert env.spec.conda is None
    clone = env.clone("other")
    for each in (env, clone):
        each.add_conda_package("samtools")
        assert each.spec.conda == CondaSpec(channels=("bioconda", "conda-forge"), dependencies=("samtools",))
    env.remove_channel("bioconda")
    assert env.conda_channels == ("conda-forge",)
    env.remove_conda_package("samtools")
    assert (env.spec.conda, env.conda_channels) == (None, ("conda-forge",))


def test_a_package_on_an_image_is_installed_there() -> None:
    env = Environment.from_docker_image("train", "python:3.13")
    before = env.definition_digest
    env.add_pip_package("six")
    assert (env.spec.type.value, env.spec.user) == ("system-managed", "1000:1000")
    assert env.definition_digest != before
    with pytest.raises(UsageError, match="train stands on an image"):
        env.add_debian_package("git")


def test_what_is_not_there_is_told() -> None:
    env = Environment("train")
    env.add_pip_package("scikit-learn")
    with pytest.raises(UsageError, match="there is no pip package scikit-lern") as raised:
        env.remove_pip_package("scikit-lern")
    assert raised.value.hint == "did you mean scikit-learn?"
    with pytest.raises(UsageError, match="there is no conda package numpy"):
        env.remove_conda_package("numpy")
    with pytest.raises(UsageError, match="there is no channel x"):
        env.remove_channel("x")
    with pytest.raises(UsageError, match="there is no Debian package git"):
        env.remove_debian_package("git")


def test_what_no_file_may_say_changes_nothing(tmp_path: Path) -> None:
    env = Environment("train")
    before = env.spec
    for wrong in ("a b", "six=1.16"):
        with pytest.raises(SpecError, match="is no requirement"):
            env.add_pip_package(wrong)
    with pytest.raises(UsageError, match="is an option of pip"):
        env.add_pip_package("-r more.txt")
    with pytest.raises(SpecError, match="is no name of a Debian package"):
        env.add_debian_package("Git")
    assert env.spec == before
    with pytest.raises(SpecError, match="is no name of an environment"):
        Environment("a b")
    locked = Environment.from_file(
        write(tmp_path, f"six==1.17.0 --hash=sha256:{'1' * 64}\n", "requirements.txt")
    )
    with pytest.raises(UsageError, match="is what a lock lists and no more"):
        locked.add_pip_package("idna")
