"""``envbuild curated``: the environments that come with envbuild."""

from __future__ import annotations

from collections.abc import Mapping

import click

from envbuild.app.curated import CuratedEnvironment, curated_environment, curated_environments, pins_size
from envbuild.cli.call import Call
from envbuild.cli.options import display_options, json_option
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import count_text, printable, size_text, table


@click.group(short_help="List and show the environments that come with envbuild.")
def command() -> None:
    """List and show the environments that come with envbuild: locked, read-only, ready to build by name."""


@command.command("list")
@json_option
@display_options
@with_call
def list_(call: Call, as_json: bool) -> int:
    """List the curated environments."""
    found = curated_environments()
    if as_json:
        call.out(json_text({"environments": [_json(each) for each in found]}))
        return 0
    rows = [(each.name, f"python {each.python}", printable(each.description)) for each in found]
    for line in table(rows):
        call.out(line)
    return 0


@command.command()
@click.argument("name")
@json_option
@display_options
@with_call
def show(call: Call, name: str, as_json: bool) -> int:
    """Show what the curated environment NAME holds: its spec, then every pin."""
    found = curated_environment(name)
    if as_json:
        call.out(json_text(_json(found)))
        return 0
    call.out(printable(found.spec.read_text(encoding="utf-8").rstrip(), lines=True))
    for pins in found.lock.platforms:
        debian = len(getattr(pins.base, "packages", ()))
        amounts = [count_text(debian, "Debian package"), count_text(len(pins.pip), "Python distribution")]
        call.out("")
        call.out(
            f"{pins.platform}  python {found.python}, {', '.join(amounts)}, {size_text(pins_size(pins))}"
        )
        for line in table([(pin.name, pin.version) for pin in pins.pip], indent="  "):
            call.out(line)
    return 0


def _json(found: CuratedEnvironment) -> Mapping[str, object]:
    return {
        "name": found.name,
        "description": found.description,
        "python": found.python,
        "spec": str(found.spec),
        "definition_digest": found.lock.definition,
        "platforms": {
            str(pins.platform): {
                "size": pins_size(pins),
                "pip": {pin.name: pin.version for pin in pins.pip},
                "conda": {pin.name: pin.version for pin in pins.conda},
            }
            for pins in found.lock.platforms
        },
    }
