"""Formats of other packages: asked last, remembered while they are the same, harmless when broken."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.cache import remembered_spec
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec
from tests.fakes.wheelhouse import Wheel

IMPORTER = """
from envbuild.errors import SpecError
from envbuild.specs.model import PipRequirement, PipSpec, Spec
from envbuild.specs.model import Origin

class WishlistImporter:
    name = "wishlist"
    markers = ("Wishlist",)

    def recognises(self, file):
        return file.path.name == "Wishlist"

    def load(self, file):
        text = file.read(1000)
        if not text.strip():
            raise SpecError(f"{file.shown}: is empty")
        if text == "bug":
            raise KeyError("packages")
        if text == "nothing":
            return None
        lines = tuple(PipRequirement(text=line, origin=Origin(file=file.shown)) for line in text.split())
        return Spec(name="from-wishlist", source=file.path, pip=PipSpec(requirements=lines))

IMPORTER = WishlistImporter()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    return place


def install(site: Path, name: str, module: str, *, entry: str = "IMPORTER") -> None:
    """Unpacks a wheel with one module, as an installer does."""
    wheel = Wheel(
        name=name,
        files={f"{name}.py": module.encode()},
        entry_points=f"[envbuild.importers]\n{name} = {name}:{entry}\n",
    )
    archive = site / wheel.file
    archive.write_bytes(wheel.data())
    with zipfile.ZipFile(archive) as members:
        members.extractall(site)
    archive.unlink()


def texts(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


def test_file_and_directory_of_another_s_format_are_read(site: Path, tmp_path: Path) -> None:
    install(site, "others_read", IMPORTER)
    project = tmp_path / "project"
    project.mkdir()
    (project / "Wishlist").write_text("alpha\nbeta\n")
    assert texts(load_spec(project / "Wishlist")) == ["alpha", "beta"]
    assert load_spec(project).name == "from-wishlist"
    # Whatever is ours counts first.
    (project / "requirements.txt").write_text("gamma\n")
    assert texts(load_spec(project)) == ["gamma"]


def test_what_was_read_is_remembered_until_the_importer_changes(site: Path, tmp_path: Path) -> None:
    install(site, "others_kept", IMPORTER)
    project, memory = tmp_path / "project", tmp_path / "memory"
    project.mkdir()
    (project / "Wishlist").write_text("alpha\n")
    first = remembered_spec(project / "Wishlist", memory)
    (kept,) = memory.iterdir()
    before = kept.read_bytes()
    assert remembered_spec(project / "Wishlist", memory) == first
    assert kept.read_bytes() == before
    with (site / "others_kept.py").open("a") as file:
        file.write("# changed\n")
    assert remembered_spec(project / "Wishlist", memory) == first
    assert kept.read_bytes() != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Wishlist: is empty"),
        ("bug", "the format others_bad_text failed: KeyError: 'packages'"),
        ("nothing", "the format others_bad_text failed: it made NoneType of it"),
    ],
)
def test_what_an_importer_raises_is_an_error_of_the_file(
    site: Path, tmp_path: Path, text: str, said: str
) -> None:
    install(site, "others_bad_text", IMPORTER)
    (tmp_path / "Wishlist").write_text(text)
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path / "Wishlist")
    assert said in raised.value.message


def test_a_broken_one_is_told_and_harms_no_other(
    site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "others_a_broken", "raise RuntimeError('on purpose')")
    install(site, "others_b_empty", "x = 1")
    install(site, "others_c_good", IMPORTER)
    (tmp_path / "Wishlist").write_text("alpha")
    (tmp_path / "requirements.txt").write_text("beta")
    with caplog.at_level(logging.WARNING, "envbuild"):
        assert texts(load_spec(tmp_path / "requirements.txt")) == ["beta"]
        assert caplog.messages == []
        assert texts(load_spec(tmp_path / "Wishlist")) == ["alpha"]
    assert [message.partition(" can't")[0] for message in caplog.messages] == [
        "the format others_a_broken",
        "the format others_b_empty",
    ]


def test_nothing_is_looked_for_where_a_format_is_ours(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise AssertionError("entry points were looked for")

    monkeypatch.setattr("importlib.metadata.entry_points", fail)
    (tmp_path / "requirements.txt").write_text("alpha\n")
    assert texts(load_spec(tmp_path)) == ["alpha"]
    assert texts(remembered_spec(tmp_path, tmp_path / "memory")) == ["alpha"]
