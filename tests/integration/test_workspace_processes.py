"""Many processes at one workspace, and processes that are killed in the middle of a change."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.workspace.schema import REVISIONS
from tests.fakes import postgres
from tests.unit.workspace.stores import digest, new_version, open_store

PROCESSES = 50
ROOT = Path(__file__).resolve().parents[2]

# Forks, since fifty interpreters that each import everything would take minutes.
MANY = """
import json, multiprocessing, sys
from envbuild.errors import WorkspaceError
from tests.unit.workspace.stores import digest, new_version, open_store

location, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
fork = multiprocessing.get_context("fork")
barrier, results = fork.Barrier(count), fork.SimpleQueue()
# Imports the driver once, before the forks; nothing is opened.
open_store(location)

def one(number):
    ws = open_store(location)
    wanted = {"same": (1, None), "different": (number, None), "explicit": (number, "5")}[mode]
    barrier.wait()
    try:
        done = ws.register(new_version("train", wanted[0], content=str(wanted[0]), version=wanted[1]))
        results.put((done.version.version, done.created, done.version.definition))
    except WorkspaceError as error:
        results.put((None, False, error.message))

started = [fork.Process(target=one, args=(number,)) for number in range(1, count + 1)]
for each in started:
    each.start()
found = [results.get() for _ in started]
for each in started:
    each.join()
print(json.dumps(found))
"""

# Stands still within a transaction, behind the row of the version, until its input ends.
STOPPED = """
import sys
from datetime import datetime, timezone
import sqlalchemy as sa
from envbuild.workspace.store import EnvironmentStore
from tests.unit.workspace.stores import digest, new_version

ws = EnvironmentStore(sys.argv[1], actor="ada", clock=lambda: datetime.now(timezone.utc))
ws.register(new_version("train", 1, content="1"))

def stop(connection, cursor, statement, *rest):
    if statement.startswith("INSERT INTO envbuild_versions"):
        print("in the middle", flush=True)
        sys.stdin.read()

sa.event.listen(sa.Engine, "after_cursor_execute", stop)
ws.register(new_version("train", 2, content="2"))
"""


def many(location: str, mode: str) -> list[tuple[str | None, bool, str]]:
    done = subprocess.run(
        [sys.executable, "-c", MANY, location, mode, str(PROCESSES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [(version, created, text) for version, created, text in json.loads(done.stdout)]


@pytest.mark.slow
def test_fifty_processes_make_one_version_of_one_definition(location: str) -> None:
    """Nor is there a database before them: one of them makes it."""
    found = many(location, "same")
    assert {(version, text) for version, _, text in found} == {("1", digest(1))}
    assert sum(created for _, created, _ in found) == 1
    ws = open_store(location)
    assert [each.version for each in ws.versions("train")] == ["1"]
    assert [event.action for event in ws.history()] == ["register"]
    ws.close()


@pytest.mark.slow
def test_fifty_processes_make_fifty_versions_of_fifty_definitions(location: str) -> None:
    found = many(location, "different")
    assert all(created for _, created, _ in found)
    numbers = sorted(int(version or 0) for version, _, _ in found)
    assert numbers == list(range(1, PROCESSES + 1))
    ws = open_store(location)
    kept = ws.versions("train")
    assert {(each.version, True, each.definition) for each in kept} == set(found)
    # The order of registration is the order of the numbers.
    assert [int(each.version) for each in kept] == list(range(PROCESSES, 0, -1))
    assert [event.action for event in ws.history()] == ["register"] * PROCESSES
    ws.close()


@pytest.mark.slow
def test_one_of_fifty_processes_gets_the_explicit_version(location: str) -> None:
    found = many(location, "explicit")
    won = [text for version, _, text in found if version == "5"]
    assert len(won) == 1
    lost = [text for version, _, text in found if version is None]
    assert len(lost) == PROCESSES - 1
    assert all(text.startswith(f"train:5 is {won[0]}, which differs from sha256:") for text in lost)
    ws = open_store(location)
    assert [(each.version, each.definition) for each in ws.versions("train")] == [("5", won[0])]
    ws.close()


def test_killed_process_leaves_nothing_half_done(location: str, server: postgres.Server | None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, location],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    ws = open_store(location)
    assert [each.version for each in ws.versions("train")] == ["1"]
    assert [event.version for event in ws.history()] == ["1"]
    assert ws.register(new_version("train", 3, content="3")).version.version == "2"
    ws.close()
    if server is None:
        with sqlite3.connect(location) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            assert connection.execute("SELECT version_num FROM envbuild_schema").fetchall() == [
                (REVISIONS[-1],)
            ]
        connection.close()


def test_readers_see_the_state_before_a_change_that_is_not_done(location: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, location],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        ws = open_store(location)
        assert [each.version for each in ws.versions("train")] == ["1"]
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert [each.version for each in ws.versions("train")] == ["2", "1"]
        ws.close()
