"""The first schema: its tables as they were then, whatever ``workspace.schema`` says by now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

DIGEST = sa.String(71)
NAME = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

sa.Table(
    "envbuild_events",
    metadata,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("environment", NAME, nullable=True),
    sa.Column("version", NAME, nullable=True),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Index(None, "environment", "number"),
    sqlite_autoincrement=True,
)

sa.Table(
    "envbuild_environments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", NAME, nullable=False, unique=True),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
)

sa.Table(
    "envbuild_contexts",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("checksum", DIGEST, nullable=False),
    sa.Column("archive", sa.LargeBinary, nullable=False),
)

sa.Table(
    "envbuild_versions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("environment_id", sa.ForeignKey("envbuild_environments.id"), nullable=False),
    sa.Column("event", sa.ForeignKey("envbuild_events.number"), nullable=False, unique=True),
    sa.Column("version", NAME, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=True),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("anonymous", sa.Boolean, nullable=False),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("context", sa.ForeignKey("envbuild_contexts.digest"), nullable=True),
    sa.UniqueConstraint("environment_id", "version"),
    sa.UniqueConstraint("environment_id", "definition"),
    sa.Index(None, "environment_id", "anonymous", "archived", "event"),
    sa.Index(None, "environment_id", "number"),
    sa.Index(None, "definition"),
)

sa.Table(
    "envbuild_labels",
    metadata,
    sa.Column("environment_id", sa.ForeignKey("envbuild_environments.id"), primary_key=True),
    sa.Column("label", NAME, primary_key=True),
    sa.Column("version_id", sa.ForeignKey("envbuild_versions.id"), nullable=False, index=True),
)

sa.Table(
    "envbuild_locks",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("platforms", sa.JSON, nullable=False),
    sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    sa.Column("event", sa.ForeignKey("envbuild_events.number"), nullable=False),
    sa.Index(None, "definition", "event"),
)
sa.Table(
    "envbuild_blobs",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

sa.Table(
    "envbuild_lock_files",
    metadata,
    sa.Column("lock", sa.ForeignKey("envbuild_locks.digest"), primary_key=True),
    sa.Column("name", NAME, primary_key=True),
    sa.Column("blob", sa.ForeignKey("envbuild_blobs.digest"), nullable=False),
)

sa.Table(
    "envbuild_images",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("platform", sa.String(64), nullable=False),
    sa.Column("lock_digest", DIGEST, nullable=False),
    sa.Column("lock", sa.ForeignKey("envbuild_locks.digest"), nullable=True),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("envbuild", sa.String(64), nullable=False),
    sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    sa.Column("event", sa.ForeignKey("envbuild_events.number"), nullable=False, unique=True),
    sa.Index(None, "definition", "event"),
)

sa.Table(
    "envbuild_image_references",
    metadata,
    sa.Column("image", sa.ForeignKey("envbuild_images.digest"), primary_key=True),
    sa.Column("reference", sa.Text, primary_key=True),
)

sa.Table(
    "envbuild_image_indexes",
    metadata,
    sa.Column("image", sa.ForeignKey("envbuild_images.digest"), primary_key=True),
    sa.Column("index_digest", DIGEST, primary_key=True, index=True),
)


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)
