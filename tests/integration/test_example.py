"""The committed example on real packages: same lock, same bytes, wherever and however it is composed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.platforms import Platform, runs_linux

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "sklearn"
DIGEST = (EXAMPLE / "digest.txt").read_text().strip()
"""What every machine makes of the example's lock."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not runs_linux(), reason="byte code is compiled in a Linux user namespace"),
]


def envbuild(
    *arguments: str, cache: Path, umask: int = 0o022, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with its own cache and ``environment`` over this one's."""
    return subprocess.run(
        [sys.executable, "-m", "envbuild", *arguments],
        env={**os.environ, "ENVBUILD_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=900,
        umask=umask,
        check=False,
    )


def built(*arguments: str, cache: Path, umask: int = 0o022, **environment: str) -> str:
    """The digest that ``build`` printed."""
    done = envbuild("build", *arguments, cache=cache, umask=umask, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().partition("@")[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def example(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, built; see :func:`buildable`."""
    return buildable(tmp_path_factory.mktemp("example"), cache)


def buildable(directory: Path, cache: Path) -> Path:
    """A copy of the example in ``directory``, built: by the committed lock, or by a new one if a Debian
    package of that has left the mirror since, which happens to every lock in time."""
    copy = directory / "sklearn"
    shutil.copytree(EXAMPLE, copy)
    done = envbuild("build", "--locked", str(copy), cache=cache)
    if done.returncode == 6 and "--upgrade-package" in done.stderr:
        done = envbuild("build", "--upgrade", str(copy), cache=cache)
    assert done.returncode == 0, done.stderr
    return copy


@pytest.mark.skipif(Platform.host().architecture != "amd64", reason="the example is locked for linux/amd64")
def test_the_committed_lock_gives_the_committed_digest(example: Path, cache: Path) -> None:
    check = envbuild("lock", "--check", str(EXAMPLE), cache=cache)
    assert check.returncode == 0, check.stderr
    lock = Path("lockfiles", "sklearn-train", "envbuild.lock")
    if (example / lock).read_bytes() != (EXAMPLE / lock).read_bytes():
        pytest.skip("a pinned Debian package has left the mirror")
    assert built("--locked", str(example), cache=cache) == DIGEST


def test_training_runs_in_the_image_without_docker(example: Path, cache: Path, tmp_path: Path) -> None:
    done = envbuild(
        "run", "--locked", "--backend", "userns", "--workdir", str(tmp_path),
        "--mount", f"{EXAMPLE}/train.py:/train.py:ro", str(example), "--", "python", "/train.py",
        cache=cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "outputs" / "scores.json").read_text())
    assert scores["accuracy"] == 0.9441
    assert (tmp_path / "outputs" / "model.joblib").stat().st_uid == os.getuid()


SPEC = """\
name: {name}
platforms: [{platforms}]
python: "3.13"
requirements: [{requirements}]
environment_variables: {{{variables}}}
"""


def test_the_same_lock_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two platforms, in two directories, with nothing else in common: the index's digest covers all."""
    one, two = tmp_path / "one", tmp_path / "here" / "two"
    one.mkdir()
    (one / "envbuild.yaml").write_text(
        SPEC.format(
            name="same",
            platforms="linux/amd64, linux/arm64",
            requirements="markupsafe, click, jinja2",
            variables="A: one, B: two",
        )
    )
    first = built(str(one), cache=tmp_path / "cache-1")
    shutil.copytree(one, two)
    (two / "envbuild.yaml").write_text(
        SPEC.format(
            name="same",
            platforms="linux-aarch64, linux-64",
            requirements="jinja2, MarkupSafe, click",
            variables="B: two, A: one",
        )
    )
    home = tmp_path / "home"
    home.mkdir()
    second = built(
        "--locked",
        str(two),
        cache=tmp_path / "cache-2",
        umask=0o077,
        TZ="Asia/Kathmandu",
        LANG="C",
        LC_ALL="POSIX",
        HOME=str(home),
        PYTHONHASHSEED="7",
        ENVBUILD_WORKERS="7",
    )
    assert second == first
    assert built("--locked", "--no-cache", str(two), cache=tmp_path / "cache-2") == first
