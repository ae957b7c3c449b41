"""``.python-version`` beside a project, a lock or requirements."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.specs.cache import remembered_spec
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec

PYPROJECT = '[project]\nname = "demo"\nversion = "1"\nrequires-python = "{}"\ndependencies = ["six"]\n'


def project(directory: Path, requires: str, written: str) -> Spec:
    (directory / "pyproject.toml").write_text(PYPROJECT.format(requires))
    (directory / ".python-version").write_text(written)
    return load_spec(directory / "pyproject.toml")


@pytest.mark.parametrize(
    ("requires", "written", "python"),
    [
        (">=3.10", "3.11\n", "3.11"),
        (">=3.10", "# ours\n\n3.11.4 # exact\n3.12\n", "3.11.4"),
        (">=3.10", "cpython-3.12\n", "3.12"),
        (">=3.10", "cpython-3.12.1-linux-x86_64-gnu", "3.12.1"),
        (">=3.11.4", "3.11", "~=3.11.0,>=3.11.4"),
        (">=3.10", ">=3.11, <3.13", ">=3.11,<3.13,>=3.10"),
    ],
)
def test_it_is_the_python_of_the_project(tmp_path: Path, requires: str, written: str, python: str) -> None:
    spec = project(tmp_path, requires, written)
    assert spec.python == python
    assert not [line for line in spec.left_out if ".python-version" in line]


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("3.9\n", ".python-version: 3.9 is excluded by requires-python '>=3.10'"),
        ("pypy3.10\n", ".python-version: 'pypy3.10' is no version of CPython"),
        ("my-environment\n", ".python-version: 'my-environment' is no version of CPython"),
    ],
)
def test_one_that_cannot_count_is_told(tmp_path: Path, written: str, line: str) -> None:
    spec = project(tmp_path, ">=3.10", written)
    assert spec.python == ">=3.10"
    assert line in spec.left_out


def test_it_counts_beside_requirements_and_a_lock(tmp_path: Path) -> None:
    (tmp_path / ".python-version").write_text("3.11\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    (tmp_path / "uv.lock").write_text(
        'version = 1\nrequires-python = ">=3.10"\n'
        '[[package]]\nname = "demo"\nversion = "1"\nsource = { virtual = "." }\n'
    )
    assert load_spec(tmp_path / "requirements.txt").python == "3.11"
    assert load_spec(tmp_path / "uv.lock").python == "3.11"


def test_one_that_appears_later_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("six\n")
    assert remembered_spec(file, tmp_path / "memory").python is None
    (tmp_path / ".python-version").write_text("3.12\n")
    assert remembered_spec(file, tmp_path / "memory").python == "3.12"
