"""The front door: environments from what people have, changed, registered, saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild import Environment, Workspace
from envbuild.errors import SpecError, UsageError, WorkspaceError
from envbuild.specs.model import BuildContextSpec, ImageBaseSpec
from tests.unit.app.conftest import SPEC, write

CONDA = "name: theirs\nchannels: [conda-forge]\ndependencies: [python=3.8.*, numpy, {pip: [six]}]\n"


def test_importing_the_package_costs_next_to_nothing() -> None:
    code = (
        "import sys, time; before = set(sys.modules); started = time.perf_counter(); import envbuild; "
        "took = time.perf_counter() - started; import json; "
        "print(json.dumps([took, sorted(set(sys.modules) - before)]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(took for took, _ in runs) <= 0.1
    ours = {name for _, names in runs for name in names if name.split(".")[0] in ("envbuild", "sqlalchemy")}
    assert ours == {"envbuild", "envbuild._version"}


def test_the_package_has_nothing_else() -> None:
    import envbuild

    with pytest.raises(AttributeError, match="module 'envbuild' has no attribute 'Envirnment'"):
        envbuild.Envirnment  # noqa: B018


def test_a_conda_file_keeps_its_python_whatever_it_is_called(tmp_path: Path) -> None:
    env = Environment.from_conda_specification("train", write(tmp_path, CONDA, "deps.txt"))
    assert env.name == "train"
    assert env.spec.conda is not None
    assert env.spec.conda.dependencies == ("python=3.8.*", "numpy")
    with pytest.raises(SpecError):
        Environment.from_conda_specification("train", tmp_path / "none.yml")


def test_a_requirements_file_is_read_as_pip_reads_it(tmp_path: Path) -> None:
    write(tmp_path, "idna  # a comment\n", "more.txt")
    path = write(tmp_path, "# head\n-r more.txt\nsix>=1\n", "reqs")
    env = Environment.from_pip_requirements("train", path, python="3.13")
    assert [requirement.text for requirement in env.spec.pip.requirements] == ["idna", "six>=1"]
    assert env.spec.python == "3.13"


def test_an_image_alone_is_taken_as_it_is_and_else_gets_packages(tmp_path: Path) -> None:
    conda, pip = write(tmp_path, CONDA, "c.yml"), write(tmp_path, "six\n", "r.txt")
    alone = Environment.from_docker_image("a", "python:3.13")
    assert (alone.spec.type.value, alone.spec.base) == (
        "user-managed",
        ImageBaseSpec(reference="python:3.13"),
    )
    with_pip = Environment.from_docker_image("a", "python:3.13", pip_requirements=pip)
    assert (with_pip.spec.type.value, with_pip.spec.base) == ("system-managed", alone.spec.base)
    with_conda = Environment.from_docker_image("a", "python:3.13", conda_specification=conda)
    assert with_conda.spec.conda is not None
    with pytest.raises(UsageError, match="exclude each other"):
        Environment.from_docker_image("a", "b", conda_specification=conda, pip_requirements=pip)


def test_a_dockerfile_and_its_directory_are_the_same_environment(tmp_path: Path) -> None:
    write(tmp_path, "FROM scratch\n", "Dockerfile")
    write(tmp_path, "FROM scratch\n", "own.Dockerfile")
    one = Environment.from_dockerfile("a", tmp_path / "Dockerfile")
    two = Environment.from_docker_build_context("a", tmp_path)
    assert one.definition_digest == two.definition_digest
    assert one.spec.type.value == "user-managed"
    other = Environment.from_docker_build_context("a", tmp_path, dockerfile_path="own.Dockerfile")
    assert isinstance(other.spec.base, BuildContextSpec)
    assert other.spec.base.dockerfile_path == "own.Dockerfile"
    with pytest.raises(SpecError, match="Containerfile: no such file"):
        Environment.from_dockerfile("a", tmp_path / "Containerfile")


def test_a_conda_environment_is_found_by_name_or_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "envs" / "mine"
    record = {
        "name": "zlib",
        "version": "1.3",
        "build": "h0",
        "build_number": 0,
        "subdir": "linux-64",
        "channel": "https://conda.anaconda.org/conda-forge/linux-64",
        "fn": "zlib-1.3-h0.conda",
        "url": "https://conda.anaconda.org/conda-forge/linux-64/zlib-1.3-h0.conda",
        "sha256": "1" * 64,
        "files": [],
    }
    write(prefix / "conda-meta", json.dumps(record), "zlib-1.3-h0.json")
    write(tmp_path / ".conda", f"{prefix}\n", "environments.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.chdir(tmp_path)
    by_name = Environment.from_existing_conda_environment("train", "mine")
    assert by_name.spec.conda is not None
    assert [each.url for each in by_name.spec.conda.explicit] == [record["url"]]
    # Locks must not be written into the environment itself.
    assert by_name.spec.directory == tmp_path
    by_path = Environment.from_existing_conda_environment("train", prefix)
    assert by_path.definition_digest == by_name.definition_digest
    with pytest.raises(SpecError, match="mime: no conda environment") as raised:
        Environment.from_existing_conda_environment("train", "mime")
    assert raised.value.hint == "did you mean mine?"


def test_attributes_are_what_is_registered(workspace: Workspace, tmp_path: Path) -> None:
    env = Environment.from_file(write(tmp_path))
    before = env.definition_digest
    env.description, env.tags["team"] = "what for", "x"
    assert env.definition_digest == before
    env.environment_variables["THREADS"] = "4"
    assert env.definition_digest != before
    registered = env.register(workspace, labels=["prod"])
    assert (registered.version, env.version) == ("1", None)
    again = Environment.get(workspace, "train", label="prod")
    assert again.environment_variables == {"THREADS": "4"}
    assert (again.description, again.tags, again.version) == ("what for", {"team": "x"}, "1")
    assert again.definition_digest == env.definition_digest
    env.platforms = ("linux/arm64", "linux-64")
    assert env.register(workspace).version == "2"
    assert Environment.get(workspace, "train").version == "2"
    Environment.label(workspace, "train", 2, "prod")
    assert Environment.get(workspace, "train", label="prod").version == "2"
    assert [(each.name, each.count) for each in Environment.list(workspace)] == [("train", 2)]


def test_an_attribute_that_no_file_may_say_is_refused(tmp_path: Path) -> None:
    env = Environment.from_file(write(tmp_path))
    env.environment_variables["A B"] = "x"
    with pytest.raises(SpecError, match="'A B' is no name of an environment variable"):
        env.spec  # noqa: B018
    env = Environment.from_file(write(tmp_path))
    env.python = "three"
    with pytest.raises(SpecError, match="'three' is no version of Python"):
        env.spec  # noqa: B018
    env = Environment.from_file(write(tmp_path))
    env.name = "../x"
    with pytest.raises(SpecError, match="is no name of an environment"):
        env.definition_digest  # noqa: B018


def test_an_explicit_version_that_differs_is_a_conflict(workspace: Workspace, tmp_path: Path) -> None:
    env = Environment.from_file(write(tmp_path))
    assert env.register(workspace, version=3).version == "3"
    assert env.register(workspace, version="3").version == "3"
    env.environment_variables["A"] = "1"
    with pytest.raises(WorkspaceError, match="train:3"):
        env.register(workspace, version=3)


def test_unknown_names_are_told_and_curated_ones_are_there(workspace: Workspace, tmp_path: Path) -> None:
    from envbuild.resources import curated_names

    curated = Environment.get(workspace, curated_names()[0])
    assert curated.spec.type.value == "curated"
    assert curated.clone("mine").spec.type.value == "system-managed"
    Environment.from_file(write(tmp_path)).register(workspace)
    with pytest.raises(WorkspaceError) as raised:
        Environment.get(workspace, "trian")
    assert (raised.value.message, raised.value.hint) == (
        "there is no environment 'trian'",
        "did you mean train?",
    )


def test_a_clone_has_no_version_and_the_same_definition(workspace: Workspace, tmp_path: Path) -> None:
    env = Environment.from_file(write(tmp_path)).register(workspace)
    clone = env.clone("other")
    assert (clone.name, clone.version) == ("other", None)
    assert clone.definition_digest == env.definition_digest
    clone.environment_variables["A"] = "1"
    assert env.environment_variables == {}


def test_a_directory_holds_all_of_an_environment(tmp_path: Path) -> None:
    write(tmp_path / "in", "FROM scratch\nCOPY x /\n", "Dockerfile")
    write(tmp_path / "in", "1\n", "x")
    env = Environment.from_docker_build_context("img", tmp_path / "in")
    out = tmp_path / "out"
    assert env.save_to_directory(out) == ()
    assert sorted(path.name for path in out.iterdir()) == ["context", "envbuild.yaml"]
    assert Environment.load_from_directory(out).definition_digest == env.definition_digest
    with pytest.raises(UsageError, match=r"has envbuild\.yaml, context already"):
        env.save_to_directory(out)
    write(tmp_path / "in", "2\n", "x")
    changed = Environment.from_docker_build_context("img", tmp_path / "in")
    changed.save_to_directory(out, overwrite=True)
    assert Environment.load_from_directory(out).definition_digest == changed.definition_digest
    with pytest.raises(UsageError, match="is no directory"):
        Environment.load_from_directory(out / "envbuild.yaml")


def test_options_are_those_of_the_requests(tmp_path: Path) -> None:
    env = Environment.from_file(write(tmp_path))
    with pytest.raises(UsageError, match=r"no such option: .*'tag'"):
        env.build(tag="x")
    with pytest.raises(UsageError, match="no command to run"):
        env.run()


def test_text_says_name_version_and_definition(workspace: Workspace, tmp_path: Path) -> None:
    env = Environment.from_file(write(tmp_path, SPEC))
    assert repr(env) == f"<Environment train {env.definition_digest}>"
    assert repr(env.register(workspace)) == f"<Environment train:1 {env.definition_digest}>"
