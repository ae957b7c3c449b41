"""Nobody but its user reads a workspace, whatever the umask, and whatever was there before."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.app.environments import Workspace
from envbuild.app.jobs import make_state_directory
from envbuild.app.run_files import RunLog
from envbuild.settings import Settings
from envbuild.workspace.store import EnvironmentStore
from tests.unit.workspace.stores import new_version


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(directory: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in directory.iterdir()}


def write(path: Path, own: Path | None = None) -> None:
    EnvironmentStore(path, actor="ada", own=own).register(new_version("train", 1, content="PASSWORD=pw"))


def test_a_new_workspace_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "share" / "envbuild" / "workspace.db"
    write(path)
    assert (mode(tmp_path / "share"), mode(path.parent)) == (0o700, 0o700)
    assert modes(path.parent) == {"workspace.db": 0o600, ".workspace.db.lock": 0o600}
    with sqlite3.connect(path) as reader:
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        assert modes(path.parent) == {
            "workspace.db": 0o600,
            "workspace.db-wal": 0o600,
            "workspace.db-shm": 0o600,
            ".workspace.db.lock": 0o600,
        }
    reader.close()


def test_a_workspace_that_others_could_read_is_closed_with_its_directory_and_journals(tmp_path: Path) -> None:
    path = tmp_path / "envbuild" / "workspace.db"
    write(path)
    with sqlite3.connect(path) as reader:
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for each in (path, path.with_name("workspace.db-wal"), path.with_name("workspace.db-shm")):
            each.chmod(0o644)
        path.parent.chmod(0o755)
        assert [
            each.version for each in EnvironmentStore(path, actor="ada", own=path.parent).versions("train")
        ] == ["1"]
        assert set(modes(path.parent).values()) == {0o600}
        assert mode(path.parent) == 0o700
    reader.close()


def test_a_directory_of_the_users_own_keeps_its_mode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = tmp_path / "project"
    project.mkdir(mode=0o775)
    path = project / "team.db"
    path.touch(mode=0o644)
    with caplog.at_level(logging.WARNING, "envbuild"):
        write(path, own=tmp_path / "envbuild")
    assert (mode(project), mode(path)) == (0o775, 0o600)
    assert caplog.messages == []


def test_who_shared_a_file_with_a_group_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "team.db"
    write(path)
    path.chmod(0o660)
    with caplog.at_level(logging.WARNING, "envbuild"):
        write(path)
        write(path)
    assert mode(path) == 0o600
    assert caplog.messages == [
        f"{path} is no longer shared with other users; a workspace in PostgreSQL can be"
    ]


def test_a_file_that_only_its_owner_can_close_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "team.db"
    write(path)
    path.chmod(0o644)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", refuse)
    with caplog.at_level(logging.WARNING, "envbuild"):
        assert len(EnvironmentStore(path, actor="ada").versions("train")) == 1
    assert caplog.messages == [
        f"{path} can be read by others than its owner, which can't be changed: Operation not permitted"
    ]


def test_the_file_behind_a_link_is_the_one_that_is_closed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    link = tmp_path / "workspace.db"
    link.symlink_to(tmp_path / "disk" / "real.db")
    write(link)
    assert link.is_symlink()
    assert modes(tmp_path / "disk") == {"real.db": 0o600}
    assert mode(tmp_path / "disk") == 0o755


def test_a_file_system_without_links_keeps_a_private_workspace_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write(tmp_path / "workspace.db")
    assert modes(tmp_path) == {"workspace.db": 0o600, ".workspace.db.lock": 0o600}


def test_the_logs_of_runs_are_their_users_alone(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    own = tmp_path / "data" / "envbuild"
    settings = Settings(cache_dir=tmp_path / "store", workspace=own / "workspace.db")
    with Workspace(settings, environ=environ) as workspace:
        make_state_directory(workspace)
        assert mode(own / "runs") == 0o700
        for each in (own, own / "runs"):
            each.chmod(0o755)
        make_state_directory(workspace)
        with RunLog(own / "runs" / "train-1.log") as log:
            log.write(b"PASSWORD=pw\n")
        assert workspace.environments.list() == ()
    assert (mode(own), mode(own / "runs"), modes(own / "runs")) == (0o700, 0o700, {"train-1.log": 0o600})


def test_a_directory_named_runs_beside_a_users_workspace_keeps_its_mode(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    (tmp_path / "runs").mkdir(mode=0o755)
    settings = Settings(cache_dir=tmp_path / "store", workspace=tmp_path / "team.db")
    with Workspace(settings, environ=environ) as workspace:
        make_state_directory(workspace)
    assert mode(tmp_path / "runs") == 0o755
