"""Brings a database to the schema of this envbuild, or refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from envbuild.errors import WorkspaceError
from envbuild.lazy import lazy
from envbuild.workspace.schema import REVISIONS, VERSION_TABLE, metadata

if TYPE_CHECKING:
    from alembic import command, config
else:
    # Only a database that is new or older pays for these.
    command, config = lazy("alembic.command"), lazy("alembic.config")

_ADVISORY_LOCK = 0x656E766275696C64
"""``envbuild`` in ASCII: the lock of a PostgreSQL database that whoever changes the schema holds."""
_ROOT = Path(__file__).parent / "migrations"


def revision_of(connection: Connection) -> str | None:
    """The schema's revision; None for a database without one."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return revision


def is_current(connection: Connection, location: str) -> bool:
    """Whether nothing has to be done. Raises ``WorkspaceError`` for a schema this envbuild doesn't know."""
    revision = revision_of(connection)
    if revision is not None and revision not in REVISIONS:
        raise WorkspaceError(
            f"{location} was written by a newer envbuild: schema {revision[:32]!r}, known is {REVISIONS[-1]}",
            hint="upgrade envbuild, or use another workspace",
        )
    return revision == REVISIONS[-1]


def upgrade(connection: Connection, location: str, to: str = REVISIONS[-1]) -> None:
    """Applies the revisions that are missing, in the caller's transaction: all of them or none.

    Of several processes at once the first one does it: the transaction of SQLite is a writing one from its
    beginning, and in PostgreSQL a lock is held to its end.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    if is_current(connection, location):
        return
    if revision_of(connection) is None:
        _refuse_strangers(connection, location)
    settings = config.Config(attributes={"connection": connection})
    # Alembic reads its options as a template, in which a percent sign leads.
    settings.set_main_option("script_location", str(_ROOT).replace("%", "%%"))
    command.upgrade(settings, to)


def _refuse_strangers(connection: Connection, location: str) -> None:
    """A file of another program isn't ours to write into; a PostgreSQL database may be shared."""
    tables = set(sa.inspect(connection).get_table_names())
    strangers = tables if connection.dialect.name == "sqlite" else tables & set(metadata.tables)
    if strangers:
        named = ", ".join(sorted(strangers)[:3])
        raise WorkspaceError(f"{location} is no workspace: it holds tables of something else ({named})")
