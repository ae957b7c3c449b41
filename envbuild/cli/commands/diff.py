"""``envbuild diff``: what differs between two images."""

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
from envbuild.cli.show.inspection import difference_json, difference_lines
from envbuild.cli.show.report import json_text
from envbuild.platforms import Platform


@click.command(short_help="Show what differs between two images.")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@image_platform_option
@click.option("--files", is_flag=True, help="Also which paths differ, and how; all layers are pulled for it.")
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(
    call: Call, before: str, after: str, platform: Platform | None, files: bool, as_json: bool
) -> int:
    """Show which packages and settings differ from image A to image B, and what who has A pulls for B.

    As with diff, the status is 0 where both are the same image, and 1 where they differ; trouble has its own.
    """
    with call.session() as session:
        differences = inspect.diff_images(session, before, after, platform, files=files)
    if as_json:
        call.out(json_text(difference_json(before, after, differences)))
    else:
        for line in difference_lines(differences, color=call.color):
            call.out(line)
    return int(any(difference.differs for difference in differences))
