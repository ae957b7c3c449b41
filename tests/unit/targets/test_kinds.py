"""Kinds of targets that other packages bring, as installed packages say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import UsageError
from envbuild.oci.digest import digest_bytes
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import TargetRecord
from envbuild.targets.kinds import TargetContext, kind, kind_names, open_target

GOOD = """
from envbuild.targets.files.compose import ComposeFiles

class Kind:
    name = "nomad"
    options = ()

    def open(self, record, surroundings):
        return ComposeFiles(record.name)

KIND = Kind()
"""


def install(root: Path, name: str, value: str, module: str) -> None:
    """As an installer leaves it: a module and its metadata."""
    info = root / f"{name}_kind-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-kind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[envbuild.targets]\n{name} = {value}\n")
    (root / f"{value.partition(':')[0]}.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    return place


def test_another_s_kind_is_listed_and_opened(site: Path, tmp_path: Path) -> None:
    install(site, "nomad", "nomad_kind_good:KIND", GOOD)
    assert kind_names()[-1] == "nomad"
    surroundings = TargetContext(
        store=Store(tmp_path / "store"), progress=Silent(), state=tmp_path, environ={}
    )
    assert open_target(TargetRecord(name="n", kind="nomad"), surroundings).record.name == "n"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import nothing_of_that_name", "can't be loaded from {}:KIND: No module named"),
        ("raise RuntimeError('broken on purpose')", "can't be loaded from {}:KIND: broken on purpose"),
        ("x = 1", "can't be loaded from {}:KIND: module '{}' has no attribute 'KIND'"),
        ("KIND = object()", "can't be used: {}:KIND has no options and no open"),
        (f"{GOOD}\nKIND = Kind", "can't be used: {}:KIND is a class, not a kind"),
    ],
)
def test_a_broken_one_says_so_and_harms_no_other(site: Path, module: str, said: str) -> None:
    name = f"bad_kind_{digest_bytes(module.encode())[7:15]}"
    install(site, "bad", f"{name}:KIND", module)
    assert "bad" in kind_names()
    assert kind("docker").name == "docker"
    with pytest.raises(UsageError) as raised:
        kind("bad")
    assert said.format(name, name) in raised.value.message
    assert raised.value.hint == "upgrade or remove the package that brings it"


def test_none_can_take_the_place_of_ours(site: Path) -> None:
    install(site, "docker", "evil_kind:KIND", "raise SystemExit('imported')")
    assert kind_names().count("docker") == 1
    assert kind("docker").name == "docker"


def test_unknown_kind_is_answered_by_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown kind of target 'dcker'; did you mean docker"):
        kind("dcker")
