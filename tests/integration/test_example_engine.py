"""The committed example in a real Docker engine: loaded, judged, run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_example import EXAMPLE, buildable, envbuild

pytestmark = [pytest.mark.engine, pytest.mark.network]

STRUCTURE = {
    "schemaVersion": "2.0.0",
    "metadataTest": {
        "user": "1000:1000",
        "cmd": ["python"],
        "workdir": "/home/env",
        "envVars": [{"key": "OMP_NUM_THREADS", "value": "2"}, {"key": "VIRTUAL_ENV", "value": "/opt/env"}],
    },
    "fileExistenceTests": [
        {
            "name": "home",
            "path": "/home/env",
            "shouldExist": True,
            "uid": 1000,
            "gid": 0,
            "permissions": "drwxrwxr-x",
        },
        {
            "name": "lock",
            "path": "/usr/share/envbuild/envbuild.lock",
            "shouldExist": True,
            "permissions": "-rw-r--r--",
        },
        {"name": "merged /usr", "path": "/lib/x86_64-linux-gnu/libc.so.6", "shouldExist": True},
    ],
    "commandTests": [
        {
            "name": "byte code is there and used",
            "command": "python",
            "args": ["-c", "import sklearn; print(sklearn.__cached__)"],
            "expectedOutput": ["__pycache__/__init__.cpython-313.pyc"],
        },
        {"name": "packages", "command": "python", "args": ["-m", "json.tool", "--help"]},
        {"name": "shell", "command": "sh", "args": ["-c", "ls /etc/ssl/certs/ca-certificates.crt"]},
    ],
}

IMPORTS = """
import importlib, importlib.metadata as metadata, sys
failed = []
for name, packages in sorted(metadata.packages_distributions().items()):
    if name.startswith("_") or not name.isidentifier():
        continue
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {error!r}")
print(len(metadata.packages_distributions()), failed)
sys.exit(bool(failed))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The example, at ``examples/sklearn`` of some directory."""
    return buildable(tmp_path_factory.mktemp("checkout") / "examples", cache)


@pytest.fixture(scope="module")
def image(example: Path, cache: Path) -> str:
    """The image by what ``build`` printed."""
    done = envbuild("build", "--locked", "--load", str(example), cache=cache)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300, check=False)


def test_what_build_prints_is_the_loaded_image(image: str) -> None:
    done = docker("image", "inspect", image)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["Config"]["Labels"]["dev.envbuild.level"] == "L3"
    assert image.partition("@")[0] in found["RepoTags"]


@pytest.mark.parametrize(
    ("step", "added"),
    [("RUN touch /home/env/theirs", "1 layer of others"), ('ENTRYPOINT ["sh"]', "settings of others")],
)
def test_an_image_built_from_ours_is_not_taken_for_ours(
    image: str, cache: Path, tmp_path: Path, step: str, added: str
) -> None:
    name = f"envbuild-test-derived-{os.getpid()}"
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\n{step}\n")
    made = docker("build", "--network=host", "-t", name, str(tmp_path))
    assert made.returncode == 0, made.stderr
    try:
        done = envbuild("inspect", f"docker-daemon:{name}", "--json", cache=cache)
        assert done.returncode == 0, done.stderr
        (shown,) = json.loads(done.stdout)["images"]
        assert (shown["level"], shown["derived"]) == (None, added)
        done = envbuild("rebase", f"docker-daemon:{name}", "--onto", "debian", cache=cache)
        assert done.returncode == 6
        assert f"has {added}: it was made of an image of envbuild's" in done.stderr
        # What the engine keeps of ours is still ours, under a manifest of its own.
        done = envbuild("inspect", f"docker-daemon:{image.partition('@')[0]}", "--json", cache=cache)
        (shown,) = json.loads(done.stdout)["images"]
        assert (shown["level"], shown["derived"]) == ("L3", None)
    finally:
        docker("rmi", "-f", name)


def test_every_top_level_package_is_imported(image: str) -> None:
    done = docker("run", "--rm", "--network=host", image, "python", "-W", "ignore", "-c", IMPORTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_trains(image: str, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "train.py", tmp_path)
    done = docker(
        "run", "--rm", "--network=host", "-u", f"{os.getuid()}:{os.getgid()}",
        "-v", f"{tmp_path}:/workspace", "-w", "/workspace", image, "python", "train.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "outputs" / "scores.json").read_text())["accuracy"] == 0.9441


def test_container_structure_test_finds_what_was_planned(image: str, tmp_path: Path) -> None:
    config = tmp_path / "structure.json"
    config.write_text(json.dumps(STRUCTURE))
    judge = Path(sys.executable).with_name("container-structure-test")
    done = subprocess.run(
        [judge, "test", "--image", image, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
