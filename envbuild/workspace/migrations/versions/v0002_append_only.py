"""The database itself refuses to change the history or the content of a version."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

HISTORY = "the history of a workspace is only ever added to"
CONTENT = "the content of a version never changes"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _postgresql()
    else:
        _sqlite()


def _sqlite() -> None:
    for name, when, message in (
        ("envbuild_events_update", "UPDATE ON envbuild_events", HISTORY),
        ("envbuild_events_delete", "DELETE ON envbuild_events", HISTORY),
        ("envbuild_versions_update", "UPDATE OF definition, content ON envbuild_versions", CONTENT),
        ("envbuild_versions_delete", "DELETE ON envbuild_versions", CONTENT),
    ):
        op.execute(f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{message}'); END")


def _postgresql() -> None:
    op.execute(
        "CREATE FUNCTION envbuild_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$"
    )
    for name, when, message in (
        ("envbuild_events_change", "UPDATE OR DELETE OR TRUNCATE ON envbuild_events", HISTORY),
        ("envbuild_versions_update", "UPDATE OF definition, content ON envbuild_versions", CONTENT),
        ("envbuild_versions_delete", "DELETE OR TRUNCATE ON envbuild_versions", CONTENT),
    ):
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {when} FOR EACH STATEMENT "
            f"EXECUTE FUNCTION envbuild_refuse('{message}')"
        )
