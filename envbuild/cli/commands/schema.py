"""``envbuild schema``: the JSON Schema of a spec, for editors."""

from __future__ import annotations

import click

from envbuild.cli.call import Call
from envbuild.cli.options import display_options
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.specs.importers.native.model import json_schema


@click.command(short_help="Print the JSON Schema of a spec.")
@display_options
@with_call
def command(call: Call) -> int:
    """Print the JSON Schema of a spec, so that editors complete and check the file."""
    call.out(json_text(json_schema()))
    return 0
