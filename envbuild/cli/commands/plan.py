"""``envbuild plan``: what a build would make, without making it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envbuild.app import lock, plan, specs
from envbuild.app.requests import BuildRequest
from envbuild.cli.options import (
    compose_options,
    display_options,
    engine_options,
    json_option,
    lock_dir_option,
    offline_option,
    platform_option,
    spec_argument,
    stale_options,
    store_options,
    upgrade_options,
    workspace_option,
)
from envbuild.cli.requests import with_request
from envbuild.cli.show.report import (
    change_json,
    change_lines,
    change_summary,
    json_text,
    plan_json,
    plan_lines,
)

if TYPE_CHECKING:
    from envbuild.app.requests import BuildRequest, LockResult
    from envbuild.cli.call import Call
    from envbuild.plan.model import Plan


@click.command(short_help="Show the layers and artifacts of the image that a build would make.")
@spec_argument
@platform_option
@stale_options
@upgrade_options
@engine_options
@compose_options
@lock_dir_option
@offline_option
@store_options
@workspace_option
@json_option
@display_options
@with_request(BuildRequest)
def command(call: Call, request: BuildRequest, *, spec: str, as_json: bool) -> int:
    """Show the layers and artifacts of SPEC's image, their sizes, and its level. Writes nothing.

    Sizes are those of the downloads, as the lock has them; -v lists every artifact.
    """
    show(call, spec, request, as_json=as_json)
    return 0


def show(call: Call, path: str, request: BuildRequest, *, as_json: bool, engine: bool = False) -> None:
    """Prints what ``request`` would build; shared with ``build --dry-run``, which also has an ``engine``
    chosen, as that decides the image's level and lock digest."""
    with call.session(path) as session:
        spec = specs.find_spec(session, path)
        if request.locked:
            lock.check_lock(session, spec)
        result: LockResult = lock.lock_spec(session, spec, request.lock)
        platforms = request.platforms or tuple(pins.platform for pins in result.lock.platforms)
        plans: list[Plan] = [
            plan.describe_plan(session, spec, result.lock, platform, request)
            if engine
            else plan.plan_image(session, spec, result.lock, platform)
            for platform in platforms
        ]
        activations = [plan.known_activation(session, planned) for planned in plans]
    if as_json:
        call.out(
            json_text(
                {
                    "plans": [*map(plan_json, plans, activations)],
                    "changes": change_json(result.changes),
                }
            )
        )
        return
    color = call.color and call.stdout.isatty()
    if result.changes:
        call.say(f"the lock would change: {change_summary(result.changes)}")
        if any(change.before is not None for change in result.changes):
            for line in change_lines(result.changes, color=call.color):
                call.say(line)
    for planned, activation in zip(plans, activations, strict=True):
        for line in plan_lines(planned, activation, verbose=bool(call.verbose), color=color):
            call.out(line)
