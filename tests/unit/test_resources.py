"""Files shipped with envbuild are found in a checkout; test_packaging does the same for a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

import envbuild.resources
from envbuild.errors import EnvbuildError
from envbuild.resources import resource_directory

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["templates", "lockfiles"])
def test_checkout_has_them_at_the_top(name: Literal["templates", "lockfiles"]) -> None:
    assert resource_directory(name) == ROOT / name
    assert (resource_directory(name) / "README.md").is_file()


def test_installation_without_them_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envbuild.resources, "__file__", str(tmp_path / "envbuild" / "resources.py"))
    with pytest.raises(EnvbuildError, match="has no templates directory") as caught:
        resource_directory("templates")
    assert str(tmp_path / "envbuild" / "_data" / "templates") in caught.value.message
