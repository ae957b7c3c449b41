"""The walk through Azure ML's flows, as people run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "azure"


def run(script: str, directory: Path) -> list[str]:
    """What the script prints, run in an empty home."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), "azure.db"],
        cwd=directory,
        env={**os.environ, "HOME": str(directory / "home"), "ENVBUILD_CACHE_DIR": str(directory / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_create_then_manage(tmp_path: Path) -> None:
    created = run("create.py", tmp_path)
    assert created[0] == "conda: python=3.12"
    assert created[2] == "left out of v1: azureml_environment.json:21: docker.shmSize"
    assert created[3:] == [
        "registered sklearn-train:1 (system-managed)",
        "registered scoring:1 (system-managed)",
        "registered as-it-is:1 (user-managed)",
        "registered image-and-pip:1 (system-managed)",
        "registered own-image:1 (user-managed)",
        "registered from-v1:1 (system-managed)",
        "again: 1",
        "changed: 2",
    ]
    managed = run("manage.py", tmp_path)
    assert "sklearn-train: latest 2, versions: 2" in managed
    assert "production 1, latest 2" in managed
    assert [each for each in managed if "OMP_NUM_THREADS" in each] == [
        '-   OMP_NUM_THREADS: "4"',
        '+   OMP_NUM_THREADS: "8"',
    ]
    assert "the same: True" in managed
    assert "archived: True" in managed
    assert managed[-1] == (
        "there is no environment 'sklearn-trian' (did you mean sklearn-train, sklearn-mine?)"
    )
    # Again: nothing new is registered by what is there already.
    assert run("create.py", tmp_path)[3:-1] == created[3:-1]


@pytest.mark.network
def test_use(tmp_path: Path) -> None:
    reference, *lines = run("use.py", tmp_path)
    assert reference.startswith("use:")
    assert lines == ["recorded: True", "the image is of use:1, locked: True", "hello six"]
