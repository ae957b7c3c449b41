"""``MLproject``: its own key says which file counts, wherever and however it is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.load import load_spec
from envbuild.specs.model import EnvironmentType, ImageBaseSpec
from envbuild.specs.text.source import YAML_LIMIT

PYTHON_ENV = "python: '3.12'\ndependencies: [polars==1.9.0]\n"
CONDA = "channels: [defaults]\ndependencies: [python=3.7]\n"


@pytest.mark.parametrize("name", ["MLproject", "mlproject", "MLProject"])
def test_a_project_leads_what_lies_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("python_env: python_env.yaml\n", encoding="utf-8")
    (tmp_path / "python_env.yaml").write_text(PYTHON_ENV, encoding="utf-8")
    (tmp_path / "conda.yaml").write_text(CONDA, encoding="utf-8")
    for asked in (tmp_path, tmp_path / name):
        spec = load_spec(asked)
        assert [requirement.text for requirement in spec.pip.requirements] == ["polars==1.9.0"]
        assert (spec.python, spec.conda) == ("3.12", None)
        assert spec.source == tmp_path / name
    (tmp_path / "envbuild.yaml").write_text("name: own\npython: '3.13'\n", encoding="utf-8")
    assert load_spec(tmp_path).name == "own"


def test_a_project_of_an_image_is_that_image(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text("docker_env: {image: python:3.12-slim}\n", encoding="utf-8")
    spec = load_spec(tmp_path)
    assert spec.type is EnvironmentType.USER_MANAGED
    assert spec.base == ImageBaseSpec(reference="python:3.12-slim")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("conda_env: gone.yaml", ":1: conda_env: {}/gone.yaml: no such file"),
        ("name: a\npython_env: /etc/passwd", ":2: python_env: '/etc/passwd' is no file of the project"),
        ("conda_env: [a]", ":1: conda_env: must be text, is a list"),
        ("docker_env: python:3.12", ":1: docker_env: must be a mapping, is 'python:3.12'"),
        ("docker_env:\n  volumes: ['/a:/a']", ":2: docker_env.image: is missing"),
        (
            "docker_env:\n  image: https://registry.example/a",
            ":2: docker_env.image: 'https://registry.example/a' is no image; write registry/repository:tag, "
            "without a scheme",
        ),
        (
            "docker_env: {image: a}\npython_env: a",
            ":2: python_env: is there beside docker_env; a project has one environment",
        ),
        ("", ": is empty"),
        ("- a", ": must be a mapping, is a list"),
        ("a: 1\na: 2", ":2: the key 'a' is there twice, first on line 1"),
    ],
)
def test_what_a_project_can_not_mean_is_refused_with_its_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "MLproject"
    file.write_text(text, encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("numpy\n", encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path)
    assert raised.value.problems == (f"{file}{problem.format(tmp_path)}",)


def test_a_project_that_is_no_plain_file_is_never_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "MLproject"
    os.mkfifo(file)
    with pytest.raises(SpecError, match="MLproject: is not a regular file"):
        load_spec(file)
    file.unlink()
    file.write_bytes(b"#" * (YAML_LIMIT + 1))
    with pytest.raises(SpecError, match="MLproject: is larger than 4 MiB"):
        load_spec(file)
    file.write_text("conda_env: fifo\n", encoding="utf-8")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpecError, match="fifo: is not a regular file"):
        load_spec(file)


def test_lines_of_a_python_env_are_relative_to_the_project_as_mlflow_installs_them(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    # A key with nothing behind it is none.
    (tmp_path / "MLproject").write_text("conda_env:\npython_env: env/python_env.yaml\n", encoding="utf-8")
    (tmp_path / "env/python_env.yaml").write_text("dependencies: [-r needs.txt]\n", encoding="utf-8")
    (tmp_path / "env/needs.txt").write_text("wrong\n", encoding="utf-8")
    (tmp_path / "needs.txt").write_text("right\n", encoding="utf-8")
    assert [requirement.text for requirement in load_spec(tmp_path).pip.requirements] == ["right"]
