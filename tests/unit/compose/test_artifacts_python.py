"""Standalone pythons as entries: everything below ``python/``, and nothing else of an archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from envbuild.compose.artifacts.python import PythonSource
from envbuild.compose.base import Entry, EntryKind
from envbuild.errors import BuildError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.model import PythonBuild
from envbuild.plan.model import Artifact, ArtifactKind
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.python_build import serve_directory

Member = tuple[tarfile.TarInfo, bytes]
PUBLISHED = "https://github.com/astral-sh/python-build-standalone/releases/download"
FILE = "cpython-3.10.13+20260101-x86_64-unknown-linux-gnu-install_only.tar.gz"
LARGE = b"x" * (65 << 10)


def member(
    name: str, data: bytes = b"", *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Member:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.type, entry.linkname = len(data), mode, kind, link
    entry.uid, entry.mtime = 1001, 1234567890
    return entry, data


PROGRAM = member("python/bin/python3.10", b"elf", mode=0o4775)


def archive(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, data in members:
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def artifact(data: bytes) -> Artifact:
    build = PythonBuild(
        version="3.10.13",
        url=f"{PUBLISHED}/20260101/{FILE.replace('+', '%2B')}",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return Artifact.of(build)


def entries(data: bytes, tmp_path: Path, store: Store) -> Sequence[Entry]:
    release = tmp_path / "mirror" / "20260101"
    release.mkdir(parents=True)
    (release / FILE).write_bytes(data)
    python = artifact(data)
    with serve_directory(tmp_path / "mirror") as (root, _):
        settings = Settings(cache_dir=store.root, python_mirror=root)
        with HttpFetcher(store, offline=False, settings=settings, progress=Silent(), environ={}) as fetcher:
            source = PythonSource(fetcher, store, mirror=root, scratch=tmp_path)
            source.fetch([python])
            return list(source.entries(python))


def test_all_below_python_stands_below_opt_python(tmp_path: Path, store: Store) -> None:
    data = archive(
        member("python/lib/python3.10/os.py", b"os", mode=0o600),
        member("python", kind=tarfile.DIRTYPE, mode=0o700),
        PROGRAM,
        member("python/bin/python3", kind=tarfile.SYMTYPE, link="python3.10"),
        member("python/bin/twin", kind=tarfile.LNKTYPE, link="python/bin/python3.10"),
        member("python/lib/libpython3.10.so.1.0", LARGE, mode=0o755),
        member("python/lib/python3.10/__pycache__/os.cpython-310.pyc", b"of another time"),
        member("python/include", kind=tarfile.DIRTYPE),
    )
    found = entries(data, tmp_path, store)
    assert [(entry.path, entry.kind, entry.mode, entry.target) for entry in found] == [
        ("opt/python/bin/python3", EntryKind.SYMLINK, 0o644, "python3.10"),
        ("opt/python/bin/python3.10", EntryKind.FILE, 0o755, ""),
        ("opt/python/bin/twin", EntryKind.FILE, 0o755, ""),
        ("opt/python/lib/libpython3.10.so.1.0", EntryKind.FILE, 0o755, ""),
        ("opt/python/lib/python3.10/os.py", EntryKind.FILE, 0o644, ""),
    ]
    assert {(entry.uid, entry.gid) for entry in found} == {(0, 0)}
    contents = [
        entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes() for entry in found
    ]
    assert contents == [b"", b"elf", b"elf", LARGE, b"os"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([PROGRAM, member("../../etc/cron.d/x")], "leaves the prefix"),
        ([PROGRAM, member("/etc/passwd")], "is absolute"),
        ([PROGRAM, member("etc/passwd")], "etc/passwd lies outside python/"),
        ([PROGRAM, member("python/lib", kind=tarfile.SYMTYPE, link="/etc")], "leads to '/etc'"),
        ([PROGRAM, member("python/lib", kind=tarfile.SYMTYPE, link="../../etc")], "leaves the prefix"),
        ([PROGRAM, member("python/x", kind=tarfile.LNKTYPE, link="/etc/shadow")], "is absolute"),
        ([PROGRAM, member("python/x", kind=tarfile.CHRTYPE)], "is a device"),
        ([PROGRAM, PROGRAM], "is there twice"),
        ([PROGRAM, member("python/.wh.lib")], "would delete a file"),
        ([member("python/bin/python3.11", b"elf")], "has no python/bin/python3.10"),
        ([], "has no python/bin/python3.10"),
    ],
)
def test_an_archive_that_no_release_has_is_refused(
    members: Sequence[Member], words: str, tmp_path: Path, store: Store
) -> None:
    with pytest.raises(BuildError, match=words) as caught:
        entries(archive(*members), tmp_path, store)
    assert "the standalone python 3.10.13 (cpython-3.10.13+20260101" in caught.value.message
    assert "channel" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "data", [b"", b"no archive", archive(PROGRAM)[:-20], archive(PROGRAM)[:40] + b"\0" * 40]
)
def test_a_damaged_archive_is_refused(data: bytes, tmp_path: Path, store: Store) -> None:
    with pytest.raises(BuildError, match=r"damaged archive|has no python/bin"):
        entries(data, tmp_path, store)


def test_one_that_is_gone_names_the_mirror_s_setting(tmp_path: Path, store: Store) -> None:
    (tmp_path / "mirror").mkdir()
    with serve_directory(tmp_path / "mirror") as (root, _):
        settings = Settings(cache_dir=store.root)
        with HttpFetcher(store, offline=False, settings=settings, progress=Silent(), environ={}) as fetcher:
            source = PythonSource(fetcher, store, mirror=root, scratch=tmp_path)
            with pytest.raises(BuildError, match=r"can't get python 3\.10\.13 from http://127") as caught:
                source.fetch([artifact(archive(PROGRAM))])
    assert caught.value.hint == "set ENVBUILD_PYTHON_MIRROR to a mirror that has it"


def test_it_is_an_artifact_of_its_own_kind() -> None:
    assert artifact(b"").kind is ArtifactKind.PYTHON
