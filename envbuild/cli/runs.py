"""``envbuild runs``: what was run on targets, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from envbuild.cli.env import opened_workspace
from envbuild.cli.env_report import time_text
from envbuild.cli.options import call_of, display_options, json_option, workspace_option
from envbuild.cli.report import json_text
from envbuild.cli.text import printable, table
from envbuild.errors import WorkspaceError

if TYPE_CHECKING:
    from envbuild.workspace.base import Run

F = TypeVar("F", bound=Callable[..., Any])
_PIECE = 1 << 16


def _shared(function: F) -> F:
    function = click.pass_context(function)  # type: ignore[assignment]
    return workspace_option(json_option(display_options(function)))


@click.group(short_help="Show what was run on targets.")
def command() -> None:
    """Show what was run on targets: by which environment version, image and code, and how it ended."""


@command.command("list")
@click.argument("environment", required=False)
@click.option("--target", metavar="NAME", help="Only those on this target.")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, metavar="N", show_default=True)
@_shared
def list_(
    context: click.Context, environment: str | None, target: str | None, limit: int, as_json: bool
) -> int:
    """List runs, the newest first; of ENVIRONMENT, which may be name or name:version."""
    call = call_of(context)
    name, _, version = (environment or "").partition(":")
    with opened_workspace(call) as workspace:
        found = (
            workspace.registry.runs(
                environment=name or None, version=version or None, target=target, limit=limit
            )
            if workspace.is_there
            else ()
        )
    if as_json:
        call.out(json_text({"runs": [_json(each) for each in found]}))
        return 0
    if not found:
        call.say("nothing was run")
        return 0
    rows = [
        (
            each.name,
            f"{each.environment}:{each.version}",
            each.target,
            each.status if each.exit_status in (None, 0) else f"{each.status} ({each.exit_status})",
            time_text(each.created),
            " ".join(each.command),
        )
        for each in found
    ]
    for line in table([("run", "environment", "target", "status", "started", "command"), *rows]):
        call.out(printable(line))
    return 0


@command.command()
@click.argument("run")
@_shared
def show(context: click.Context, run: str, as_json: bool) -> int:
    """Show all that is known of RUN, which may be the beginning of a name."""
    call = call_of(context)
    with opened_workspace(call) as workspace:
        found = workspace.registry.run(run)
    if as_json:
        call.out(json_text(_json(found)))
        return 0
    status = found.status if found.exit_status is None else f"{found.status}, exit status {found.exit_status}"
    rows = [
        ("run", found.name),
        ("environment", f"{found.environment}:{found.version}"),
        ("definition", found.definition),
        ("target", f"{found.target} ({found.kind})"),
        ("image", found.reference),
        ("without code", found.base_image),
        ("code", found.code or "none"),
        ("command", " ".join(found.command)),
        ("variables", ", ".join(found.variables) or "none"),
        ("started", f"{time_text(found.created)} by {found.actor}"),
        ("as", found.identity or "-"),
        ("status", status),
        ("ended", time_text(found.ended) if found.ended else "-"),
    ]
    for line in table(rows):
        call.out(printable(line))
    return 0


@command.command()
@click.argument("run")
@_shared
def logs(context: click.Context, run: str, as_json: bool) -> int:
    """Print what RUN has printed, as far as it was seen here."""
    from envbuild.api.runs import log_file

    call = call_of(context)
    with opened_workspace(call) as workspace:
        found = workspace.registry.run(run)
        file = log_file(workspace, found.name)
    try:
        with file.open("rb") as log:
            if as_json:
                call.out(json_text({"run": found.name, "log": log.read().decode(errors="replace")}))
                return 0
            while piece := log.read(_PIECE):
                # As the job wrote it: a log may hold any bytes.
                sys.stdout.buffer.write(piece)
    except FileNotFoundError:
        raise WorkspaceError(
            f"the log of {found.name} isn't on this machine",
            hint=f"it ran on {found.target} as {found.identity or 'nothing'}, started by {found.actor}",
        ) from None
    sys.stdout.buffer.flush()
    return 0


def _json(run: Run) -> dict[str, object]:
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
        "exit_status": run.exit_status,
        "ended": run.ended.isoformat() if run.ended else None,
    }
