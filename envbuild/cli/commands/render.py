"""``envbuild render``: a Dockerfile and its build context."""

from __future__ import annotations

import click

from envbuild.app import plan, specs
from envbuild.app.requests import RenderRequest
from envbuild.cli.call import Call
from envbuild.cli.options import (
    DIRECTORY,
    display_options,
    engine_options,
    json_option,
    lock_dir_option,
    offline_option,
    platform_option,
    render_options,
    spec_argument,
    stale_options,
    store_options,
    upgrade_options,
    workspace_option,
)
from envbuild.cli.requests import with_request
from envbuild.cli.show.report import json_text, render_json, render_lines


@click.command(short_help="Write the Dockerfile of a spec, with everything its build needs.")
@spec_argument
@click.option(
    "-o",
    "--output",
    type=DIRECTORY,
    metavar="DIR",
    required=True,
    help="Where to write it: a new or empty directory, or one of an earlier render.",
)
@click.option(
    "--offline-context", is_flag=True, help="Put every pinned artifact in: the build needs no network."
)
@platform_option
@stale_options
@upgrade_options
@render_options
@engine_options
@lock_dir_option
@offline_option
@store_options
@workspace_option
@json_option
@display_options
@with_request(RenderRequest)
def command(call: Call, request: RenderRequest, *, spec: str, as_json: bool) -> int:
    """Write the Dockerfile of SPEC and everything its build needs, locking it first where need be.

    The same lock gives the same bytes. Prints the directory: docker build $(envbuild render . -o out)
    """
    with call.session(spec) as session:
        results = plan.render(session, specs.find_spec(session, spec), request)
    for line in render_lines(results):
        call.say(line)
    if as_json:
        call.out(json_text(render_json(results)))
    else:
        for result in results:
            call.out(str(result.directory))
    return 0
