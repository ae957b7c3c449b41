"""What is in the wheel, and that an installation from it finds its files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built by hatchling itself."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (found,) = directory.glob("*.whl")
    return found


def test_wheel_carries_code_templates_lockfiles_and_the_typing_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "envbuild/py.typed",
        "envbuild/__main__.py",
        "envbuild/cli/main.py",
        "envbuild/_data/templates/README.md",
        "envbuild/_data/templates/serving/gunicorn.conf.py",
        "envbuild/_data/lockfiles/README.md",
        "envbuild/workspace/migrations/env.py",
        "envbuild/workspace/migrations/versions/v0001_first.py",
    } <= names
    outside = {name.split("/")[0] for name in names} - {"envbuild"}
    assert all(name.endswith(".dist-info") for name in outside)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installation_from_the_wheel_finds_its_files(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    offline = ["--offline", "--no-config", "--cache-dir", str(tmp_path / "cache")]
    subprocess.run(
        [*uv, "venv", *offline, "--python", sys.executable, str(venv)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    subprocess.run(
        [*uv, "pip", "install", *offline, "--no-deps", "--python", str(python), str(wheel)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    program = (
        "from envbuild.resources import resource_directory as find\n"
        "print(find('templates'), find('lockfiles'), sep='\\n')\n"
        "assert (find('templates') / 'README.md').is_file() and (find('lockfiles') / 'README.md').is_file()\n"
    )
    done = subprocess.run(
        [str(python), "-I", "-c", program],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in found] == ["templates", "lockfiles"]
    assert all(path.parent.name == "_data" and venv in path.parents for path in found)
