"""``envbuild inspect``: what an image is and what is in it, without running it."""

from __future__ import annotations

import click

from envbuild.app import inspect
from envbuild.cli.call import Call
from envbuild.cli.options import (
    display_options,
    image_platform_option,
    json_option,
    offline_option,
    store_options,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.inspection import inspection_json, inspection_lines
from envbuild.cli.show.report import json_text
from envbuild.platforms import Platform


@click.command(short_help="Show what an image is and what is in it.")
@click.argument("reference", metavar="REF")
@image_platform_option
@click.option(
    "--packages/--no-packages",
    default=None,
    help="All packages, of others' images too, whose layers are pulled for it; or none "
    "[default: those of our own images, in short].",
)
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(
    call: Call, reference: str, platform: Platform | None, packages: bool | None, as_json: bool
) -> int:
    """Show what REF is: platforms, level, base, user, command, variables, layers and what is in each.

    No layer is pulled for it, but for the small one with the lock of an image of ours.
    """
    with call.session() as session:
        inspection = inspect.inspect_image(session, reference, platform, packages=packages)
    if as_json:
        call.out(json_text(inspection_json(inspection)))
    else:
        for line in inspection_lines(inspection, everything=bool(packages)):
            call.out(line)
    return 0
