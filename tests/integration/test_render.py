"""``envbuild render`` on the committed example: same lock, same bytes, and nothing that isn't needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from envbuild.platforms import runs_linux
from tests.integration.test_example import buildable, envbuild

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not runs_linux(), reason="byte code is compiled in a Linux user namespace"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def example(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return buildable(tmp_path_factory.mktemp("example"), cache)


def tree(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file's SHA-256 and mode."""
    return {
        path.relative_to(directory).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode & 0o7777,
        )
        for path in directory.rglob("*")
        if path.is_file()
    }


def rendered(output: Path, *arguments: str, cache: Path, umask: int = 0o022, **environment: str) -> Path:
    done = envbuild(
        "render", "--locked", "-o", str(output), *arguments, cache=cache, umask=umask, **environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n"
    return output


def test_same_lock_same_bytes(example: Path, cache: Path, tmp_path: Path) -> None:
    one = rendered(tmp_path / "one", str(example), cache=cache)
    other = rendered(
        tmp_path / "other", str(example), cache=tmp_path / "cache", umask=0o077,
        TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7",
    )  # fmt: skip
    assert tree(one) == tree(other)
    assert {mode for _, mode in tree(one).values()} == {0o644}


def test_an_offline_context_has_exactly_the_pinned_wheels(example: Path, cache: Path, tmp_path: Path) -> None:
    context = rendered(tmp_path / "context", str(example), "--offline-context", cache=cache)
    lock = json.loads((example / "lockfiles" / "sklearn-train" / "envbuild.lock").read_text())
    pins = {pin["file"]: pin["sha256"] for pin in lock["platforms"]["linux/amd64"]["pip"]}
    found = {
        path.removeprefix("wheels/"): sha for path, (sha, _) in tree(context).items() if "wheels/" in path
    }
    assert found == pins
    # What was fetched once is all there is to it: no network the second time.
    again = rendered(tmp_path / "again", str(example), "--offline-context", "--offline", cache=cache)
    assert tree(again) == tree(context)


def test_a_directory_with_other_things_is_left_alone(example: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = envbuild("render", "--locked", "-o", str(tmp_path), str(example), cache=cache)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_rendering_again_replaces_what_was_rendered(example: Path, cache: Path, tmp_path: Path) -> None:
    output = rendered(tmp_path / "context", str(example), "--offline-context", cache=cache)
    rendered(output, str(example), cache=cache)
    assert not (output / "wheels").exists()
    assert tree(output) == tree(rendered(tmp_path / "fresh", str(example), cache=cache))


def test_own_templates_go_before_ours(example: Path, cache: Path, tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "system-managed-python.Dockerfile.j2").write_text(
        '{% extends "envbuild/system-managed-python.Dockerfile.j2" %}\n'
        "{% block extra_image %}\nRUN ldconfig\n{% endblock %}\n"
    )
    ours = rendered(tmp_path / "ours", str(example), cache=cache)
    mine = rendered(tmp_path / "mine", str(example), "--template-dir", str(templates), cache=cache)
    before, after = ((each / "Dockerfile").read_text().splitlines() for each in (ours, mine))
    digest = after[1].rsplit(" ", 1)[1].removesuffix(".")
    assert digest not in "\n".join(before)
    assert "RUN ldconfig" in after[: after.index("USER 1000:1000")]
