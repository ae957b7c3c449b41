"""What is read: rows as values, and what was probably meant where there is no such row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from envbuild.errors import WorkspaceError, nearest
from envbuild.workspace.base import (
    ANONYMOUS_DIGITS,
    LATEST,
    EnvironmentSummary,
    HistoryEvent,
    Pairs,
    Version,
    check_name,
)
from envbuild.workspace.schema import environments, events, labels, versions

_CANDIDATES = 3_000
"""Names that are compared with an unknown one."""
_NAMED = 5

_SELECT = sa.select(versions, environments.c.name.label("environment")).join_from(versions, environments)
_HEX = re.compile(rf"[0-9a-f]{{{ANONYMOUS_DIGITS},64}}")


def environment_row(connection: Connection, name: str, *, locked: bool = False) -> RowMapping:
    """The environment's row, held until the transaction's end if ``locked``. Raises ``WorkspaceError``."""
    check_name("an environment", name)
    query = sa.select(environments).where(environments.c.name == name)
    if locked:
        query = query.with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise WorkspaceError(
            f"there is no environment {name!r}", hint=_nearest_environments(connection, name)
        )
    return row


def version_row(connection: Connection, environment: RowMapping, version: str) -> RowMapping:
    """The row of a version of the environment whose row is given, also by the digits of its definition."""
    check_name("a version", version)
    in_environment = versions.c.environment_id == environment["id"]
    row = connection.execute(_SELECT.where(in_environment, versions.c.version == version)).mappings().first()
    if row is None and _HEX.fullmatch(version):
        # It was anonymous once, and the digits were its name; the range is read from an index.
        low = f"sha256:{version}"
        within = versions.c.definition.between(low, low.ljust(71, "f"))
        rows = connection.execute(_SELECT.where(in_environment, within).limit(2)).mappings().all()
        row = rows[0] if len(rows) == 1 else None
    if row is None:
        raise WorkspaceError(
            f"{environment['name']} has no version {version!r}",
            hint=_nearest_versions(connection, environment, version),
        )
    return row


def labelled_row(connection: Connection, environment: RowMapping, label: str) -> RowMapping:
    check_name("a label", label)
    if label == LATEST:
        return latest_row(connection, environment)
    query = _SELECT.join_from(versions, labels, labels.c.version_id == versions.c.id).where(
        labels.c.environment_id == environment["id"], labels.c.label == label
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        known = [LATEST, *(name for name, _ in labels_of(connection, environment["id"]))]
        raise WorkspaceError(
            f"{environment['name']} has no label {label!r}", hint=_hint("labels", label, known)
        )
    return row


def latest_row(connection: Connection, environment: RowMapping) -> RowMapping:
    """Of the version registered last that is neither anonymous nor archived."""
    name = environment["name"]
    if environment["archived"]:
        raise WorkspaceError(f"{name} is archived", hint=f"name a version, or restore {name}")
    normal = (versions.c.environment_id == environment["id"], versions.c.anonymous.is_(sa.false()))
    query = _SELECT.where(*normal, versions.c.archived.is_(sa.false())).order_by(versions.c.event.desc())
    row = connection.execute(query.limit(1)).mappings().first()
    if row is None:
        if connection.scalar(sa.select(sa.exists().where(*normal))):
            raise WorkspaceError(
                f"every version of {name} is archived", hint="name a version, or restore one"
            )
        raise WorkspaceError(
            f"{name} has no registered version, only anonymous ones", hint="register it, or name a version"
        )
    return row


def labels_of(connection: Connection, environment_id: int) -> tuple[tuple[str, int], ...]:
    """``(label, version id)``, sorted."""
    query = sa.select(labels.c.label, labels.c.version_id).where(labels.c.environment_id == environment_id)
    return tuple((row[0], row[1]) for row in connection.execute(query.order_by(labels.c.label)))


def versions_of(connection: Connection, rows: Sequence[RowMapping]) -> tuple[Version, ...]:
    """The versions of ``rows``, in their order, with their labels."""
    named: dict[int, list[str]] = {}
    for environment_id in {row["environment_id"] for row in rows}:
        for label, version_id in labels_of(connection, environment_id):
            named.setdefault(version_id, []).append(label)
    return tuple(_version(row, named.get(row["id"], ())) for row in rows)


def version_of(connection: Connection, row: RowMapping) -> Version:
    query = sa.select(labels.c.label).where(labels.c.version_id == row["id"]).order_by(labels.c.label)
    return _version(row, connection.scalars(query).all())


def by_definition(connection: Connection, definition: str) -> tuple[Version, ...]:
    query = _SELECT.where(versions.c.definition == definition).order_by(environments.c.name)
    return versions_of(connection, connection.execute(query).mappings().all())


def list_versions(
    connection: Connection,
    environment: RowMapping,
    *,
    include_archived: bool,
    include_anonymous: bool,
    limit: int | None,
    before: str | None,
) -> tuple[Version, ...]:
    query = _SELECT.where(versions.c.environment_id == environment["id"])
    # A list of values, not its absence, lets the index serve filter and order at once.
    if not include_anonymous:
        query = query.where(versions.c.anonymous.is_(sa.false()))
    if not include_archived:
        query = query.where(versions.c.archived.is_(sa.false()))
    if before is not None:
        query = query.where(versions.c.event < version_row(connection, environment, before)["event"])
    query = query.order_by(versions.c.event.desc()).limit(limit)
    return versions_of(connection, connection.execute(query).mappings().all())


def list_environments(
    connection: Connection,
    *,
    prefix: str,
    include_archived: bool,
    include_anonymous: bool,
    limit: int | None,
    after: str | None,
) -> tuple[EnvironmentSummary, ...]:
    """One page of environments, aggregated where the rows are."""
    normal = versions.c.anonymous.is_(sa.false())
    chosen = sa.select(environments)
    if prefix:
        # Names hold no character behind '~', so the range is exactly the prefix and an index serves it.
        chosen = chosen.where(environments.c.name.between(prefix, prefix + "~"))
    if not include_archived:
        chosen = chosen.where(environments.c.archived.is_(sa.false()))
    if not include_anonymous:
        chosen = chosen.where(sa.exists().where(versions.c.environment_id == environments.c.id, normal))
    if after is not None:
        chosen = chosen.where(environments.c.name > after)
    listed = chosen.order_by(environments.c.name).limit(limit).cte("listed")
    counted = (
        sa.select(
            versions.c.environment_id,
            sa.func.count().label("count"),
            sa.func.max(sa.case((versions.c.archived.is_(sa.false()), versions.c.event))).label("event"),
        )
        .where(versions.c.environment_id.in_(sa.select(listed.c.id)), normal)
        .group_by(versions.c.environment_id)
        .cte("counted")
    )
    query = (
        sa.select(listed, counted.c.count, versions.c.version, versions.c.description, versions.c.tags)
        .select_from(
            listed.outerjoin(counted, counted.c.environment_id == listed.c.id).outerjoin(
                versions, versions.c.event == counted.c.event
            )
        )
        .order_by(listed.c.name)
    )
    rows = connection.execute(query).mappings().all()
    named = (
        sa.select(labels.c.environment_id, labels.c.label, versions.c.version)
        .join_from(labels, versions, labels.c.version_id == versions.c.id)
        .where(labels.c.environment_id.in_(sa.select(listed.c.id)))
        .order_by(labels.c.label)
    )
    labelled: dict[int, list[tuple[str, str]]] = {}
    for environment_id, label, version in connection.execute(named):
        labelled.setdefault(environment_id, []).append((label, version))
    return tuple(
        EnvironmentSummary(
            name=row["name"],
            latest=None if row["archived"] else row["version"],
            count=row["count"] or 0,
            description=row["description"] or "",
            tags=sorted_pairs(row["tags"]),
            labels=tuple(labelled.get(row["id"], ())),
            archived=row["archived"],
            updated=row["updated"],
        )
        for row in rows
    )


def history(
    connection: Connection, name: str | None, limit: int | None, before: int | None
) -> tuple[HistoryEvent, ...]:
    query = sa.select(events).order_by(events.c.number.desc()).limit(limit)
    if name is not None:
        environment_row(connection, name)
        query = query.where(events.c.environment == name)
    if before is not None:
        query = query.where(events.c.number < before)
    return tuple(HistoryEvent(**row) for row in connection.execute(query).mappings())


def sorted_pairs(mapping: Mapping[str, str] | None) -> Pairs:
    return tuple(sorted(mapping.items())) if mapping else ()


def _version(row: RowMapping, named: Iterable[str]) -> Version:
    return Version(
        environment=row["environment"],
        version=row["version"],
        definition=row["definition"],
        content=row["content"],
        description=row["description"],
        tags=sorted_pairs(row["tags"]),
        labels=tuple(named),
        created=row["created"],
        creator=row["creator"],
        anonymous=row["anonymous"],
        archived=row["archived"],
        origin=row["origin"],
        context=row["context"],
    )


def _nearest_environments(connection: Connection, name: str) -> str:
    query = sa.select(environments.c.name).order_by(environments.c.name).limit(_CANDIDATES)
    known = connection.scalars(query).all()
    if len(known) == _CANDIDATES:
        # Too many to compare them all: a typing error is rarely in the first letter.
        first = sa.or_(
            *(
                environments.c.name.between(letter, letter + "~")
                for letter in {name[0].lower(), name[0].upper()}
            )
        )
        known = connection.scalars(query.where(first)).all()
    return _hint("environments", name, known)


def _nearest_versions(connection: Connection, environment: RowMapping, version: str) -> str:
    query = (
        sa.select(versions.c.version)
        .where(versions.c.environment_id == environment["id"], versions.c.anonymous.is_(sa.false()))
        .order_by(versions.c.event.desc())
        .limit(_CANDIDATES)
    )
    known = list(connection.scalars(query))
    named = [label for label, _ in labels_of(connection, environment["id"])]
    if version in named or version == LATEST:
        return f"{version} is a label: {environment['name']}@{version}"
    return _hint("versions", version, known)


def _hint(noun: str, wanted: str, known: Sequence[str]) -> str:
    """The nearest of ``known``, or the first ones where none is near."""
    if not known:
        return f"there are no {noun} yet"
    lowered = {name.lower(): name for name in reversed(known)}
    near = nearest(wanted.lower(), lowered, most=_NAMED)
    if near:
        return "did you mean " + ", ".join(lowered[name] for name in near) + "?"
    more = ", …" if len(known) > _NAMED else ""
    return f"known {noun}: " + ", ".join(known[:_NAMED]) + more
