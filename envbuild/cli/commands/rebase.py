"""``envbuild rebase``: an image's base layers swapped below its software."""

from __future__ import annotations

import click

from envbuild.app import images, rebase
from envbuild.cli.call import Call
from envbuild.cli.options import (
    attest_options,
    display_options,
    image_platform_option,
    json_option,
    offline_option,
    outputs_option,
    store_options,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.inspection import rebased_json, rebased_lines
from envbuild.cli.show.report import json_text
from envbuild.platforms import Platform


@click.command(short_help="Put an image on another base, its software as it is.")
@click.argument("reference", metavar="REF")
@click.option(
    "--onto",
    metavar="BASE",
    required=True,
    help="An image, or debian or debian:SUITE for the newest packages of the suite.",
)
@image_platform_option
@click.option("-t", "--tag", "tags", metavar="NAME", multiple=True, help="Name it REPO:TAG; may be repeated.")
@outputs_option
@click.option("--push", metavar="REPO[:TAG]", multiple=True, help="Push it there; may be repeated.")
@attest_options
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(
    call: Call,
    reference: str,
    onto: str,
    platform: Platform | None,
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    push: tuple[str, ...],
    as_json: bool,
) -> int:
    """Put the image REF, which envbuild composed, on BASE, and print its pinned reference.

    The layers of its software stay byte for byte, and no package of theirs is fetched; base and settings are
    composed. The result is what building its new lock gives, so envbuild verify reproduces it. A base whose
    glibc is too old for the software, or whose python isn't the very same, is refused.
    """
    with call.session() as session:
        rebased = rebase.rebase_image(session, reference, onto, platform, tags=tags, outputs=outputs)
        copies = images.push_image(session, rebased.digest, push) if push else ()
    for line in rebased_lines(rebased, copies, color=call.color):
        call.say(line)
    if as_json:
        call.out(json_text(rebased_json(rebased, copies)))
    else:
        call.out(copies[0].reference if copies else rebased.reference)
    return 0
