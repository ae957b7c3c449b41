"""Databases that are damaged, full, somebody else's, or gone: an error that says so, and nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.errors import WorkspaceError
from envbuild.workspace.database import Database
from tests.fakes import postgres
from tests.unit.workspace.stores import digest, new_version, open_store

ROOT = Path(__file__).resolve().parents[2]
HEX = "".join(f"{number:02x}" for number in range(256))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sound workspace with one version."""
    path = tmp_path / "workspace.db"
    ws = open_store(path)
    ws.register(new_version("train", 1, content="1"))
    return path


def fails(location: str | Path) -> WorkspaceError:
    """The error of reading and of writing, which is the same."""
    ws = open_store(location)
    with pytest.raises(WorkspaceError) as read:
        ws.list()
    with pytest.raises(WorkspaceError) as written:
        ws.register(new_version("train", 9, content="9"))
    assert read.value.message == written.value.message
    assert "Traceback" not in read.value.message
    return read.value


def test_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "workspace.db"
    path.write_bytes(b"this is no database at all" * 1000)
    error = fails(path)
    assert error.message == f"{path} is damaged or no SQLite database"
    assert error.hint is not None
    assert path.read_bytes().startswith(b"this is no database")


def test_damaged_pages(file: Path) -> None:
    data = bytearray(file.read_bytes())
    # The header of every page but the first is overwritten.
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = b"\xa5" * 64
    file.write_bytes(data)
    assert fails(file).message == f"{file} is damaged or no SQLite database"


def test_cut_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])
    assert fails(file).message == f"{file} is damaged or no SQLite database"


def test_directory_in_place_of_the_file(tmp_path: Path) -> None:
    assert fails(tmp_path).message == f"{tmp_path} is a directory, not a database"


def test_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert (
        fails(tmp_path / "data" / "workspace.db").message
        == f"{tmp_path}/data can't be made or used: File exists"
    )


def test_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "workspace.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE experiments (id INTEGER)")
    connection.commit()
    connection.close()
    assert fails(path).message == (f"{path} is no workspace: it holds tables of something else (experiments)")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("experiments",)]
    connection.close()


def test_writer_that_never_ends(file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database = Database(file, busy_timeout=0.05)
    with pytest.raises(WorkspaceError) as error, database.write():
        pass
    assert error.value.message == f"{file} is in use by another process for too long"
    # Readers aren't held up.
    assert open_store(file).get("train").version == "1"
    other.close()


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_file_of_somebody_else() -> None:
    """Root may write everything, so a process of another user tries."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="envbuild-ws-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        path = directory / "workspace.db"
        open_store(path).register(new_version("train", 1, content="1"))
        code = (
            "import sys; from envbuild.errors import WorkspaceError\n"
            "from tests.unit.workspace.stores import digest, new_version, open_store\n"
            "ws = open_store(sys.argv[1])\n"
            "try: ws.register(new_version('train', 2, content='2'))\n"
            "except WorkspaceError as error: print(error.message)"
        )
        readable = (
            os.access(ROOT, os.R_OK | os.X_OK) and _open_to_all(ROOT) and _open_to_all(Path(sys.prefix))
        )
        if not readable:
            pytest.skip("another user can't read this checkout")
        done = subprocess.run(
            [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                sys.executable,
                "-c",
                code,
                str(path),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout in (f"{path} can't be written\n", f"{path} can't be opened\n")
        assert [each.version for each in open_store(path).versions("train")] == ["1"]


def _open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_full_disk(small_disk: Path) -> None:
    """What was there stays, the version that didn't fit is not there, and later ones have no gap."""
    path = small_disk / "workspace.db"
    ws = open_store(path)
    ws.register(new_version("train", 1, content="1"))
    with pytest.raises(WorkspaceError) as error:
        ws.register(new_version("train", 2, content=HEX * 4000))
    assert error.value.message == f"{path} can't grow: the disk is full"
    assert [each.version for each in ws.versions("train")] == ["1"]
    assert ws.register(new_version("train", 3, content="3")).version.version == "2"
    assert [event.version for event in ws.history()] == ["2", "1"]


def test_damaged_lock_file_is_not_handed_out(file: Path) -> None:
    ws = open_store(file)
    ws.add_lock(digest(1), ["linux/amd64"], {"envbuild.lock": b"pins"})
    for changed in ("x''", "x'00'", "(SELECT zeroblob(10))"):
        connection = sqlite3.connect(file)
        connection.execute(f"UPDATE envbuild_blobs SET data = {changed}")
        connection.commit()
        connection.close()
        with pytest.raises(WorkspaceError, match=r"the workspace's copy of sha256:.* is damaged"):
            ws.lock(digest(1))


@pytest.mark.parametrize("change", ["UPDATE envbuild_events SET actor = 'x'", "DELETE FROM envbuild_events"])
def test_history_can_only_grow(file: Path, change: str) -> None:
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
        connection.execute(change)
    connection.close()


@pytest.mark.parametrize(
    "change", ["UPDATE envbuild_versions SET content = 'x'", "DELETE FROM envbuild_versions"]
)
def test_content_never_changes(file: Path, change: str) -> None:
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="content of a version never changes"):
        connection.execute(change)
    connection.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:hunter2@h/d", "a workspace can't be kept in mysql: SQLite and PostgreSQL can"),
        ("oracle://u:hunter2@h/d", "a workspace can't be kept in oracle: SQLite and PostgreSQL can"),
        ("nothing://u:hunter2@h/d", "the workspace's URL can't be read"),
        ("postgresql://u:hunter2@h:port/d", "the workspace's URL can't be read"),
        ("postgresql+psycopg2://u:hunter2@h/d", "PostgreSQL isn't reached through psycopg2"),
        ("sqlite://", "a workspace needs a file, without options"),
        ("sqlite:///:memory:", "a workspace needs a file, without options"),
    ],
)
def test_urls_that_are_no_workspace(url: str, message: str) -> None:
    with pytest.raises(WorkspaceError) as error:
        open_store(url)
    assert error.value.message == message
    assert "hunter2" not in f"{error.value.message}{error.value.hint}"


def test_sqlite_url_is_its_file(file: Path) -> None:
    ws = open_store(f"sqlite:///{file}")
    assert ws.location == str(file)
    assert ws.get("train").version == "1"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    reason = postgres.absent()
    if reason:
        pytest.skip(reason)
    with postgres.server() as running:
        yield running


def test_server_that_goes_away_and_comes_back(server: postgres.Server) -> None:
    url = server.database()
    ws = open_store(url)
    ws.register(new_version("train", 1, content="1"))
    server.stop()
    try:
        for what in (
            lambda: ws.get("train"),
            lambda: ws.register(new_version("train", 2, content="2")),
            lambda: open_store(url).list(),
        ):
            with pytest.raises(WorkspaceError) as error:
                what()
            assert error.value.message.startswith(f"{ws.location} ")
            assert "can't be reached" in error.value.message or "was shut down" in error.value.message
            assert postgres.PASSWORD not in f"{error.value.message}{error.value.hint}"
    finally:
        server.start()
    # The same store goes on once the server is back.
    assert ws.register(new_version("train", 2, content="2")).version.version == "2"
    assert [event.version for event in ws.history()] == ["2", "1"]
    ws.close()


def test_server_that_goes_away_within_a_change(server: postgres.Server) -> None:
    url = server.database()
    ws = open_store(url)
    ws.register(new_version("train", 1, content="1"))

    def interrupted() -> None:
        with ws._change() as change:
            change.event("label", "train", "1")
            server.stop()
            try:
                change.event("label", "train", "1")
            finally:
                server.start()

    with pytest.raises(WorkspaceError) as error:
        interrupted()
    assert "was shut down" in error.value.message or "can't be reached" in error.value.message
    assert [event.action for event in ws.history()] == ["register"]
    ws.close()


def test_wrong_password_and_missing_database(server: postgres.Server) -> None:
    with pytest.raises(WorkspaceError) as error:
        open_store(server.url("postgres", "wrong-secret-words")).list()
    assert "wrong-secret-words" not in f"{error.value.message}{error.value.hint}"
    assert "password" in error.value.message
    with pytest.raises(WorkspaceError, match="nowhere"):
        open_store(server.url("nowhere")).list()


def test_location_tells_no_password(server: postgres.Server) -> None:
    ws = open_store(server.url("postgres") + "&sslpassword=also-secret")
    assert ws.location == "postgresql://keeper:***@/postgres"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE envbuild_events SET actor = 'x'",
        "DELETE FROM envbuild_events",
        "TRUNCATE envbuild_events CASCADE",
        "UPDATE envbuild_versions SET content = 'x'",
        "DELETE FROM envbuild_versions",
    ],
)
def test_server_refuses_to_change_what_never_changes(server: postgres.Server, change: str) -> None:
    import psycopg

    url = server.database()
    ws = open_store(url)
    ws.register(new_version("train", 1, content="1"))
    with pytest.raises(psycopg.errors.RaiseException, match=r"only ever added to|never changes"):
        server.execute(url, change)
    assert ws.get("train").content == "1"
    ws.close()


def test_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(WorkspaceError) as error:
        open_store("postgresql://u:hunter2@h/d")
    assert error.value.message == "the driver of PostgreSQL isn't installed"
    assert error.value.hint == "pip install 'envbuild[postgres]'"
