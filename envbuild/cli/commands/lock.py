"""``envbuild lock``: a spec's lockfiles, resolved, kept or checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from envbuild.app import lock, specs
from envbuild.app.requests import LockRequest
from envbuild.cli.call import Call
from envbuild.cli.commands.lock_all import lock_all
from envbuild.cli.options import display_options, json_option, resolve_options, spec_argument, upgrade_options
from envbuild.cli.requests import with_request
from envbuild.cli.show.report import change_json, change_lines, change_summary, json_text
from envbuild.cli.show.text import count_text, printable
from envbuild.errors import UsageError
from envbuild.http.address import shown
from envbuild.lock.conda.configuration import conda_configuration
from envbuild.render.access import index_lines

if TYPE_CHECKING:
    from envbuild.app.requests import LockResult
    from envbuild.lock.model import Lock


@click.command(short_help="Resolve a spec into lockfiles, or check that they answer it.")
@spec_argument
@click.option(
    "--check", is_flag=True, help="Only check, offline, that the lock answers the spec; exit 1 if not."
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Upgrade every lock below the directory SPEC, or --check that every spec there has one that answers "
    "it; with --dry-run: report what would move.",
)
@upgrade_options
@click.option(
    "--bytecode/--no-bytecode", default=None, help="Compile byte code into the image [default: yes]."
)
@click.option("--dry-run", is_flag=True, help="Resolve and show what would change; write nothing.")
@resolve_options
@json_option
@display_options
@with_request(LockRequest)
def command(
    call: Call, request: LockRequest, *, spec: str, check: bool, everything: bool, as_json: bool
) -> int:
    """Resolve SPEC into lockfiles.

    A lock that is there is kept: without --upgrade only what the spec forces changes.
    """
    if check and (request.upgrade_packages or request.as_of or request.bytecode is not None):
        raise UsageError("--check changes nothing", hint="leave out the options that change a lock")
    if everything:
        if not check and not request.upgrade_packages:
            # --all is there to see what moves, so it lets all move, unless packages are named.
            request = replace(request, upgrade=True)
        return lock_all(call, spec, request, check=check, as_json=as_json)
    with call.session(spec) as session:
        loaded = specs.find_spec(session, spec)
        if check:
            checked = lock.check_lock(session, loaded)
            origin = "an earlier --as-of" if checked.as_of_kept else "its spec"
            bound = f"; as of {checked.as_of}, as {origin} says" if checked.as_of else ""
            call.say(f"the lock of {printable(loaded.name)} answers its spec{bound}")
            return 0
        if call.verbose:
            for line in index_lines(call.environ, specs.inputs_of(loaded).pip_options):
                call.say(f"index: {line}")
            for index in specs.inputs_of(loaded).package_indexes:
                call.say(f"index: spec: {shown(index.url)} (for {', '.join(index.packages)})")
            for line in conda_configuration(session.settings, call.environ).lines() if loaded.conda else ():
                call.say(line)
        result = lock.lock_spec(session, loaded, request)
    report(call, result, dry_run=request.dry_run, as_json=as_json)
    return 0


def report(call: Call, result: LockResult, *, dry_run: bool, as_json: bool) -> None:
    """Tells what a lock has become: on a dry run the difference is the result and goes to stdout."""
    if as_json:
        call.out(
            json_text(
                {
                    "directory": str(result.directory),
                    "definition_digest": result.lock.definition,
                    "platforms": [str(pins.platform) for pins in result.lock.platforms],
                    "written": result.written,
                    "changes": change_json(result.changes),
                }
            )
        )
        return
    first = all(change.before is None for change in result.changes)
    if dry_run:
        for line in change_lines(result.changes, color=call.color and call.stdout.isatty()):
            call.out(line)
    elif not first:
        # A new lock would list every pin; its files do that better.
        for line in change_lines(result.changes, color=call.color):
            call.say(line)
    what = "would change" if dry_run else "written" if result.written else "kept"
    if dry_run and not result.changes:
        what = "would be kept"
    call.say(
        f"{printable(str(result.directory))} {what}: "
        f"{_contents(result.lock)}; {change_summary(result.changes)}"
    )


def _contents(lock: Lock) -> str:
    """``2 platforms, 98 debian, 130 pip``."""
    counts: Counter[str] = Counter()
    for platform in lock.platforms:
        counts["debian"] += len(getattr(platform.base, "packages", ()))
        counts["conda"] += len(platform.conda)
        counts["pip"] += len(platform.pip)
    pins = [f"{number} {kind}" for kind, number in counts.items() if number]
    bound = [f"as of {lock.as_of}"] if lock.as_of else []
    return ", ".join([count_text(len(lock.platforms), "platform"), *pins, *bound])
