"""Conda packages linked into the prefix: what conda would put there, and nothing unsafe."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.compose.artifacts.conda.source import CondaSource
from envbuild.compose.base import Entry, EntryKind
from envbuild.errors import BuildError
from envbuild.http.base import Download
from envbuild.lock.conda.listing import read_listing
from envbuild.lock.model import CondaPin, PythonPin
from envbuild.plan.model import Artifact
from envbuild.plan.system import history_file
from envbuild.store.content import Store
from tests.fakes.channel import PLACEHOLDER, File, Package, index_json, make_package

PYTHON = PythonPin(version="3.12.4", provider="conda", executable="/opt/env/bin/python3.12")


class Files:
    """A fetcher of ``file:`` URLs."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def files(self, downloads: Sequence[Download], *, stage: str = "download") -> dict[str, Path]:
        for download in downloads:
            path = self.store.artifact(download.sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(download.urls[0].removeprefix("file://"), path)
        return {download.sha256: self.store.artifact(download.sha256) for download in downloads}

    def read(self, url: str, *, limit: int, cache: bool = False) -> bytes:
        raise AssertionError("no document is read")


def artifact_of(package: Package, directory: Path) -> Artifact:
    path = make_package(package, directory)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    index = index_json(package)
    pin = CondaPin(
        name=package.name,
        version=package.version,
        build=package.build,
        subdir=package.place,
        url=path.as_uri(),
        size=len(data),
        sha256=sha256,
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        depends=tuple(index["depends"]),
        noarch=package.noarch,
        channel=directory.as_uri(),
        timestamp=package.timestamp,
    )
    return Artifact.of(pin)


def link(package: Package, directory: Path, **options: Any) -> dict[str, Entry]:
    """The package's entries by path; contents that are files of the scratch space become bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    artifact = artifact_of(package, directory)
    store = Store(directory / "store")
    source = CondaSource(store, Files(store), **{"python": PYTHON, **options})
    source.fetch([artifact])
    found = []
    for entry in source.entries(artifact):
        content = entry.content.read_bytes() if isinstance(entry.content, Path) else entry.content
        found.append(replace(entry, content=content))
    paths = [entry.path for entry in found]
    assert paths == sorted(set(paths))
    assert list((store.root / "scratch").iterdir()) == []
    return {entry.path: entry for entry in found}


def refusal(package: Package, directory: Path) -> str:
    with pytest.raises(BuildError) as caught:
        link(package, directory)
    return caught.value.message


def record(entries: dict[str, Entry], name: str) -> dict[str, Any]:
    content = entries[f"opt/env/conda-meta/{name}.json"].content
    assert isinstance(content, bytes)
    loaded: dict[str, Any] = json.loads(content)
    return loaded


@pytest.mark.parametrize(("extension", "old"), [(".conda", False), (".tar.bz2", False), (".tar.bz2", True)])
def test_files_links_and_prefixes_arrive(tmp_path: Path, extension: str, old: bool) -> None:
    big = b"\0" * 100_000 + PLACEHOLDER.encode() + b"/share\0rest" + b"x" * 100_000
    package = Package(
        name="tool",
        extension=extension,
        old=old,
        files=(
            File(
                path="bin/tool",
                content=f"#!{PLACEHOLDER}/bin/sh\ncd {PLACEHOLDER}\n".encode(),
                executable=True,
                prefix="text",
            ),
            File(path="bin/t", target="tool"),
            File(path="lib/big.so", content=big, prefix="binary"),
            File(path="lib/copy.so", hard_link="lib/plain.so"),
            File(path="lib/plain.so", content=b"plain"),
        ),
    )
    # A hard link follows its target in a tar archive.
    package = replace(package, files=(*package.files[:3], package.files[4], package.files[3]))
    entries = link(package, tmp_path)
    assert entries["opt/env/bin/tool"] == Entry(
        path="opt/env/bin/tool", mode=0o755, content=b"#!/opt/env/bin/sh\ncd /opt/env\n"
    )
    assert entries["opt/env/bin/t"] == Entry(
        path="opt/env/bin/t", kind=EntryKind.SYMLINK, mode=0o777, target="tool"
    )
    padded = b"/opt/env/share" + b"\0" * (len(PLACEHOLDER) - len("/opt/env")) + b"\0rest"
    assert entries["opt/env/lib/big.so"].content == b"\0" * 100_000 + padded + b"x" * 100_000
    assert entries["opt/env/lib/copy.so"].content == b"plain"
    assert entries["opt/env/lib/plain.so"].mode == 0o644


def test_noarch_python_goes_to_the_interpreter(tmp_path: Path) -> None:
    package = Package(
        name="greeter",
        version="0.3",
        noarch="python",
        entry_points=("greet = greeter.cli:app.main",),
        files=(
            File(path="site-packages/greeter/cli.py", content=b"x = 1\n"),
            File(path="python-scripts/old", content=b"#!/bin/sh\n", executable=True),
            File(path="share/greeter", content=b""),
        ),
    )
    entries = link(package, tmp_path)
    assert list(entries) == [
        "opt/env/bin/greet",
        "opt/env/bin/old",
        "opt/env/conda-meta/greeter-0.3-0.json",
        "opt/env/lib/python3.12/site-packages/greeter/cli.py",
        "opt/env/share/greeter",
    ]
    assert entries["opt/env/bin/greet"].mode == 0o755
    assert entries["opt/env/bin/greet"].content == (
        b"#!/opt/env/bin/python3.12\n# -*- coding: utf-8 -*-\nimport re\nimport sys\n\n"
        b"from greeter.cli import app\n\nif __name__ == '__main__':\n"
        b"    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n"
        b"    sys.exit(app.main())\n"
    )
    elsewhere = link(package, tmp_path / "b", site_packages="lib/python3.13t/site-packages")
    assert "opt/env/lib/python3.13t/site-packages/greeter/cli.py" in elsewhere


def test_the_record_is_one_that_rattler_reads(tmp_path: Path) -> None:
    from rattler import PrefixRecord

    package = Package(
        name="greeter",
        noarch="python",
        depends=("python >=3.9",),
        entry_points=("greet = greeter:main",),
        files=(
            File(path="site-packages/greeter.py", content=b"pass\n"),
            File(path="etc/g", content=PLACEHOLDER.encode(), prefix="text"),
        ),
    )
    entries = link(package, tmp_path)
    path = tmp_path / "greeter-1.0-0.json"
    content = entries["opt/env/conda-meta/greeter-1.0-0.json"].content
    assert isinstance(content, bytes)
    path.write_bytes(content)
    read = PrefixRecord.from_path(path)
    assert str(read.name.normalized) == "greeter"
    assert [str(file) for file in read.files] == [
        "bin/greet",
        "etc/g",
        "lib/python3.12/site-packages/greeter.py",
    ]
    assert read.depends == ["python >=3.9"]
    stated = record(entries, "greeter-1.0-0")["paths_data"]["paths"]
    assert stated[1]["sha256_in_prefix"] == hashlib.sha256(b"/opt/env").hexdigest()
    assert stated[1]["sha256"] == hashlib.sha256(PLACEHOLDER.encode()).hexdigest()
    assert stated[0]["path_type"] == "unix_python_entry_point"


def test_linking_twice_gives_the_same_entries(tmp_path: Path) -> None:
    package = Package(
        name="a", files=(File(path="share/z", content=b"1"), File(path="share/a", content=b"2"))
    )
    directory = tmp_path / "channel"
    directory.mkdir()
    artifact = artifact_of(package, directory)
    results = []
    for name in ("one", "two"):
        store = Store(tmp_path / name)
        source = CondaSource(store, Files(store), python=PYTHON)
        source.fetch([artifact])
        results.append(list(source.entries(artifact)))
    assert results[0] == results[1]


def test_shipped_byte_code_gives_way_to_ours(tmp_path: Path) -> None:
    package = Package(
        name="p",
        files=(
            File(path="lib/python3.12/m.py", content=b""),
            File(path="lib/python3.12/__pycache__/m.cpython-312.pyc", content=b"theirs"),
            File(path="lib/python3.12/__pycache__/m.cpython-312.opt-1.pyc", content=b"theirs"),
            File(path="lib/python3.12/__pycache__/lonely.cpython-312.pyc", content=b"no source"),
        ),
    )
    lonely = "opt/env/lib/python3.12/__pycache__/lonely.cpython-312.pyc"
    dropped = link(package, tmp_path / "a")
    assert [path for path in dropped if path.endswith(".pyc")] == [lonely]
    kept = link(package, tmp_path / "b", drop_bytecode=False)
    assert len([path for path in kept if path.endswith(".pyc")]) == 3


@pytest.mark.parametrize("extension", [".conda", ".tar.bz2"])
def test_scripts_are_refused_before_work_begins(tmp_path: Path, extension: str) -> None:
    package = Package(
        name="scripted",
        extension=extension,
        files=(File(path="bin/.scripted-post-link.sh", content=b"true"),),
    )
    artifact = artifact_of(package, tmp_path)
    assert isinstance(artifact.pin, CondaPin)
    listing = read_listing(artifact.pin, tmp_path / "linux-64" / package.file_name)
    assert listing.link_script == "it runs a post-link script"
    store = Store(tmp_path / "store")
    with pytest.raises(BuildError) as caught:
        CondaSource(store, Files(store)).fetch([artifact])
    assert caught.value.message == (
        "conda package scripted 1.0 can't be composed: it runs a post-link script"
    )
    assert caught.value.hint == (
        "--engine buildx or docker runs it while the image is built; or pin a build without a script"
    )


def test_nobody_is_sent_to_an_engine_with_a_script_that_none_runs(tmp_path: Path) -> None:
    package = Package(name="old", files=(File(path="bin/.old-pre-link.sh", content=b"true"),))
    artifact = artifact_of(package, tmp_path)
    store = Store(tmp_path / "store")
    with pytest.raises(BuildError) as caught:
        CondaSource(store, Files(store)).fetch([artifact])
    assert caught.value.message == "conda package old 1.0 can't be composed: it runs a pre-link script"
    assert caught.value.hint == "no engine runs a pre-link script: pin a build without one"


HOSTILE = {
    "above": (File(path="../evil", content=b"x"), "the path '../evil' leaves the prefix"),
    "inside": (File(path="a/../../evil", content=b"x"), "the path 'a/../../evil' leaves the prefix"),
    "absolute": (File(path="/etc/passwd", content=b"x"), "the path '/etc/passwd' is absolute or has a NUL"),
    "whiteout": (File(path="lib/.wh.x", content=b""), "the path 'lib/.wh.x' would delete a file of an image"),
    "link": (File(path="lib/l", target="../../etc"), "the symlink lib/l to '../../etc' leaves the prefix"),
    "root": (File(path="lib/l", target="/etc"), "the symlink lib/l leads to '/etc'"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("extension", [".conda", ".tar.bz2"])
def test_hostile_members_are_refused(tmp_path: Path, case: str, extension: str) -> None:
    file, reason = HOSTILE[case]
    package = Package(name="evil", extension=extension, files=(file,), paths=False)
    assert refusal(package, tmp_path) == f"conda package evil 1.0: refused: {reason}"


def test_a_symlink_that_leaves_through_another_is_refused(tmp_path: Path) -> None:
    package = Package(
        name="evil", files=(File(path="a/b/up", target="../.."), File(path="a/b/out", target="up/../etc"))
    )
    assert refusal(package, tmp_path) == (
        "conda package evil 1.0: refused: the symlink a/b/out to 'up/../etc' leaves the prefix"
    )


def test_a_file_below_a_symlink_is_refused(tmp_path: Path) -> None:
    package = Package(name="evil", files=(File(path="d", target="lib"), File(path="d/x", content=b"x")))
    assert refusal(package, tmp_path) == "conda package evil 1.0: refused: d/x lies below the symlink d"


def test_one_path_twice_is_refused(tmp_path: Path) -> None:
    package = Package(name="evil", files=(File(path="x", content=b"1"), File(path="./x", content=b"2")))
    assert refusal(package, tmp_path) == "conda package evil 1.0: the path x is there twice"


def test_a_file_other_than_stated_is_named(tmp_path: Path) -> None:
    package = Package(
        name="bad",
        files=(
            File(path="a", content=b"1", stated={"size_in_bytes": 9}),
            File(path="b", content=b"1", stated={"sha256": "0" * 64}),
        ),
    )
    assert refusal(package, tmp_path) == (
        "conda package bad 1.0: not what its metadata says: a has 1 bytes, not 9; "
        f"b has SHA-256 {hashlib.sha256(b'1').hexdigest()}, not {'0' * 64}"
    )


def test_a_binary_without_room_is_an_error(tmp_path: Path) -> None:
    file = File(path="lib/x", content=b"/short/lib\0", prefix="binary", placeholder="/short")
    assert refusal(Package(name="x", files=(file,)), tmp_path) == (
        "lib/x: no room for the prefix: /opt/env is longer than the one it was built with"
    )


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    package = Package(name="a", files=(File(path="x", content=bytes(range(256)) * 99),))
    artifact = artifact_of(package, tmp_path)
    assert isinstance(artifact.pin, CondaPin)
    store = Store(tmp_path / "store")
    store.artifact(artifact.sha256).parent.mkdir(parents=True)
    whole = (tmp_path / "linux-64" / package.file_name).read_bytes()
    store.artifact(artifact.sha256).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BuildError, match=r"^conda package a 1\.0: damaged archive: "):
        list(CondaSource(store, Files(store)).entries(artifact))


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envbuild.compose.artifacts.conda.archive._ALLOWANCE", 1 << 20)
    package = Package(name="bomb", files=(File(path="x", content=b"\0" * (4 << 20)),))
    assert refusal(package, tmp_path) == (
        "conda package bomb 1.0: refused: the archive unpacks to far more than its size"
    )


def test_metadata_that_is_not_the_lock_s_is_refused(tmp_path: Path) -> None:
    artifact = artifact_of(Package(name="a"), tmp_path)
    assert isinstance(artifact.pin, CondaPin)
    other = replace(artifact, pin=replace(artifact.pin, version="2.0"))
    store = Store(tmp_path / "store")
    source = CondaSource(store, Files(store))
    source.fetch([artifact])
    with pytest.raises(BuildError, match=r"its metadata says version '1\.0', the lock '2\.0'"):
        list(source.entries(other))


@pytest.mark.parametrize("step", ["foresee", "fetch"])
def test_a_free_threaded_python_is_refused_by_name(tmp_path: Path, step: str) -> None:
    package = Package(name="python", version="3.13.1", build="h0_cp313t")
    artifact = artifact_of(package, tmp_path)
    assert isinstance(artifact.pin, CondaPin)
    store = Store(tmp_path / "store")
    usual = replace(artifact.pin, python_site_packages_path="lib/python3.13/site-packages")
    unusual = replace(artifact.pin, python_site_packages_path="lib/python3.13t/site-packages")
    source = CondaSource(store, Files(store))
    getattr(source, step)([replace(artifact, pin=usual)])
    with pytest.raises(BuildError, match=r"python 3\.13\.1 h0_cp313t keeps packages in lib/python3\.13t/"):
        getattr(source, step)([replace(artifact, pin=unusual)])


def test_history_is_always_the_same() -> None:
    assert history_file().path == "opt/env/conda-meta/history"
    assert history_file().content == (
        b"# Composed by envbuild; the packages are recorded beside this file.\n"
    )
