"""Contexts as tars and directories."""

from __future__ import annotations

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envbuild.compose.tar import MTIME
from envbuild.errors import BuildError, UsageError
from envbuild.oci.digest import digest_bytes
from envbuild.render.base import BuildContext, ContextFile
from envbuild.render.context import RECORD, context_size, context_tar, write_context


def context(*files: ContextFile) -> BuildContext:
    return BuildContext(files=files)


def sample(tmp_path: Path, dockerfile: bytes = b"FROM scratch\n") -> BuildContext:
    wheel = tmp_path / "stored"
    wheel.write_bytes(b"w" * 3000)
    wheel.chmod(0o600)
    return context(
        ContextFile(path="Dockerfile", content=dockerfile),
        ContextFile(path="bin/run", content=b"#!/bin/sh\n", mode=0o755),
        ContextFile(path="empty", directory=True),
        ContextFile(path="latest", target="wheels/ä.whl"),
        ContextFile(path="wheels/ä.whl", content=wheel),
    )


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Path to mode and content (a symlink's target, nothing for a directory)."""
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = (0, os.fsencode(path.readlink()))
        else:
            found[name] = (path.stat().st_mode & 0o7777, b"" if path.is_dir() else path.read_bytes())
    return found


def test_the_tar_has_every_entry_with_fixed_metadata(tmp_path: Path) -> None:
    data = b"".join(context_tar(sample(tmp_path)))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        rows = [
            (each.name, each.type, each.mode, each.uid, each.gid, each.mtime, each.linkname)
            for each in archive
        ]
        wheel = archive.extractfile("wheels/ä.whl")
        assert wheel is not None
        assert wheel.read() == b"w" * 3000
    assert rows == [
        ("Dockerfile", tarfile.REGTYPE, 0o644, 0, 0, MTIME, ""),
        ("bin", tarfile.DIRTYPE, 0o755, 0, 0, MTIME, ""),
        ("bin/run", tarfile.REGTYPE, 0o755, 0, 0, MTIME, ""),
        ("empty", tarfile.DIRTYPE, 0o755, 0, 0, MTIME, ""),
        ("latest", tarfile.SYMTYPE, 0o777, 0, 0, MTIME, "wheels/ä.whl"),
        ("wheels", tarfile.DIRTYPE, 0o755, 0, 0, MTIME, ""),
        ("wheels/ä.whl", tarfile.REGTYPE, 0o644, 0, 0, MTIME, ""),
    ]
    assert context_size(sample(tmp_path)) == 13 + 10 + 3000


def test_the_tar_does_not_depend_on_order_or_umask(tmp_path: Path) -> None:
    one = sample(tmp_path)
    other = context(*reversed(one.files))
    before = os.umask(0o077)
    try:
        assert digest_bytes(b"".join(context_tar(other))) == digest_bytes(b"".join(context_tar(one)))
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([ContextFile(path="../x")], "'../x' is no path of an image"),
        ([ContextFile(path="/etc/passwd")], "'/etc/passwd' is no path of an image"),
        ([ContextFile(path="a//b")], "'a//b' is no path of an image"),
        ([ContextFile(path="a"), ContextFile(path="a")], "a is in the build context twice"),
        (
            [ContextFile(path="a", target="/etc"), ContextFile(path="a/passwd")],
            "a is no directory of the build context, but a/passwd lies below it",
        ),
        ([ContextFile(path="a", target="")], "a: '' is no link target"),
    ],
)
def test_hostile_paths_are_refused(files: list[ContextFile], message: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as raised:
        context_tar(context(*files))
    assert raised.value.message == message
    with pytest.raises(BuildError):
        write_context(context(*files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    gone = context(ContextFile(path="a", content=tmp_path / "gone"))
    with pytest.raises(BuildError, match="for a: No such file or directory"):
        b"".join(context_tar(gone))
    with pytest.raises(BuildError, match="gone: No such file or directory"):
        context_size(gone)


def test_a_directory_holds_the_context_whatever_the_umask(tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    before = os.umask(0o077)
    try:
        write_context(sample(tmp_path), out)
    finally:
        os.umask(before)
    found = tree(out)
    record = found.pop(RECORD)
    assert found == {
        "Dockerfile": (0o644, b"FROM scratch\n"),
        "bin": (0o755, b""),
        "bin/run": (0o755, b"#!/bin/sh\n"),
        "empty": (0o755, b""),
        "latest": (0, "wheels/ä.whl".encode()),
        "wheels": (0o755, b""),
        "wheels/ä.whl": (0o644, b"w" * 3000),
    }
    write_context(sample(tmp_path), tmp_path / "again")
    assert tree(tmp_path / "again")[RECORD] == record


def test_a_later_context_replaces_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_context(sample(tmp_path), out)
    later = context(
        ContextFile(path="Dockerfile", content=b"FROM other\n"),
        ContextFile(path="bin", content=b"now a file"),
        ContextFile(path="latest/file", content=b"a link became a directory"),
    )
    write_context(later, out)
    found = tree(out)
    assert sorted(found) == [RECORD, "Dockerfile", "bin", "latest", "latest/file"]
    assert found["Dockerfile"] == (0o644, b"FROM other\n")
    assert found["bin"] == (0o644, b"now a file")
    fresh = tmp_path / "fresh"
    write_context(later, fresh)
    assert tree(fresh) == found


@pytest.mark.parametrize(
    ("path", "reason"),
    [("notes.txt", "is not of an earlier rendering"), ("Dockerfile", "has been changed since")],
)
def test_what_people_wrote_is_never_touched(path: str, reason: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_context(sample(tmp_path), out)
    (out / path).write_text("mine")
    before = tree(out)
    with pytest.raises(UsageError) as raised:
        write_context(sample(tmp_path, b"FROM other\n"), out)
    assert raised.value.message == f"{out} is not written to: {path} {reason}"
    assert tree(out) == before


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stored").write_bytes(b"")
    with pytest.raises(UsageError, match="stored is not of an earlier rendering"):
        write_context(context(ContextFile(path="a")), tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError, match="File exists"):
        write_context(context(ContextFile(path="a")), tmp_path / "file")


def test_a_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("mine")
    out = tmp_path / "out"
    write_context(context(ContextFile(path="d", target="../victim")), out)
    write_context(context(ContextFile(path="d/kept", content=b"theirs")), out)
    assert (victim / "kept").read_text() == "mine"
    assert (out / "d/kept").read_text() == "theirs"


def test_a_failed_write_changes_nothing_and_a_killed_one_is_cleared(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_context(sample(tmp_path), out)
    before = tree(out)
    with pytest.raises(BuildError):
        write_context(context(ContextFile(path="a", content=tmp_path / "gone")), out)
    assert tree(out) == before
    (out / ".envbuild-part-0123").mkdir()
    (out / ".envbuild-part-0123/x").write_text("half")
    write_context(sample(tmp_path), out)
    assert tree(out) == before


def test_names_of_its_own_are_refused(tmp_path: Path) -> None:
    for name in (RECORD, ".envbuild-part-x/y"):
        with pytest.raises(BuildError, match="is a name of envbuild's own"):
            write_context(context(ContextFile(path=name)), tmp_path / "out")


def test_odd_names_are_known_again(tmp_path: Path) -> None:
    odd = context(ContextFile(path="a\nb"), ContextFile(path="c\u2028  d"))
    write_context(odd, tmp_path / "out")
    write_context(odd, tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == [RECORD, "a\nb", "c\u2028  d"]


def test_calls_at_once_for_one_directory_come_one_after_the_other(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    contexts = [
        context(*(ContextFile(path=f"{name}/{n}", content=name.encode()) for n in range(50)))
        for name in ("a", "b")
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: write_context(each, directory), contexts * 10))
    assert sorted(path.name for path in directory.iterdir()) in ([RECORD, "a"], [RECORD, "b"])
    write_context(contexts[0], directory)
    assert len(list((directory / "a").iterdir())) == 50
