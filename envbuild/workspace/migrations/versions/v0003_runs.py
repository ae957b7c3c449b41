"""Targets, and what was run on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DIGEST = sa.String(71)
NAME = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
RUNS = "what was run stays recorded"
FACTS = (
    "target, kind, environment, version, definition, image, reference, base_image, code, command, variables"
)


def upgrade() -> None:
    op.create_table(
        "envbuild_targets",
        sa.Column("name", NAME, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_envbuild_targets"),
    )
    op.create_table(
        "envbuild_runs",
        sa.Column("name", NAME, nullable=False),
        sa.Column("event", NUMBER, nullable=False),
        sa.Column("target", NAME, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("environment", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("definition", DIGEST, nullable=False),
        sa.Column("image", DIGEST, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("base_image", DIGEST, nullable=False),
        sa.Column("code", DIGEST, nullable=True),
        sa.Column("command", sa.JSON, nullable=False),
        sa.Column("variables", sa.JSON, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("exit_status", sa.Integer, nullable=True),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_envbuild_runs"),
        sa.UniqueConstraint("event", name="uq_envbuild_runs_event"),
        sa.ForeignKeyConstraint(["event"], ["envbuild_events.number"], name="fk_envbuild_runs_event"),
    )
    op.create_index("ix_envbuild_runs_environment_event", "envbuild_runs", ["environment", "event"])
    op.create_index("ix_envbuild_runs_image", "envbuild_runs", ["image"])
    if op.get_bind().dialect.name == "postgresql":
        for name, when in (("update", f"UPDATE OF {FACTS}"), ("delete", "DELETE OR TRUNCATE")):
            op.execute(
                f"CREATE TRIGGER envbuild_runs_{name} BEFORE {when} ON envbuild_runs FOR EACH STATEMENT "
                f"EXECUTE FUNCTION envbuild_refuse('{RUNS}')"
            )
    else:
        for name, when in (("update", f"UPDATE OF {FACTS}"), ("delete", "DELETE")):
            op.execute(
                f"CREATE TRIGGER envbuild_runs_{name} BEFORE {when} ON envbuild_runs "
                f"BEGIN SELECT RAISE(ABORT, '{RUNS}'); END"
            )
