"""What is written: environments and versions, each change with its event, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from envbuild.errors import WorkspaceError
from envbuild.lazy import lazy
from envbuild.workspace.base import ANONYMOUS_DIGITS, NewVersion, Registered
from envbuild.workspace.queries import environment_row, sorted_pairs, version_of, version_row
from envbuild.workspace.schema import contexts, environments, events, labels, versions

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite
else:
    postgresql, sqlite = lazy("sqlalchemy.dialects.postgresql"), lazy("sqlalchemy.dialects.sqlite")

_LONGEST_NUMBER = 18
"""Digits of the largest integer that a column holds for certain."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction that writes: who, when, and through which connection."""

    connection: Connection
    actor: str
    at: datetime

    def event(self, action: str, environment: str | None, version: str | None, **detail: object) -> int:
        """Adds an event and returns its number."""
        values = {"at": self.at, "actor": self.actor, "action": action, "detail": detail}
        done = self.connection.execute(
            sa.insert(events).values(**values, environment=environment, version=version)
        )
        assert done.inserted_primary_key is not None
        return int(done.inserted_primary_key[0])

    def insert_new(self, table: sa.Table, **row: Any) -> bool:
        """Inserts a row unless its key is there, which another process may be about to do just now."""
        if self.connection.dialect.name == "postgresql":
            statement: sa.Executable = postgresql.insert(table).values(row).on_conflict_do_nothing()
        else:
            statement = sqlite.insert(table).values(row).on_conflict_do_nothing()
        # Of an INSERT the count isn't kept unless one asks.
        done = self.connection.execute(statement, execution_options={"preserve_rowcount": True})
        return done.rowcount == 1

    def environment(self, name: str, *, make: bool = False) -> RowMapping:
        """The environment's row, locked: versions of one environment are written one after the other."""
        if make:
            self.insert_new(environments, name=name, archived=False, updated=self.at)
        return environment_row(self.connection, name, locked=True)

    def touch(self, environment: RowMapping) -> None:
        self.connection.execute(
            sa.update(environments).where(environments.c.id == environment["id"]).values(updated=self.at)
        )

    def set_version(self, row: RowMapping, **columns: Any) -> None:
        self.connection.execute(sa.update(versions).where(versions.c.id == row["id"]).values(**columns))


def register(change: Transaction, new: NewVersion, *, action: str = "register") -> Registered:
    """Holds the rules of ``workspace.base``. ``new`` is checked."""
    connection = change.connection
    environment = change.environment(new.environment, make=True)
    row = definition_row(connection, environment, new.definition)
    if row is not None and (new.anonymous or not row["anonymous"]):
        _refuse_other_version(row, new)
        if _update(change, environment, row, new):
            row = definition_row(connection, environment, new.definition) or row
        return Registered(version=version_of(connection, row), created=False)
    _add(change, environment, row, new, action)
    change.touch(environment)
    row = definition_row(connection, environment, new.definition)
    assert row is not None
    if new.labels:
        set_labels(change, environment, row, new.labels)
    return Registered(version=version_of(connection, row), created=True)


def changed_columns(new: NewVersion, row: RowMapping) -> dict[str, Any]:
    """The columns of a version that is there that registering ``new`` changes."""
    changed: dict[str, Any] = {}
    if new.anonymous:
        return changed
    if new.description is not None and new.description != row["description"]:
        changed["description"] = new.description
    if new.tags and new.tags != sorted_pairs(row["tags"]):
        changed["tags"] = dict(new.tags)
    return changed


def definition_row(connection: Connection, environment: RowMapping, definition: str) -> RowMapping | None:
    query = (
        sa.select(versions, environments.c.name.label("environment"))
        .join_from(versions, environments)
        .where(versions.c.environment_id == environment["id"], versions.c.definition == definition)
    )
    return connection.execute(query).mappings().first()


def set_labels(change: Transaction, environment: RowMapping, row: RowMapping, wanted: Sequence[str]) -> bool:
    """Moves labels to a version; False if all were there."""
    if row["anonymous"]:
        raise WorkspaceError(
            f"{environment['name']}:{row['version']} is anonymous and can't have labels",
            hint="register it first",
        )
    query = (
        sa.select(labels.c.label, versions.c.version)
        .join_from(labels, versions, labels.c.version_id == versions.c.id)
        .where(labels.c.environment_id == environment["id"], labels.c.label.in_(wanted))
    )
    before = {label[0]: label[1] for label in change.connection.execute(query)}
    moved = [label for label in wanted if before.get(label) != row["version"]]
    if not moved:
        return False
    in_environment = labels.c.environment_id == environment["id"]
    change.connection.execute(sa.delete(labels).where(in_environment, labels.c.label.in_(moved)))
    change.connection.execute(
        sa.insert(labels),
        [{"environment_id": environment["id"], "label": label, "version_id": row["id"]} for label in moved],
    )
    taken = {label: before[label] for label in moved if label in before}
    change.event("label", environment["name"], row["version"], labels=moved, taken_from=taken)
    change.touch(environment)
    return True


def set_columns(
    change: Transaction, environment: RowMapping, row: RowMapping, changed: Mapping[str, Any]
) -> bool:
    """Changes description and tags; the event keeps what was there."""
    if not changed:
        return False
    change.set_version(row, **changed)
    before = {key: row[key] for key in changed}
    change.event("update", environment["name"], row["version"], before=before, after=dict(changed))
    change.touch(environment)
    return True


def _update(change: Transaction, environment: RowMapping, row: RowMapping, new: NewVersion) -> bool:
    columns = set_columns(change, environment, row, changed_columns(new, row))
    labelled = bool(new.labels) and not new.anonymous
    return (labelled and set_labels(change, environment, row, new.labels)) or columns


def _add(
    change: Transaction, environment: RowMapping, row: RowMapping | None, new: NewVersion, action: str
) -> None:
    """Adds a version, or makes an anonymous one a normal one."""
    if new.context is not None and not change.connection.scalar(
        sa.select(sa.exists().where(contexts.c.digest == new.context))
    ):
        raise WorkspaceError(f"the build context {new.context} isn't in the workspace")
    if new.anonymous:
        version, number = _anonymous_name(change, environment, new.definition), None
    else:
        if environment["archived"]:
            raise WorkspaceError(
                f"{new.environment} is archived and takes no new version",
                hint=f"restore {new.environment} first",
            )
        version = new.version or str(_largest(change, environment) + 1)
        number = _number(version)
        _refuse_taken(change, environment, version, new)
    detail: dict[str, object] = {"definition": new.definition, "origin": new.origin}
    if row is not None:
        detail["anonymous"] = row["version"]
    event = change.event("record" if new.anonymous else action, new.environment, version, **detail)
    columns: dict[str, Any] = {
        "event": event,
        "version": version,
        "number": number,
        "created": change.at,
        "creator": change.actor,
        "anonymous": new.anonymous,
        "archived": False,
    }
    if row is not None:
        changed = {**columns, **changed_columns(new, row)}
        changed["context"] = new.context or row["context"]
        changed["origin"] = new.origin or row["origin"]
        change.set_version(row, **changed)
        return
    change.connection.execute(
        sa.insert(versions).values(
            **columns,
            environment_id=environment["id"],
            definition=new.definition,
            content=new.content,
            description=new.description or "",
            tags=dict(new.tags),
            origin=new.origin,
            context=new.context,
        )
    )


def _refuse_other_version(row: RowMapping, new: NewVersion) -> None:
    if new.version is not None and new.version != row["version"]:
        raise WorkspaceError(
            f"{new.environment} has this definition as version {row['version']}: not {new.version}",
            hint=f"use {new.environment}:{row['version']}, or give it a label",
        )


def _refuse_taken(change: Transaction, environment: RowMapping, version: str, new: NewVersion) -> None:
    in_environment = versions.c.environment_id == environment["id"]
    definition = change.connection.scalar(
        sa.select(versions.c.definition).where(in_environment, versions.c.version == version)
    )
    if definition is not None and definition != new.definition:
        raise WorkspaceError(
            f"{new.environment}:{version} is {definition}, which differs from {new.definition}",
            hint="a version never changes: leave the version out to get the next one",
        )


def _anonymous_name(change: Transaction, environment: RowMapping, definition: str) -> str:
    """The first 12 digits of the definition, or more of them should another definition begin so."""
    digits = definition.removeprefix("sha256:")
    in_environment = versions.c.environment_id == environment["id"]
    for length in range(ANONYMOUS_DIGITS, len(digits)):
        exists = sa.exists().where(in_environment, versions.c.version == digits[:length])
        if not change.connection.scalar(sa.select(exists)):
            return digits[:length]
    return digits


def _largest(change: Transaction, environment: RowMapping) -> int:
    query = sa.select(sa.func.max(versions.c.number)).where(versions.c.environment_id == environment["id"])
    return change.connection.scalar(query) or 0


def _number(version: str) -> int | None:
    fits = version.isascii() and version.isdigit() and len(version) <= _LONGEST_NUMBER
    return int(version) if fits else None


def archive(change: Transaction, name: str, version: str | None, archived: bool) -> None:
    """Archives or restores a version or an environment; does nothing if it is so already."""
    environment = change.environment(name)
    action = "archive" if archived else "restore"
    if version is None:
        if environment["archived"] == archived:
            return
        query = sa.update(environments).where(environments.c.id == environment["id"])
        change.connection.execute(query.values(archived=archived))
    else:
        row = version_row(change.connection, environment, version)
        if row["archived"] == archived:
            return
        change.set_version(row, archived=archived)
        version = row["version"]
    change.event(action, name, version)
    change.touch(environment)
