"""``envbuild import``: an environment out of whatever people have, as envbuild's spec or another's."""

from __future__ import annotations

import click

from envbuild.app.read import read_source
from envbuild.cli.call import Call
from envbuild.cli.options import (
    PLATFORM,
    display_options,
    json_option,
    offline_option,
    store_options,
    workspace_option,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.environments import deliver
from envbuild.platforms import Platform


@click.command(short_help="Read an environment from any known source and write it as a spec.")
@click.argument("source")
@click.option("-o", "--output", metavar="FILE|DIR", help="Write it there [default: stdout].")
@click.option(
    "--format",
    metavar="FORMAT",
    default="native",
    help="native, azure-v2, azure-v1, conda or requirements [default: native].",
)
@click.option("--name", metavar="NAME", help="Another name than the source's.")
@click.option(
    "-p", "--platform", type=PLATFORM, help="Of an image that has several [default: this machine's]."
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@offline_option
@store_options
@workspace_option
@json_option
@display_options
@with_call
def command(
    call: Call,
    source: str,
    output: str | None,
    format: str,
    name: str | None,
    platform: Platform | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Read SOURCE and write it as a spec; what can't be carried is said, line by line.

    SOURCE is a file or directory of any known format, a conda environment's or virtual environment's
    directory, venv for the active one, or image:REF for an existing image (image:oci:DIR for a layout).
    """
    with call.session(source) as session:
        spec = read_source(session, source, name=name, platform=platform)
    deliver(call, spec, format=format, output=output, overwrite=overwrite, as_json=as_json)
    return 0
