"""Options that several commands share. Those of a setting or of the display go straight into the call; the
others bear the names of the fields that they fill in requests (``cli.requests``)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from envbuild.cli.call import Call
from envbuild.errors import UsageError
from envbuild.platforms import Platform

F = TypeVar("F", bound=Callable[..., Any])


def call_of(context: click.Context) -> Call:
    """The call that a context belongs to."""
    call = context.find_root().obj
    assert isinstance(call, Call)
    return call


def _setting(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # An option that may be repeated is an empty tuple where it isn't given.
    if value not in (None, ()) and parameter.name is not None:
        call_of(context).flags[parameter.name] = value


def _shown(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keeps a display option; one that isn't given here may have been given before the command's name."""
    if value and parameter.name is not None:
        setattr(call_of(context), parameter.name, value)


def _stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def setting(*names: str, **attributes: Any) -> Callable[[F], F]:
    """An option that overrides the setting it is named after."""
    return click.option(*names, callback=_setting, expose_value=False, **attributes)


def _display(*names: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*names, callback=_shown, expose_value=False, **attributes)


display_options = _stack(
    _display(
        "--progress",
        type=click.Choice(["auto", "plain", "none"]),
        help="auto: live on a terminal, else plain lines.",
    ),
    _display("-q", "--quiet", is_flag=True, help="Say only what is wrong."),
    _display("-v", "--verbose", count=True, help="Say more: a table of stages and seconds; twice: the log."),
    _display("--no-color", is_flag=True, help="No colours (also: NO_COLOR)."),
    _display("--debug", is_flag=True, help="Show the log, and the traceback of an error."),
)
store_options = setting("--cache-dir", metavar="DIR", help="Where the store stands.")
offline_option = setting("--offline", is_flag=True, default=None, help="Use no network, only the caches.")
workspace_option = setting(
    "--workspace", metavar="FILE|URL", help="The workspace of registered environments."
)
record_option = setting(
    "--record/--no-record", default=None, help="Record the build in the workspace [default: yes]."
)
lock_dir_option = setting(
    "--lock-dir", metavar="DIR", help="Where lock directories stand [default: lockfiles/ beside the spec]."
)
compose_options = _stack(
    setting("--compression", type=click.Choice(["gzip", "zstd"]), help="Of the layers [default: gzip]."),
    setting("-j", "--workers", type=click.IntRange(1), help="Work in parallel [default: one a core]."),
)
shared_cache_options = _stack(
    setting(
        "--cache-from",
        metavar="REPO",
        multiple=True,
        help="Take composed packages from this registry repository where it has them; may be repeated.",
    ),
    setting("--cache-to", metavar="REPO", help="Write composed packages to this registry repository."),
)
engine_options = _stack(
    setting(
        "--pip-engine", type=click.Choice(["uv", "pip-tools"]), help="What resolves for pip [default: uv]."
    ),
    setting(
        "--conda-engine",
        type=click.Choice(["rattler", "conda-lock"]),
        help="What resolves for conda [default: rattler].",
    ),
    setting(
        "--index-strategy",
        type=click.Choice(["first-index", "unsafe-best-match"]),
        help="Of pip packages that several indexes have, in place of the spec's: part of the definition.",
    ),
)
build_engine_option = setting(
    "--engine",
    type=click.Choice(["auto", "native", "docker", "buildx"]),
    help="What builds the image [default: the first that can].",
)
render_options = _stack(
    setting("--template-dir", metavar="DIR", help="Templates that go before the shipped ones."),
    setting(
        "--micromamba-image",
        metavar="NAME@DIGEST",
        help="Install conda packages by this image's micromamba [default: by py-rattler].",
    ),
)
attest_options = _stack(
    setting(
        "--attest/--no-attest",
        default=None,
        help="Attach bills of materials and provenance to what is pushed [default: yes].",
    ),
    setting(
        "--sign-key",
        metavar="FILE",
        help="Sign what is pushed, as cosign does, with a PEM key; its password: ENVBUILD_SIGN_PASSWORD.",
    ),
)
outputs_option = click.option(
    "-o",
    "--output",
    "outputs",
    metavar="KIND:PATH",
    multiple=True,
    help="Write it to oci:DIR, oci-archive:FILE or docker-archive:FILE; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def spec_argument(function: F) -> F:
    """SPEC or ``-f/--file``, which ``cli.requests`` makes one argument ``spec``; without either, the current
    directory."""
    function = click.option("-f", "--file", "spec_file", metavar="SPEC", help="The spec [default: .].")(
        function
    )
    return click.argument("spec", required=False)(function)


class _PlatformType(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    name = "platform"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Platform:
        return value if isinstance(value, Platform) else Platform.parse(value)


class _DayType(click.ParamType):  # type: ignore[type-arg]
    name = "date"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> date | Literal["none"]:
        if isinstance(value, date):
            return value
        if value == "none":
            return "none"
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date like 2026-11-01, nor none", param, ctx)


PLATFORM = _PlatformType()
DAY = _DayType()


class HerePath(click.Path):
    """A path relative to where the call stands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(path_type=Path, **attributes)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(super().convert(value, param, ctx))  # type: ignore[arg-type]  # path_type says Path
        return path if ctx is None else call_of(ctx).cwd / path


DIRECTORY = HerePath(file_okay=False)
PRESENT_DIRECTORY = HerePath(file_okay=False, exists=True)


image_platform_option = click.option(
    "-p",
    "--platform",
    type=PLATFORM,
    help="Only the image of this platform, linux/amd64 or linux-64 [default: all of them].",
)
"""``--platform`` of commands that take an image which is there; as ``platform``."""


def _unique(context: click.Context, parameter: click.Parameter, value: Any) -> tuple[Any, ...]:
    values = value if isinstance(value, tuple) else (value,) if value is not None else ()
    return tuple(dict.fromkeys(values))


def one_platform_option(text: str) -> Callable[[F], F]:
    """``--platform`` of commands that work on one; as ``platforms``, of none or one."""
    return click.option("-p", "--platform", "platforms", type=PLATFORM, callback=_unique, help=text)


def _variables(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Sorted pairs; the last of a name counts, and a name alone passes on this process's value, if any."""
    environ = call_of(context).environ
    chosen: dict[str, str] = {}
    for text in value:
        name, equals, content = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"{text!r} is not NAME=VALUE", hint="a variable is given as -e NAME=VALUE")
        if equals:
            chosen[name] = content
        elif name in environ:
            chosen[name] = environ[name]
    return tuple(sorted(chosen.items()))


def env_option(text: str = "Set a variable, or pass it on.") -> Callable[[F], F]:
    """``-e NAME[=VALUE]``, as sorted pairs."""
    return click.option("-e", "--env", metavar="NAME[=VALUE]", multiple=True, callback=_variables, help=text)


platform_option = click.option(
    "-p",
    "--platform",
    "platforms",
    type=PLATFORM,
    multiple=True,
    callback=_unique,
    help="Only this platform, linux/amd64 or linux-64; may be repeated [default: all of the spec's].",
)
upgrade_options = _stack(
    click.option("--upgrade", is_flag=True, help="Let every pin move to the newest that fits."),
    click.option(
        "-P",
        "--upgrade-package",
        "upgrade_packages",
        metavar="NAME",
        multiple=True,
        help="Let only this package's pin move; may be repeated.",
    ),
    click.option(
        "--as-of",
        type=DAY,
        metavar="YYYY-MM-DD|none",
        help="Take no artifact newer than this; the lock keeps it until another one, or none.",
    ),
)
stale_options = _stack(
    click.option("--locked", is_flag=True, help="Fail where the lock doesn't answer the spec."),
    click.option("--frozen", is_flag=True, help="Use the lock as it is, without a look at the spec."),
)
resolve_options = _stack(engine_options, lock_dir_option, offline_option, store_options, workspace_option)
"""What a command takes that locks."""
build_options = _stack(
    *(build_engine_option, render_options, engine_options, compose_options, shared_cache_options),
    *(lock_dir_option, offline_option, store_options, workspace_option, record_option),
)
"""What a command takes that builds."""
