"""``envbuild push``: an image that is here becomes one of a registry."""

from __future__ import annotations

import click

from envbuild.app import images
from envbuild.cli.call import Call
from envbuild.cli.options import (
    attest_options,
    display_options,
    json_option,
    offline_option,
    store_options,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.images import copy_json, copy_lines
from envbuild.cli.show.report import json_text


@click.command(short_help="Push an image that is here to a registry.")
@click.argument("reference", metavar="REF")
@click.argument("repositories", metavar="REPO[:TAG]...", nargs=-1, required=True)
@attest_options
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(call: Call, reference: str, repositories: tuple[str, ...], as_json: bool) -> int:
    """Push REF to each REPO[:TAG], byte for byte; without TAG under the tag it has.

    REF is a name that build printed or -t gave, sha256:HEX, oci:DIR[:NAME], oci-archive:FILE[:NAME],
    docker-archive:FILE[:NAME] or docker-daemon:NAME. What the registry has isn't sent.
    """
    with call.session() as session:
        results = images.push_image(session, reference, repositories)
    for line in copy_lines(results):
        call.say(line)
    if as_json:
        call.out(json_text(copy_json(results)))
    else:
        for result in results:
            call.out(result.reference)
    return 0
