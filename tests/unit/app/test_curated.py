"""Which specs below a directory have no lock, and what is none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.app.curated import UnlockedSpecs, locked_specs, unlocked_specs

OWN = "name: demo\npython: '3.13'\n"
CONDA = "channels: [conda-forge]\ndependencies: [python=3.12]\n"
FILES = {
    "asset.yaml": "name: a\ntype: environment\n",
    "spec.yaml": "name: a\nimage: registry.example/a:1\n",
    "azureml_environment.json": '{"name": "a"}',
    "conda.yaml": CONDA,
    "environment.yml": CONDA,
    "envbuild.yml": OWN,
    "MLproject": "docker_env: {image: registry.example/a}\n",
    "pixi.toml": "[project]\nname = 'a'\nchannels = []\nplatforms = ['linux-64']\n",
    "requirements.in": "numpy\n",
    "requirements.txt": "numpy\n",
    "runtime.txt": "python-3.12\n",
}


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES.get(path.name, OWN), encoding="utf-8")


def unlocked(root: Path) -> tuple[list[str], list[str]]:
    """The unlocked specs and the doubtful files below ``root``, relative to it."""
    found = unlocked_specs(root, locked_specs(root))
    specs = [spec.relative_to(root).as_posix() for spec in found.specs]
    return specs, [each.relative_to(root).as_posix() for each in found.doubtful]


@pytest.mark.parametrize("name", [name for name in FILES if name != "spec.yaml"])
def test_a_directory_with_any_format_of_specs_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"one/two/{name}", "other/notes.md", "other/values.yaml")
    specs, doubtful = unlocked(tmp_path)
    assert (specs, doubtful) == (["one/two"], [])
    assert unlocked_specs(tmp_path / "one/two", ()).specs == (tmp_path / "one/two",)


def test_a_spec_with_a_lock_of_either_layout_is_not_found(tmp_path: Path) -> None:
    write(tmp_path, "a/environment.yml", "a/lockfiles/a/envbuild.lock", "a/lockfiles/a/requirements.txt")
    write(tmp_path, "lockfiles/b/envbuild.yaml", "lockfiles/b/envbuild.lock", "lockfiles/c/envbuild.yaml")
    write(tmp_path, "elsewhere/d/envbuild.lock", "elsewhere/d/requirements.txt")
    assert locked_specs(tmp_path) == (tmp_path / "a", tmp_path / "lockfiles/b/envbuild.yaml")
    specs, doubtful = unlocked(tmp_path)
    assert (specs, doubtful) == (["lockfiles/c"], [])


def test_what_is_installed_hidden_or_made_is_no_spec(tmp_path: Path) -> None:
    write(tmp_path, ".venv/envbuild.yaml", ".git/envbuild.yaml", ".hidden/deep/environment.yml")
    write(tmp_path, "node_modules/a/requirements.txt", "__pycache__/envbuild.yaml")
    write(tmp_path, "env/pyvenv.cfg", "env/envbuild.yaml", "env/lib/lockfiles/a/envbuild.yaml")
    write(
        tmp_path, "env/lib/lockfiles/a/envbuild.lock", "conda/conda-meta/history", "conda/a/environment.yml"
    )
    assert locked_specs(tmp_path) == ()
    assert unlocked_specs(tmp_path, ()) == UnlockedSpecs(specs=(), doubtful=())


def test_what_often_is_no_spec_is_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "app/Dockerfile", "model/MLmodel", "model/conda.yaml")
    write(tmp_path, "tests/data/envbuild.yaml", "docs/requirements.txt", "real/requirements.txt")
    specs, doubtful = unlocked(tmp_path)
    assert specs == ["real"]
    assert doubtful == [
        "app/Dockerfile",
        "docs/requirements.txt",
        "model/MLmodel",
        "pyproject.toml",
        "tests/data/envbuild.yaml",
    ]
    # Whoever names the directory means what is in it.
    assert unlocked_specs(tmp_path / "tests", ()).specs == (tmp_path / "tests/data",)


def test_a_part_of_another_spec_is_none_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "a/binder/environment.yml", "b/env/conda.yaml", "c/image/requirements.txt")
    write(tmp_path, "c/image/nested/envbuild.yaml", "d/reqs/requirements.txt", "d/lockfiles/d/envbuild.lock")
    (tmp_path / "b/MLproject").write_text("conda_env: env/conda.yaml\n", encoding="utf-8")
    (tmp_path / "c/image/Dockerfile").write_text("FROM registry.example/a\n", encoding="utf-8")
    (tmp_path / "c/envbuild.yaml").write_text("name: c\nbuild: {path: image}\n", encoding="utf-8")
    (tmp_path / "d/envbuild.yaml").write_text("name: d\nrequirements: reqs/requirements.txt\n")
    specs, doubtful = unlocked(tmp_path)
    assert (specs, doubtful) == (["a", "b", "c", "c/image/nested"], [])


def test_a_spec_that_can_not_be_read_is_found(tmp_path: Path) -> None:
    write(tmp_path, "a/envbuild.yaml")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/environment.yml").write_text("a: [", encoding="utf-8")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    specs, doubtful = unlocked(tmp_path)
    assert (specs, doubtful) == (["a", "b"], [])
