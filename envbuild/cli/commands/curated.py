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
    environments = curated_environments()
    if as_json:
        call.out(json_text({"environments": [_json(environment) for environment in environments]}))
        return 0
    rows = [
        (environment.name, f"python {environment.python}", printable(environment.description))
        for environment in environments
    ]
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
    environment = curated_environment(name)
    if as_json:
        call.out(json_text(_json(environment)))
        return 0
    call.out(printable(environment.spec.read_text(encoding="utf-8").rstrip(), lines=True))
    for pins in environment.lock.platforms:
        debian = len(getattr(pins.base, "packages", ()))
        amounts = [count_text(debian, "Debian package"), count_text(len(pins.pip), "Python distribution")]
        call.out("")
        call.out(
            f"{pins.platform}  python {environment.python}, {', '.join(amounts)}, "
            f"{size_text(pins_size(pins))}"
        )
        for line in table([(pin.name, pin.version) for pin in pins.pip], indent="  "):
            call.out(line)
    return 0


def _json(environment: CuratedEnvironment) -> Mapping[str, object]:
    return {
        "name": environment.name,
        "description": environment.description,
        "python": environment.python,
        "spec": str(environment.spec),
        "definition_digest": environment.lock.definition,
        "platforms": {
            str(pins.platform): {
                "size": pins_size(pins),
                "pip": {pin.name: pin.version for pin in pins.pip},
                "conda": {pin.name: pin.version for pin in pins.conda},
            }
            for pins in environment.lock.platforms
        },
    }
