"""``envbuild render``: a Dockerfile and its build context."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from envbuild.app import render, specs
from envbuild.app.requests import RenderRequest
from envbuild.cli.options import (
    call_of,
    display_options,
    engine_options,
    json_option,
    lock_dir_option,
    offline_option,
    one_spec,
    platform_option,
    render_options,
    spec_argument,
    stale_options,
    store_options,
    upgrade_options,
    workspace_option,
)
from envbuild.cli.requests import build_request
from envbuild.cli.show.report import json_text, render_json, render_lines


@click.command(short_help="Write the Dockerfile of a spec, with everything its build needs.")
@spec_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
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
@click.pass_context
def command(
    context: click.Context,
    spec: str | None,
    spec_file: str | None,
    output: Path,
    offline_context: bool,
    platforms: tuple[object, ...],
    locked: bool,
    frozen: bool,
    upgrade: bool,
    upgrade_packages: tuple[str, ...],
    as_of: date | None,
    as_json: bool,
) -> int:
    """Write the Dockerfile of SPEC and everything its build needs, locking it first where need be.

    The same lock gives the same bytes. Prints the directory: docker build $(envbuild render . -o out)
    """
    call = call_of(context)
    path = one_spec(spec, spec_file)
    request = RenderRequest(
        output=call.cwd / output,
        offline_context=offline_context,
        build=build_request(
            platforms=platforms,
            locked=locked,
            frozen=frozen,
            upgrade=upgrade,
            upgrade_packages=upgrade_packages,
            as_of=as_of,
        ),
    )
    with call.session(path) as session:
        results = render.render(session, specs.find_spec(session, path), request)
    for line in render_lines(results):
        call.say(line)
    if as_json:
        call.out(json_text(render_json(results)))
    else:
        for result in results:
            call.out(str(result.directory))
    return 0
