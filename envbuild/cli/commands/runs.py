"""``envbuild runs``: what was run on targets, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from envbuild.app.jobs import log_file
from envbuild.app.run_files import is_watched, log_pieces
from envbuild.cli.call import Call
from envbuild.cli.options import display_options, json_option, workspace_option
from envbuild.cli.requests import with_call
from envbuild.cli.show.environments import time_text
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import printable, table
from envbuild.errors import WorkspaceError

if TYPE_CHECKING:
    from envbuild.app.environments import Workspace
    from envbuild.workspace.base import RunRecord

F = TypeVar("F", bound=Callable[..., Any])


def _shared(function: F) -> F:
    function = with_call(function)
    return workspace_option(json_option(display_options(function)))


@click.group(short_help="Show what was run on targets.")
def command() -> None:
    """Show what was run on targets: by which environment version, image and code, and how it ended."""


@command.command("list")
@click.argument("environment", required=False)
@click.option("--target", metavar="NAME", help="Only those on this target.")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, metavar="N", show_default=True)
@_shared
def list_(call: Call, environment: str | None, target: str | None, limit: int, as_json: bool) -> int:
    """List runs, the newest first; of ENVIRONMENT, which may be name or name:version."""
    name, _, version = (environment or "").partition(":")
    with call.workspace() as workspace:
        runs = (
            workspace.environments.runs(
                environment=name or None, version=version or None, target=target, limit=limit
            )
            if workspace.is_there
            else ()
        )
        watched = {run.name: _watched(workspace, run) for run in runs}
    if as_json:
        call.out(json_text({"runs": [_json(run, watched[run.name]) for run in runs]}))
        return 0
    if not runs:
        call.say("nothing was run")
        return 0
    rows = [
        (
            run.name,
            f"{run.environment}:{run.version}",
            run.target,
            _state(run, watched[run.name]),
            time_text(run.created),
            " ".join(run.command),
        )
        for run in runs
    ]
    for line in table([("run", "environment", "target", "status", "started", "command"), *rows]):
        call.out(printable(line))
    return 0


@command.command()
@click.argument("run")
@_shared
def show(call: Call, run: str, as_json: bool) -> int:
    """Show all that is known of RUN, which may be the beginning of a name."""
    with call.workspace() as workspace:
        record = workspace.environments.run(run)
        watched = _watched(workspace, record)
    if as_json:
        call.out(json_text(_json(record, watched)))
        return 0
    status = (
        record.status if record.exit_status is None else f"{record.status}, exit status {record.exit_status}"
    )
    if watched is False:
        status = f"{status} when it was last seen: envbuild ended without it"
    rows = [
        ("run", record.name),
        ("environment", f"{record.environment}:{record.version}"),
        ("definition", record.definition),
        ("target", f"{record.target} ({record.kind})"),
        ("image", record.reference),
        ("without code", record.base_image),
        ("code", record.code or "none"),
        ("command", " ".join(record.command)),
        ("variables", ", ".join(record.variables) or "none"),
        ("started", f"{time_text(record.created)} by {record.actor}"),
        ("as", record.identity or "-"),
        ("status", status),
        ("ended", time_text(record.ended) if record.ended else "-"),
    ]
    for line in table(rows):
        call.out(printable(line))
    return 0


@command.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on while it is watched on this machine.")
@_shared
def logs(call: Call, run: str, follow: bool, as_json: bool) -> int:
    """Print what RUN has printed, as far as it was seen here."""
    with call.workspace() as workspace:
        record = workspace.environments.run(run)
        file = log_file(workspace, record.name)
    try:
        pieces = log_pieces(file, follow=follow)
        if as_json:
            call.out(json_text({"run": record.name, "log": b"".join(pieces).decode(errors="replace")}))
            return 0
        for piece in pieces:
            # As the job wrote it: a log may hold any bytes.
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except FileNotFoundError:
        raise WorkspaceError(
            f"the log of {record.name} isn't on this machine",
            hint=f"it ran on {record.target} as {record.identity or 'nothing'}, started by {record.actor}",
        ) from None
    return 0


def _watched(workspace: Workspace, run: RunRecord) -> bool | None:
    """Whether the end of an unfinished run will be recorded, as far as this machine can tell; None: it has
    ended, or was started elsewhere."""
    return is_watched(log_file(workspace, run.name)) if run.ended is None else None


def _state(run: RunRecord, watched: bool | None) -> str:
    if watched is False:
        return "unfinished"
    return run.status if run.exit_status in (None, 0) else f"{run.status} ({run.exit_status})"


def _json(run: RunRecord, watched: bool | None) -> dict[str, object]:
    return {
        "name": run.name,
        "environment": run.environment,
        "version": run.version,
        "definition": run.definition,
        "target": run.target,
        "kind": run.kind,
        "image": run.image,
        "base_image": run.base_image,
        "reference": run.reference,
        "code": run.code,
        "command": list(run.command),
        "variables": list(run.variables),
        "actor": run.actor,
        "created": run.created.isoformat(),
        "identity": run.identity,
        "status": run.status,
        "watched": watched,
        "exit_status": run.exit_status,
        "ended": run.ended.isoformat() if run.ended else None,
    }
