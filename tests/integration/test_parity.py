"""An environment composed natively and one built by Docker are the same, but for what is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.parity import config, differences, docker, members, packages
from tests.integration.test_example import buildable, envbuild

pytestmark = [pytest.mark.engine, pytest.mark.network]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def example(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return buildable(tmp_path_factory.mktemp("example"), cache)


@pytest.fixture(scope="module")
def native(example: Path, cache: Path) -> str:
    return loaded(example, "native", cache)


def loaded(example: Path, engine: str, cache: Path) -> str:
    """The example's image as ``engine`` makes it, by its name in the Docker engine."""
    done = envbuild("build", "--locked", "--engine", engine, "--load", str(example), cache=cache)
    assert done.returncode == 0, done.stderr
    level = "L3" if engine == "native" else "L2"
    assert f"linux/amd64  {level}  " in done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("engine", ["docker", "buildx"])
def test_same_packages_variables_user_command_and_files(
    engine: str, example: Path, native: str, cache: Path
) -> None:
    built = loaded(example, engine, cache)
    assert built != native
    assert packages(built) == packages(native)
    assert config(built) == config(native)
    found = differences(members(native), members(built))
    assert found.pop("", []) == []
    assert set(found) >= {"a Dockerfile was used", "venv makes them", "pip says that it was pip"}
    # Byte code differs by a bit of marshal's now and then, not as a rule.
    assert len(found.get("marshal marks by reference counts", [])) < 100
    history = docker("history", "--no-trunc", built)
    assert "ARG" not in history
