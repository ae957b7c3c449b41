"""Requests of the application, filled in by the options that bear the names of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

import click

from envbuild.cli.options import call_of
from envbuild.errors import UsageError

COMMAND = "envbuild.command"
"""Where the command after the dashes is in a context's ``meta``."""
F = TypeVar("F", bound=Callable[..., Any])

_EXCLUSIVE = (
    *(("locked", "frozen"), ("check", "upgrade"), ("check", "dry_run"), ("upgrade", "upgrade_packages")),
    *((kept, moved) for moved in ("upgrade", "upgrade_packages", "as_of") for kept in ("locked", "frozen")),
    *(("target", other) for other in ("mounts", "workdir", "backend")),
)
"""Options that contradict each other, wherever a command has both."""


class CommandAfterDashes(click.Command):
    """Keeps all after the first ``--`` as it is: options of the user's command are none of ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            args, ctx.meta[COMMAND] = args[:cut], tuple(args[cut + 1 :])
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        # The metavar of the options says it all: the arguments stand before the dashes.
        return [self.options_metavar] if self.options_metavar else []


def with_call(function: F) -> F:
    """Gives a command its call, and ``spec`` where it takes one; the other options are its arguments."""

    @click.pass_context
    @wraps(function)
    def command(context: click.Context, /, **options: Any) -> Any:
        return function(call_of(context), **_named_spec(options))

    return command  # type: ignore[return-value]


def with_request(kind: type[Any], *, own: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Gives a command its call, and one ``kind`` made of the options that bear the names of its fields, or of
    those of requests inside it. The other options are its arguments, as are those called ``own``. Raises
    ``UsageError`` for options that contradict each other."""

    def decorate(function: F) -> F:
        @click.pass_context
        @wraps(function)
        def command(context: click.Context, /, **options: Any) -> Any:
            _refuse_contradictions(context)
            options = _named_spec(options)
            kept = {name: options.pop(name) for name in own}
            options["command"] = context.meta.get(COMMAND, ())
            request = _fill(kind, options)
            options.pop("command", None)
            return function(call_of(context), request, **options, **kept)

        return command  # type: ignore[return-value]

    return decorate


def _fill(kind: type[Any], options: dict[str, Any]) -> Any:
    """A ``kind`` of what ``options`` has for its fields, which is taken out; its own fields come first."""
    hints = get_type_hints(kind)
    values = {field.name: options.pop(field.name) for field in fields(kind) if field.name in options}
    for field in fields(kind):
        inner = hints[field.name]
        if field.name not in values and is_dataclass(inner):
            values[field.name] = _fill(inner, options)  # type: ignore[arg-type]
    return kind(**values)


def _named_spec(options: Mapping[str, Any]) -> dict[str, Any]:
    """SPEC or ``--file``, whichever was given. Raises ``UsageError`` where both were."""
    named = dict(options)
    if "spec_file" in named:
        argument, option = named["spec"], named.pop("spec_file")
        if argument is not None and option is not None:
            raise UsageError(
                f"two specs are named: {argument} and {option}", hint="give SPEC or --file, not both"
            )
        named["spec"] = argument or option or "."
    return named


def _refuse_contradictions(context: click.Context) -> None:
    given = {
        parameter.name: max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name is not None
        and context.params.get(parameter.name) not in (None, False, (), parameter.get_default(context))
    }
    for names in _EXCLUSIVE:
        if all(name in given for name in names):
            options = " and ".join(given[name] for name in names)
            raise UsageError(f"{options} exclude each other", hint="give only one of them")
