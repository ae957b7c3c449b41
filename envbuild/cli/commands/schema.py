"""``envbuild schema``: the JSON Schema of a spec, for editors."""

from __future__ import annotations

import click

from envbuild.cli.options import call_of, display_options
from envbuild.cli.show.report import json_text
from envbuild.specs.schema import json_schema


@click.command(short_help="Print the JSON Schema of a spec.")
@display_options
@click.pass_context
def command(context: click.Context) -> int:
    """Print the JSON Schema of a spec, so that editors complete and check the file."""
    call_of(context).out(json_text(json_schema()))
    return 0
