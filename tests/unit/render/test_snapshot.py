"""The snapshot of a build context: what is built is what was locked, or nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import BuildError
from envbuild.lock.make import context_base
from envbuild.lock.model import ContextBase
from envbuild.render.base import BuildContext, ContextFile
from envbuild.render.context import snapshot_context
from envbuild.specs.context import with_digest
from envbuild.specs.model import BuildContextSpec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "spec/ctx"
    (root / "empty").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o711)
    (root / "link").symlink_to("/etc/passwd")
    (root / "secret").write_text("hunter2")
    (root / ".dockerignore").write_text("secret\n")
    return root


def locked(root: Path) -> tuple[BuildContextSpec, ContextBase]:
    spec = with_digest(BuildContextSpec(path=Path("ctx")), root.parent)
    return spec, context_base(spec)


def snapshot(root: Path, scratch: Path, base: ContextBase) -> BuildContext:
    return snapshot_context(Path("ctx"), root.parent, base, scratch)


def test_the_snapshot_is_the_context_by_its_copies(root: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    context = snapshot(root, scratch, locked(root)[1])
    # Whatever happens to the directory afterwards.
    for name in ("Dockerfile", "run"):
        (root / name).write_text("changed")
    assert [replace(file, content=b"") for file in context.files] == [
        ContextFile(path=".dockerignore"),
        ContextFile(path="Dockerfile"),
        ContextFile(path="empty", mode=0o755, directory=True),
        ContextFile(path="link", mode=0o777, target="/etc/passwd"),
        ContextFile(path="run", mode=0o755),
    ]
    contents = {file.path: file.content for file in context.files}
    dockerfile, run = contents["Dockerfile"], contents["run"]
    assert isinstance(dockerfile, Path)
    assert isinstance(run, Path)
    assert (dockerfile.read_text(), run.read_text()) == ("FROM scratch\n", "#!/bin/sh\n")
    assert dockerfile.is_relative_to(scratch)
    assert (context.dockerfile, context.labels, context.offline) == ("Dockerfile", (), False)
    assert not any("hunter2" in path.read_text() for path in scratch.rglob("*") if path.is_file())


def test_a_context_that_changed_after_its_lock_is_not_built(root: Path, tmp_path: Path) -> None:
    _, base = locked(root)
    (root / "run").write_text("#!/bin/bash\n")
    with pytest.raises(BuildError) as raised:
        snapshot(root, tmp_path / "scratch", base)
    assert str(raised.value) == "the build context ctx was changed after it was locked"
    assert raised.value.hint == "bring the lock up to date with: envbuild lock"


def test_what_is_left_out_may_change(root: Path, tmp_path: Path) -> None:
    _, base = locked(root)
    (root / "secret").write_text("correct horse")
    assert snapshot(root, tmp_path / "scratch", base).files


def test_a_context_that_cannot_be_read_any_more_is_named(root: Path, tmp_path: Path) -> None:
    _, base = locked(root)
    os.mkfifo(root / "pipe")
    with pytest.raises(
        BuildError, match=r"^build context ctx: pipe: is a FIFO, which no build context can hold$"
    ):
        snapshot(root, tmp_path / "scratch", base)


def test_two_snapshots_of_one_context_are_equal(root: Path, tmp_path: Path) -> None:
    _, base = locked(root)
    one, two = (snapshot(root, tmp_path / name, base) for name in ("one", "two"))
    assert one.digest == two.digest
