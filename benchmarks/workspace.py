"""The workspace with a hundred thousand versions: listing, showing and registering, on SQLite.

The versions are written straight into the tables, since registering so many would take an hour; what is
measured then goes through a store as the command line and the Python API do, each time one that has just
been opened. Starting the interpreter and importing SQLAlchemy isn't in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import sqlalchemy as sa

from benchmarks.results import Figure
from envbuild.oci.digest import digest_bytes
from envbuild.workspace import schema
from envbuild.workspace.base import NewVersion
from envbuild.workspace.database import Database
from envbuild.workspace.store import EnvironmentStore

VERSIONS = 100_000
LIMIT = 0.3
"""Seconds that each operation may take."""
PAGE = 100
"""Lines of a list that people see at once."""
REPEATS = 5
_NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
_CONTENT = "name: bench\nconda_file:\n  channels: [conda-forge]\n  dependencies:\n" + "".join(
    f"    - package-{number}=1.{number}\n" for number in range(40)
)


def workspace_figures(scratch: Path) -> list[Figure]:
    """One figure an operation: the slowest of the three shapes a workspace of so many versions can have."""
    worst: dict[str, float] = {}
    for environments in (1, 1_000, VERSIONS):
        path = scratch / f"workspace-{environments}.db"
        fill(path, environments)
        for what, seconds in _measured(path).items():
            worst[what] = max(worst.get(what, 0.0), seconds)
        path.unlink()
    return [Figure(f"workspace of {VERSIONS:,} versions: {what}", worst[what], limit=LIMIT) for what in worst]


def fill(path: Path, environments: int) -> None:
    """A workspace of ``VERSIONS`` versions, spread evenly over ``environments``."""
    database = Database(path)
    each = VERSIONS // environments
    with database.write() as connection:
        connection.execute(
            sa.insert(schema.environments),
            [
                {"id": number + 1, "name": _name(number), "archived": False, "updated": _NOW}
                for number in range(environments)
            ],
        )
        connection.execute(
            sa.insert(schema.events),
            [
                {
                    "number": number + 1,
                    "at": _NOW,
                    "actor": "bench",
                    "action": "register",
                    "environment": _name(number // each),
                    "version": str(number % each + 1),
                    "detail": {},
                }
                for number in range(VERSIONS)
            ],
        )
        connection.execute(
            sa.insert(schema.versions),
            [
                {
                    "environment_id": number // each + 1,
                    "event": number + 1,
                    "version": str(number % each + 1),
                    "number": number % each + 1,
                    "definition": _definition(number),
                    "content": _CONTENT,
                    "description": "",
                    "tags": {},
                    "created": _NOW,
                    "creator": "bench",
                    "anonymous": False,
                    "archived": number % 10 == 9,
                    "origin": "",
                    "context": None,
                }
                for number in range(VERSIONS)
            ],
        )
    database.close()


def _measured(path: Path) -> dict[str, float]:
    fresh = iter(range(VERSIONS, 2 * VERSIONS))

    def new() -> str:
        return _definition(next(fresh))

    name = _name(0)
    operations: dict[str, Callable[[], object]] = {
        "open, first page of the list": lambda: _open(path).list(limit=PAGE),
        "first page of one environment's versions": lambda: _open(path).versions(name, limit=PAGE),
        "show by version": lambda: _open(path).get(name, "1"),
        "show the latest": lambda: _open(path).get(name),
        "register a new version": lambda: _open(path).register(
            NewVersion(environment=name, definition=new(), content=_CONTENT)
        ),
        "register a known one": lambda: _open(path).register(
            NewVersion(environment=name, definition=_definition(0), content="")
        ),
        "register in a new environment": lambda: _open(path).register(
            NewVersion(environment="fresh", definition=new(), content=_CONTENT)
        ),
    }
    return {what: _seconds(operation) for what, operation in operations.items()}


def _open(path: Path) -> EnvironmentStore:
    return EnvironmentStore(path, actor="bench")


def _seconds(operation: Callable[[], object]) -> float:
    """The middle of several runs."""
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        operation()
        found.append(time.perf_counter() - started)
    return sorted(found)[REPEATS // 2]


def _name(number: int) -> str:
    return f"environment-{number:06d}"


def _definition(number: int) -> str:
    return digest_bytes(str(number).encode())
