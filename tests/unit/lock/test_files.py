"""The lock's files: what is written is read back, and damage is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import LockError
from envbuild.lock.files import dump_lock, parse_lock, read_lock, write_lock
from tests.unit.lock.sample import AMD64, ARM64, BASE, IDNA, LIBC, LOCK, SIX, TZDATA


def test_a_lock_that_is_written_is_read_back_equal(tmp_path: Path) -> None:
    assert write_lock(tmp_path / "new", LOCK) is True
    assert read_lock(tmp_path / "new") == LOCK


def test_writing_what_is_there_changes_nothing(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert write_lock(tmp_path, LOCK) is False
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_the_files_are_those_of_their_fields() -> None:
    files = dump_lock(LOCK)
    assert sorted(files) == ["conda-lock.yml", "envbuild.lock", "requirements.linux-64.txt"]
    assert b"idna==3.10 \\\n    --hash=sha256:" + b"1" * 64 in files["requirements.linux-64.txt"]


def test_the_order_of_pins_and_platforms_does_not_show() -> None:
    shuffled = replace(
        LOCK,
        platforms=(
            ARM64,
            replace(AMD64, pip=(SIX, IDNA), base=replace(BASE, packages=(TZDATA, LIBC))),
        ),
    )
    assert dump_lock(shuffled) == dump_lock(LOCK)


def test_a_file_that_is_no_longer_needed_goes(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    write_lock(tmp_path, replace(LOCK, platforms=(replace(AMD64, pip=()),)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envbuild.lock"]


def test_no_lock_is_none(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(LockError) as caught:
        parse_lock(json.dumps({"format": 2, "anything": "else"}).encode())
    assert str(caught.value) == (
        "envbuild.lock: lock format 2 is newer than 1, the newest this envbuild reads"
    )
    assert caught.value.hint == "upgrade envbuild"


@pytest.mark.parametrize("name", ["envbuild.lock", "requirements.linux-64.txt", "conda-lock.yml"])
def test_an_edit_by_hand_is_found(tmp_path: Path, name: str) -> None:
    write_lock(tmp_path, LOCK)
    path = tmp_path / name
    path.write_text(path.read_text().replace("3" * 64, "4" * 64).replace("1.17.0", "1.16.0"))
    with pytest.raises(LockError, match=f"{name} was changed after"):
        read_lock(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    (tmp_path / "conda-lock.yml").unlink()
    with pytest.raises(LockError, match=r"conda-lock\.yml is missing, though envbuild\.lock names it"):
        read_lock(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"format": true}', b'{"format": "1"}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_lock_is_a_lock_error(data: bytes) -> None:
    with pytest.raises(LockError):
        parse_lock(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"definition": "sha256:1"}, "definition: must be a digest"),
        ({"bytecode": 1}, "bytecode: must be true or false"),
        ({"platforms": {}}, "platforms: none"),
        ({"platforms": {"plan9/mips": {}}}, "platforms: unknown platform 'plan9/mips'"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"files": {"../x": "sha256:" + "1" * 64}}, "files: '../x' isn't a file name with its digest"),
    ],
)
def test_a_body_that_does_not_fit_names_its_key(change: dict[str, object], message: str) -> None:
    from envbuild.digest import canonical_digest

    body = json.loads(dump_lock(LOCK)["envbuild.lock"]) | change
    del body["integrity"]
    body["integrity"] = canonical_digest("lock-file", 1, body)
    with pytest.raises(LockError) as caught:
        parse_lock(json.dumps(body).encode())
    assert str(caught.value) == f"envbuild.lock: {message}"


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "pool/../../x.deb"])
def test_a_package_path_never_leaves_the_archive(file: str) -> None:
    bad = replace(
        LOCK,
        platforms=(replace(AMD64, base=replace(BASE, packages=(replace(LIBC, file=file),))),),
    )
    with pytest.raises(LockError, match="leaves the archive"):
        parse_lock(dump_lock(bad)["envbuild.lock"])
