"""Specs that were read before: equal to a fresh read, and forgotten when any file changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.oci.digest import digest_bytes
from envbuild.specs.cache import remembered_spec
from envbuild.specs.load import load_spec
from envbuild.specs.text.source import SourceFile, state_of

CASES = Path(__file__).parents[2] / "cases" / "spec"
GOOD = sorted(path.name for path in CASES.iterdir() if not path.name.startswith("error-"))


def spec_of(case: str) -> Path:
    return next(path for path in sorted((CASES / case).iterdir()) if not path.name.startswith("expected"))


@pytest.mark.parametrize("case", GOOD)
def test_what_is_remembered_equals_what_was_read(case: str, tmp_path: Path) -> None:
    path = CASES / case
    if (path / "SPEC").is_file():
        path = path / (path / "SPEC").read_text(encoding="utf-8").strip()
    try:
        fresh = load_spec(path)
    except SpecError:
        path = spec_of(case)
        fresh = load_spec(path)
    assert remembered_spec(path, tmp_path) == fresh
    assert len(list(tmp_path.iterdir())) == 1
    assert remembered_spec(path, tmp_path) == fresh


def test_a_change_of_an_included_file_is_seen(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    (tmp_path / "requirements.in").write_text("-r more.in\nsix\n")
    (tmp_path / "more.in").write_text("idna\n")
    first = remembered_spec(tmp_path / "requirements.in", memory)
    assert [requirement.text for requirement in first.pip.requirements] == ["idna", "six"]
    (tmp_path / "more.in").write_text("attrs\n")
    second = remembered_spec(tmp_path / "requirements.in", memory)
    assert [requirement.text for requirement in second.pip.requirements] == ["attrs", "six"]


def test_a_file_that_became_wrong_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "requirements.in"
    path.write_text("six\n")
    remembered_spec(path, tmp_path / "memory")
    path.write_text("six ==\n")
    with pytest.raises(SpecError):
        remembered_spec(path, tmp_path / "memory")


@pytest.mark.parametrize("damage", [b"", b"{}", b"x\n{}", b"\xff"])
def test_a_damaged_memory_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "requirements.in"
    path.write_text("six\n")
    memory = tmp_path / "memory"
    fresh = remembered_spec(path, memory)
    (record,) = memory.iterdir()
    whole = record.read_bytes()
    record.write_bytes(damage)
    assert remembered_spec(path, memory) == fresh
    assert record.read_bytes() == whole


def test_a_memory_that_can_t_be_written_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "requirements.in"
    path.write_text("six\n")
    (tmp_path / "memory").write_text("a file, not a directory")
    assert remembered_spec(path, tmp_path / "memory") == load_spec(path)


def test_a_file_that_was_looked_for_and_appears_is_seen(tmp_path: Path) -> None:
    reads: dict[Path, str] = {}
    file = SourceFile.at(tmp_path / "conda.yaml", reads)
    assert not file.is_there()
    assert reads == {tmp_path / "conda.yaml": ""}
    assert state_of(tmp_path / "conda.yaml") == ""
    (tmp_path / "conda.yaml").touch()
    assert state_of(tmp_path / "conda.yaml") == digest_bytes(b"")
