"""The tables of a workspace, as the newest migration leaves them.

Every name begins with ``envbuild_``, so that a team may keep a workspace in a database it has already.
Versions and locks are in the order of the event that made them: its number is given while the environment's
row is locked, so it grows within one environment.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

REVISIONS = ("0001", "0002", "0003")
"""All revisions of the schema, oldest first; the files in ``migrations/versions`` are the same."""
VERSION_TABLE = "envbuild_schema"

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Utc(sa.TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps it without a zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(timezone.utc)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def name_type() -> sa.types.TypeEngine[str]:
    """Text that sorts by code points in every database, so that pages are the same everywhere."""
    return sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def event_number() -> sa.types.TypeEngine[int]:
    """SQLite numbers rows by itself only in an INTEGER column."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


DIGEST = sa.String(71)

events = sa.Table(
    "envbuild_events",
    metadata,
    sa.Column("number", event_number(), primary_key=True, autoincrement=True),
    sa.Column("at", Utc, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("environment", name_type(), nullable=True),
    sa.Column("version", name_type(), nullable=True),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Index(None, "environment", "number"),
    # A number is never given twice.
    sqlite_autoincrement=True,
)

environments = sa.Table(
    "envbuild_environments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", name_type(), nullable=False, unique=True),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("updated", Utc, nullable=False),
)

contexts = sa.Table(
    "envbuild_contexts",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("checksum", DIGEST, nullable=False),
    sa.Column("archive", sa.LargeBinary, nullable=False),
)

versions = sa.Table(
    "envbuild_versions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("environment_id", sa.ForeignKey(environments.c.id), nullable=False),
    sa.Column("event", sa.ForeignKey(events.c.number), nullable=False, unique=True),
    sa.Column("version", name_type(), nullable=False),
    # The version as an integer, where it is one and not anonymous.
    sa.Column("number", sa.BigInteger, nullable=True),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("created", Utc, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("anonymous", sa.Boolean, nullable=False),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("context", sa.ForeignKey(contexts.c.digest), nullable=True),
    sa.UniqueConstraint("environment_id", "version"),
    sa.UniqueConstraint("environment_id", "definition"),
    # Counts, pages and the latest are read from this index alone.
    sa.Index(None, "environment_id", "anonymous", "archived", "event"),
    sa.Index(None, "environment_id", "number"),
    sa.Index(None, "definition"),
)

labels = sa.Table(
    "envbuild_labels",
    metadata,
    sa.Column("environment_id", sa.ForeignKey(environments.c.id), primary_key=True),
    sa.Column("label", name_type(), primary_key=True),
    sa.Column("version_id", sa.ForeignKey(versions.c.id), nullable=False, index=True),
)

locks = sa.Table(
    "envbuild_locks",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("platforms", sa.JSON, nullable=False),
    sa.Column("created", Utc, nullable=False),
    sa.Column("event", sa.ForeignKey(events.c.number), nullable=False),
    sa.Index(None, "definition", "event"),
)

# Contents of lock files, deflated; the same bytes are kept once.
blobs = sa.Table(
    "envbuild_blobs",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

lock_files = sa.Table(
    "envbuild_lock_files",
    metadata,
    sa.Column("lock", sa.ForeignKey(locks.c.digest), primary_key=True),
    sa.Column("name", name_type(), primary_key=True),
    sa.Column("blob", sa.ForeignKey(blobs.c.digest), nullable=False),
)

images = sa.Table(
    "envbuild_images",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("platform", sa.String(64), nullable=False),
    sa.Column("lock_digest", DIGEST, nullable=False),
    sa.Column("lock", sa.ForeignKey(locks.c.digest), nullable=True),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("envbuild", sa.String(64), nullable=False),
    sa.Column("created", Utc, nullable=False),
    sa.Column("event", sa.ForeignKey(events.c.number), nullable=False, unique=True),
    sa.Index(None, "definition", "event"),
)

image_references = sa.Table(
    "envbuild_image_references",
    metadata,
    sa.Column("image", sa.ForeignKey(images.c.digest), primary_key=True),
    sa.Column("reference", sa.Text, primary_key=True),
)

image_indexes = sa.Table(
    "envbuild_image_indexes",
    metadata,
    sa.Column("image", sa.ForeignKey(images.c.digest), primary_key=True),
    sa.Column("index_digest", DIGEST, primary_key=True, index=True),
)

targets = sa.Table(
    "envbuild_targets",
    metadata,
    sa.Column("name", name_type(), primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
)

# A target may be removed, and a version's environment be renamed by nobody: a run keeps their names.
runs = sa.Table(
    "envbuild_runs",
    metadata,
    sa.Column("name", name_type(), primary_key=True),
    sa.Column("event", sa.ForeignKey(events.c.number), nullable=False, unique=True),
    sa.Column("target", name_type(), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("environment", name_type(), nullable=False),
    sa.Column("version", name_type(), nullable=False),
    sa.Column("definition", DIGEST, nullable=False),
    sa.Column("image", DIGEST, nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("base_image", DIGEST, nullable=False),
    sa.Column("code", DIGEST, nullable=True),
    sa.Column("command", sa.JSON, nullable=False),
    sa.Column("variables", sa.JSON, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("created", Utc, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("exit_status", sa.Integer, nullable=True),
    sa.Column("ended", Utc, nullable=True),
    sa.Index(None, "environment", "event"),
    sa.Index(None, "image"),
)
