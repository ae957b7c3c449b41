"""The bytes of a tar archive."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from envbuild.compose.base import Entry, EntryKind
from envbuild.compose.tar import END, check_path, entry_header, entry_stream
from envbuild.errors import BuildError
from tests.fakes.source import directory, file, symlink


def archive(*entries: Entry) -> bytes:
    return b"".join(chunk for entry in entries for chunk in entry_stream(entry)) + END


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def test_bytes_of_a_small_archive_are_fixed() -> None:
    data = archive(directory("tmp", 0o1777), file("tmp/a", b"hello", 0o755), symlink("tmp/b", "a"))
    assert hashlib.sha256(data).hexdigest() == (
        "f4eaf3d9e4ca8aab8b1fed85965a3ecac5929d5f50e26eb33ce48df0b15170ca"
    )


def test_short_names_are_plain_ustar() -> None:
    data = archive(file("a/b", b"x"))
    assert data[257:265] == b"ustar\x0000"
    assert data[156:157] == b"0"
    assert data[265:329] == bytes(64), "owner names are empty"
    assert len(data) == 512 + 512 + 1024


def test_a_long_name_that_ustar_can_split_needs_no_pax_header() -> None:
    path = "d" * 120 + "/" + "f" * 100
    data = archive(file(path))
    assert data[156:157] == b"0"
    assert members(data)[0].name == path


@pytest.mark.parametrize(
    "path", ["d" * 101, "a/" * 150 + "f", "ü", "a/" + "f" * 101, "d" * 156 + "/f" * 30, "x" * 99 + "é"]
)
def test_names_ustar_cannot_hold_come_back_through_pax(path: str) -> None:
    data = archive(file(path, b"content"))
    assert data[156:157] == b"x"
    [member] = members(data)
    assert (member.name, member.size) == (path, 7)


def test_long_and_foreign_link_targets_come_back() -> None:
    targets = ["t" * 101, "zïel", "plain"]
    data = archive(*(symlink(f"l{number}", target) for number, target in enumerate(targets)))
    assert [member.linkname for member in members(data)] == targets
    assert {member.mode for member in members(data)} == {0o777}


def test_large_owners_come_back() -> None:
    [member] = members(archive(Entry(path="a", uid=0o7777777 + 1, gid=4_000_000_000)))
    assert (member.uid, member.gid) == (0o7777777 + 1, 4_000_000_000)


def test_eight_gibibytes_come_back_through_pax() -> None:
    header = entry_header(Entry(path="big"), 8 << 30, 0)
    assert b"size=8589934592\n" in header
    assert tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict").name == "big"


def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    data = archive(directory("d" * 90 + "/" + "e" * 120), file("é" * 60, b"12345"), symlink("s", "t" * 150))
    (tmp_path / "a.tar").write_bytes(data)
    listed = subprocess.run(
        ["tar", "--numeric-owner", "--utc", "-tvf", "a.tar"],
        cwd=tmp_path,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stderr == ""
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["drwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx"]
    assert lines[1].endswith("5 1980-01-01 00:00 " + "é" * 60)


def test_files_are_streamed_and_keep_no_metadata_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"z" * 3_000_000)
    path.chmod(0o600)
    pieces = list(entry_stream(file("f", path, 0o755)))
    assert max(map(len, pieces)) <= 1 << 20
    assert b"".join(pieces) == b"".join(entry_stream(file("f", b"z" * 3_000_000, 0o755)))


def test_a_file_that_is_gone_is_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"can't read .*gone for a/b: No such file"):
        list(entry_stream(file("a/b", tmp_path / "gone")))


@pytest.mark.parametrize(
    "path", ["", "/etc", "a//b", "a/../b", "./a", "a/.", "a/", "a\0b", "a/.wh.b", ".wh..wh..opq"]
)
def test_paths_that_may_not_stand_in_a_layer(path: str) -> None:
    with pytest.raises(BuildError):
        check_path(path)


def test_names_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(BuildError, match="not UTF-8"):
        check_path("a\udcff")
    with pytest.raises(BuildError, match="not UTF-8"):
        entry_header(Entry(path="l", kind=EntryKind.SYMLINK, target="\udcff"), 0, 0)


def test_a_time_no_header_can_hold_is_an_error() -> None:
    with pytest.raises(BuildError, match="doesn't fit into a tar header"):
        entry_header(Entry(path="a"), 0, -1)
