"""A real workspace in a file, and specs to put into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.app.environments import Workspace
from envbuild.settings import Settings

SPEC = "name: train\npython: '3.13'\nrequirements: [six]\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", workspace=tmp_path / "data" / "workspace.db")


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with Workspace(settings, environ={"USER": "ann"}) as found:
        yield found


def write(directory: Path, text: str = SPEC, name: str = "envbuild.yaml") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path
