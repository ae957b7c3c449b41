"""Targets and runs: what runs where, written and read in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from envbuild.errors import WorkspaceError, suggestion
from envbuild.targets.base import TargetRecord
from envbuild.workspace.base import ENDED, RUN_STATES, NewRun, RunRecord
from envbuild.workspace.changes import Transaction
from envbuild.workspace.schema import runs, targets

_AMBIGUOUS = 5
"""Runs that are named where the beginning of a name fits several."""


def add_target(change: Transaction, target: TargetRecord, *, replace: bool) -> None:
    row = {"kind": target.kind, "options": dict(target.options)}
    detail = {"target": target.name, **row}
    if change.insert_new(targets, name=target.name, **row):
        change.event("target", None, None, **detail)
        return
    known = find_target(change.connection, target.name)
    if known == target:
        return
    if not replace:
        raise WorkspaceError(
            f"there is a target {target.name} already, of the kind {known.kind}",
            hint="replace it with --replace, or choose another name",
        )
    change.connection.execute(sa.update(targets).where(targets.c.name == target.name).values(**row))
    change.event("target", None, None, **detail)


def remove_target(change: Transaction, name: str) -> None:
    find_target(change.connection, name)
    change.connection.execute(sa.delete(targets).where(targets.c.name == name))
    change.event("untarget", None, None, target=name)


def find_target(connection: Connection, name: str) -> TargetRecord:
    records = all_targets(connection)
    for record in records:
        if record.name == name:
            return record
    near = suggestion(name, [record.name for record in records], most=3)
    raise WorkspaceError(
        f"there is no target {name!r}",
        hint=near or "envbuild target list shows what there is",
    )


def all_targets(connection: Connection) -> tuple[TargetRecord, ...]:
    query = sa.select(targets).order_by(targets.c.name)
    return tuple(
        TargetRecord(
            name=row["name"],
            kind=row["kind"],
            options=tuple(sorted((str(key), str(value)) for key, value in row["options"].items())),
        )
        for row in connection.execute(query).mappings()
    )


def add_run(change: Transaction, run: NewRun) -> None:
    event = change.event(
        "run", run.environment, run.version, run=run.name, target=run.target, image=run.image, code=run.code
    )
    facts = {field.name: getattr(run, field.name) for field in fields(NewRun)}
    facts |= {"command": list(run.command), "variables": list(run.variables)}
    added = change.insert_new(
        runs,
        **facts,
        event=event,
        actor=change.actor,
        created=change.at,
        identity="",
        status=RUN_STATES[0],
    )
    if not added:
        raise WorkspaceError(f"there is a run {run.name} already")


def update_run(
    change: Transaction, name: str, status: str, identity: str | None, exit_status: int | None
) -> None:
    if status not in RUN_STATES:
        raise WorkspaceError(f"{status[:20]!r} is no state of a run")
    values: dict[str, Any] = {"status": status}
    if identity is not None:
        values["identity"] = identity
    if status in ENDED:
        values |= {"exit_status": exit_status, "ended": change.at}
    # In one statement, so that of two writers at once the first one's end stays.
    running = sa.update(runs).where(runs.c.name == name, runs.c.ended.is_(None)).values(**values)
    if change.connection.execute(running).rowcount and status in ENDED:
        row = find_run(change.connection, name, exactly=True)
        change.event("ended", row.environment, row.version, run=name, status=status, exit_status=exit_status)


def find_run(connection: Connection, name: str, *, exactly: bool = False) -> RunRecord:
    """The run of that name, or, unless ``exactly``, the only one whose name begins so."""
    exact = connection.execute(sa.select(runs).where(runs.c.name == name)).mappings().first()
    if exact is not None:
        return _run(exact)
    begins = sa.func.substr(runs.c.name, 1, len(name)) == name
    query = sa.select(runs).where(begins).order_by(runs.c.event.desc()).limit(_AMBIGUOUS)
    rows = [_run(row) for row in connection.execute(query).mappings()] if name and not exactly else []
    if len(rows) == 1:
        return rows[0]
    if rows:
        named = ", ".join(row.name for row in rows)
        raise WorkspaceError(f"several runs begin with {name!r}", hint=f"name one of them: {named}")
    raise WorkspaceError(f"there is no run {name!r}", hint="envbuild runs list shows what there is")


def list_runs(
    connection: Connection,
    *,
    environment: str | None,
    version: str | None,
    image: str | None,
    target: str | None,
    limit: int | None,
) -> Sequence[RunRecord]:
    query = sa.select(runs).order_by(runs.c.event.desc()).limit(limit)
    if environment is not None:
        query = query.where(runs.c.environment == environment)
    if version is not None:
        query = query.where(runs.c.version == version)
    if image is not None:
        query = query.where(sa.or_(runs.c.image == image, runs.c.base_image == image))
    if target is not None:
        query = query.where(runs.c.target == target)
    return tuple(_run(row) for row in connection.execute(query).mappings())


def _run(row: RowMapping) -> RunRecord:
    columns = {key: row[key] for key in row if key != "event"}
    return RunRecord(**{**columns, "command": tuple(row["command"]), "variables": tuple(row["variables"])})
