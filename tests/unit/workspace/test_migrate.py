"""From the first schema to this one; a newer one is refused."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from envbuild.errors import WorkspaceError
from envbuild.workspace import migrate
from envbuild.workspace.database import Database
from envbuild.workspace.schema import REVISIONS, VERSION_TABLE, metadata
from tests.unit.workspace.stores import digest, new_version, open_store

ROOT = Path(migrate.__file__).parent / "migrations"

# What the first envbuild with a workspace would have written: one environment, one version, its event.
ROWS = (
    "INSERT INTO envbuild_events (number, at, actor, action, environment, version, detail) VALUES "
    "(1, '2026-01-02 03:04:05.000006+00:00', 'eve', 'register', 'train', '1', '{}')",
    "INSERT INTO envbuild_environments (id, name, archived, updated) VALUES "
    "(1, 'train', false, '2026-01-02 03:04:05.000006+00:00')",
    "INSERT INTO envbuild_versions (id, environment_id, event, version, number, definition, content, "
    "description, tags, created, creator, anonymous, archived, origin) VALUES "
    f"(1, 1, 1, '1', 1, '{digest(1)}', 'a: 1', 'old', '{json.dumps({'a': 'b'})}', "
    "'2026-01-02 03:04:05.000006+00:00', 'eve', false, false, '')",
)


def engine_of(location: str) -> sa.Engine:
    if "://" in location:
        return sa.create_engine(location.replace("://", "+psycopg://"), poolclass=sa.NullPool)
    return sa.create_engine(f"sqlite:///{location}", poolclass=sa.NullPool)


@pytest.fixture
def first(location: str) -> str:
    """A workspace as the first schema had it."""
    with engine_of(location).begin() as connection:
        migrate.upgrade(connection, location, to="0001")
        for statement in ROWS:
            connection.execute(
                sa.text(statement.replace("+00:00", "" if "://" not in location else "+00:00"))
            )
    with engine_of(location).begin() as connection:
        assert migrate.revision_of(connection) == "0001"
    return location


def test_known_revisions_are_those_that_ship() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT))
    found = [walk_revision.revision for walk_revision in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_first_schema_comes_up_to_date_with_all_it_holds(first: str) -> None:
    ws = open_store(first)
    found = ws.get("train")
    assert (found.version, found.definition, found.description) == ("1", digest(1), "old")
    assert (found.tags, found.creator) == ((("a", "b"),), "eve")
    assert found.created.isoformat() == "2026-01-02T03:04:05.000006+00:00"
    if "://" in first:
        # The numbers that were written by hand above didn't move PostgreSQL's counters.
        with engine_of(first).begin() as connection:
            for table, column in (("events", "number"), ("environments", "id"), ("versions", "id")):
                counter = f"pg_get_serial_sequence('envbuild_{table}', '{column}')"
                connection.execute(sa.text(f"SELECT setval({counter}, 1)"))
    assert ws.register(new_version("train", 2, content="2")).version.version == "2"
    assert [event.actor for event in ws.history()] == ["ada", "eve"]
    ws.close()
    with engine_of(first).begin() as connection:
        assert migrate.revision_of(connection) == REVISIONS[-1]


@pytest.mark.parametrize("old", [True, False], ids=["from the first", "from nothing"])
def test_migrations_give_the_schema_that_the_code_has(location: str, old: bool) -> None:
    with engine_of(location).begin() as connection:
        if old:
            migrate.upgrade(connection, location, to="0001")
        migrate.upgrade(connection, location)
    with engine_of(location).begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def test_newer_schema_is_refused_and_left_alone(location: str) -> None:
    ws = open_store(location)
    ws.register(new_version("train", 1, content="1"))
    ws.close()
    with engine_of(location).begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    newer = open_store(location)
    for what in (
        lambda: newer.get("train"),
        lambda: newer.register(new_version("train", 2, content="2")),
    ):
        with pytest.raises(WorkspaceError) as error:
            what()
        assert error.value.message == (
            f"{newer.location} was written by a newer envbuild: schema '9999', known is {REVISIONS[-1]}"
        )
        assert error.value.hint == "upgrade envbuild, or use another workspace"
    with engine_of(location).begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM envbuild_versions")) == 1


def test_migration_that_fails_changes_nothing(first: str) -> None:
    """The second revision can't make its trigger, because there is one of that name."""
    with engine_of(first).begin() as connection:
        if connection.dialect.name == "postgresql":
            statement = "CREATE FUNCTION envbuild_refuse() RETURNS trigger LANGUAGE plpgsql AS '{}'"
            connection.execute(sa.text(statement.format("BEGIN END")))
        else:
            # The last one that the revision makes: those before it are taken back.
            statement = (
                "CREATE TRIGGER envbuild_versions_delete BEFORE DELETE ON envbuild_labels BEGIN SELECT 1; END"
            )
            connection.execute(sa.text(statement))
    with pytest.raises(WorkspaceError, match="already exists"):
        open_store(first).list()
    with engine_of(first).begin() as connection:
        assert migrate.revision_of(connection) == "0001"
        connection.execute(sa.text("UPDATE envbuild_events SET actor = 'mallory'"))


def _open(location: str, barrier: object, found: object) -> None:
    database = Database(location)
    barrier.wait()  # type: ignore[attr-defined]
    with database.read() as connection:
        found.put(migrate.revision_of(connection))  # type: ignore[attr-defined]
    database.close()


def test_several_processes_migrate_once(first: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(3), context.SimpleQueue()
    started = [context.Process(target=_open, args=(first, barrier, found)) for _ in range(3)]
    for each in started:
        each.start()
    for each in started:
        each.join(120)
    assert [each.exitcode for each in started] == [0, 0, 0]
    assert [found.get() for _ in started] == [REVISIONS[-1]] * 3
    found.close()
