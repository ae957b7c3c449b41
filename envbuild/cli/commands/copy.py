"""``envbuild copy``: an image, an index or any artifact from one place to another, byte for byte."""

from __future__ import annotations

import click

from envbuild.app import images
from envbuild.cli.call import Call
from envbuild.cli.options import (
    display_options,
    image_platform_option,
    json_option,
    offline_option,
    store_options,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.images import copy_json, copy_lines
from envbuild.cli.show.report import json_text
from envbuild.platforms import Platform


@click.command(short_help="Copy an image between registries, layouts and archives.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@image_platform_option
@click.option(
    "--referrers/--no-referrers",
    default=True,
    help="From registry to registry: also what refers to it, bills of materials say [default: yes].",
)
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(
    call: Call,
    source: str,
    destination: str,
    platform: Platform | None,
    referrers: bool,
    as_json: bool,
) -> int:
    """Copy SRC to DST without changing a byte, so that digests stay.

    Both are REPO[:TAG], oci:DIR[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]; SRC may also
    be an image of the store, sha256:HEX or docker-daemon:NAME. An index is copied with all it lists. What a
    registry has isn't fetched.
    """
    with call.session() as session:
        result = images.copy_image(session, source, destination, platform=platform, referrers=referrers)
    for line in copy_lines([result]):
        call.say(line)
    call.out(json_text(copy_json([result])) if as_json else result.reference)
    return 0
