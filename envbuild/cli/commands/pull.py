"""``envbuild pull``: an image of a registry, whole in the store, its pinned reference on stdout."""

from __future__ import annotations

import click

from envbuild.app import images
from envbuild.cli.call import Call
from envbuild.cli.options import (
    display_options,
    image_platform_option,
    json_option,
    offline_option,
    outputs_option,
    store_options,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.images import pull_json, pull_lines
from envbuild.cli.show.report import json_text
from envbuild.platforms import Platform


@click.command(short_help="Bring an image into the store and to other places.")
@click.argument("reference", metavar="REF")
@image_platform_option
@outputs_option
@click.option("--load", is_flag=True, help="Load it into the Docker engine: the image of its platform.")
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(
    call: Call,
    reference: str,
    platform: Platform | None,
    outputs: tuple[str, ...],
    load: bool,
    as_json: bool,
) -> int:
    """Bring REF into the store, checked, and print its pinned reference.

    A registry is asked what REF names now, whatever the store has under that name. REF may also be
    oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME] or docker-daemon:NAME.
    """
    with call.session() as session:
        result = images.pull_image(session, reference, platform=platform, outputs=outputs, load=load)
    for line in pull_lines(result):
        call.say(line)
    call.out(json_text(pull_json(result)) if as_json else result.reference)
    return 0
