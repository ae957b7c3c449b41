"""``envbuild target``: the places where images run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from envbuild.cli.call import Call
from envbuild.cli.options import display_options, json_option, workspace_option
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import printable, table
from envbuild.errors import UsageError
from envbuild.targets.base import TargetRecord
from envbuild.targets.kinds import kind as kind_of
from envbuild.targets.kinds import kind_names
from envbuild.targets.options import COMMON, check_options

F = TypeVar("F", bound=Callable[..., Any])


def _shared(function: F) -> F:
    function = with_call(function)
    return workspace_option(json_option(display_options(function)))


@click.group(short_help="Keep the places where images run.")
def command() -> None:
    """Keep the places where images run, by name: ``envbuild run --target NAME``.

    The target ``local``, this machine, is always there. Options hold no credentials: they name where those
    are kept.
    """


@command.command()
@click.argument("name")
@click.argument("kind")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--replace", is_flag=True, help="Put it in the place of another one of that name.")
@_shared
def add(call: Call, name: str, kind: str, options: tuple[str, ...], replace: bool, as_json: bool) -> int:
    """Keep a target: its KIND (``envbuild target kinds`` lists them) and its options."""
    record = TargetRecord(name=name, kind=kind, options=_pairs(options))
    check_options(record, kind_of(kind).options)
    with call.workspace() as workspace:
        workspace.environments.add_target(record, replace=replace)
    call.say(f"{printable(name)} is a target of the kind {kind}")
    if as_json:
        call.out(json_text(_json(record)))
    return 0


@command.command("list")
@_shared
def list_(call: Call, as_json: bool) -> int:
    """List all targets."""
    with call.workspace() as workspace:
        targets = workspace.targets()
    if as_json:
        call.out(json_text({"targets": [_json(target) for target in targets]}))
        return 0
    rows = [
        (target.name, target.kind, " ".join(f"{key}={value}" for key, value in target.options))
        for target in targets
    ]
    for line in table([("name", "kind", "options"), *rows]):
        call.out(printable(line))
    return 0


@command.command()
@click.argument("name")
@_shared
def show(call: Call, name: str, as_json: bool) -> int:
    """Show a target and its options."""
    with call.workspace() as workspace:
        target = workspace.target(name)
    if as_json:
        call.out(json_text(_json(target)))
        return 0
    for line in table([("name", target.name), ("kind", target.kind), *target.options]):
        call.out(printable(line))
    return 0


@command.command()
@click.argument("name")
@_shared
def remove(call: Call, name: str, as_json: bool) -> int:
    """Forget a target; its runs stay."""
    with call.workspace() as workspace:
        workspace.environments.remove_target(name)
    call.say(f"{printable(name)} is no target any more")
    if as_json:
        call.out(json_text({"removed": name}))
    return 0


@command.command()
@click.argument("kind", required=False)
@_shared
def kinds(call: Call, kind: str | None, as_json: bool) -> int:
    """List the kinds of targets, or the options of one KIND."""
    if kind is None:
        names = kind_names()
        for line in [json_text({"kinds": list(names)})] if as_json else names:
            call.out(line)
        return 0
    own = kind_of(kind).options
    options = (*own, *(common for common in COMMON if common.name not in {mine.name for mine in own}))
    if as_json:
        rows = [
            {"name": option.name, "help": option.help, "required": option.required, "default": option.default}
            for option in options
        ]
        call.out(json_text({"kind": kind, "options": rows}))
        return 0
    lines = [("option", "default", "")]
    lines += [
        (option.name, "needed" if option.required else option.default or "-", option.help)
        for option in options
    ]
    for line in table(lines):
        call.out(printable(line))
    return 0


def _pairs(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r} is not KEY=VALUE", hint="an option is given as namespace=train")
        if key in pairs:
            raise UsageError(f"the option {key} is given twice")
        pairs[key] = value
    return tuple(sorted(pairs.items()))


def _json(record: TargetRecord) -> dict[str, object]:
    return {"name": record.name, "kind": record.kind, "options": dict(record.options)}
