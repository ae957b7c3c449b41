"""``envbuild verify``: whether an image is what composing its own lock again gives."""

from __future__ import annotations

import click

from envbuild.app import verify
from envbuild.cli.call import Call
from envbuild.cli.options import (
    display_options,
    image_platform_option,
    json_option,
    offline_option,
    setting,
    store_options,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.inspection import verdict_json, verdict_lines
from envbuild.cli.show.report import json_text
from envbuild.platforms import Platform


@click.command(short_help="Compose an image again from its own lock, and compare.")
@click.argument("reference", metavar="REF")
@image_platform_option
@click.option(
    "--key", metavar="PUB", type=click.Path(), help="Also look for a signature by this public key (PEM)."
)
@setting("-j", "--workers", type=click.IntRange(1), help="Work in parallel [default: one a core].")
@offline_option
@store_options
@json_option
@display_options
@with_call
def command(call: Call, reference: str, platform: Platform | None, key: str | None, as_json: bool) -> int:
    """Check every digest of REF, then compose the lock inside it again from packages and compare all bytes.

    The status is 0 where every image was reproduced, byte for byte, and, with --key, is signed; else 1. Only
    composed images can be: what an engine built has no function that gives it. Nothing composed before is
    believed; packages are fetched where they aren't here, and are known by their hashes.
    """
    with call.session() as session:
        verdicts = verify.verify_image(session, reference, platform, key=call.cwd / key if key else None)
    if as_json:
        call.out(json_text(verdict_json(reference, verdicts)))
    else:
        for line in verdict_lines(verdicts, color=call.color):
            call.out(line)
    return int(not all(verdict.reproduced and verdict.signed is not False for verdict in verdicts))
