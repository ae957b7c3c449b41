"""``envbuild build``: an image, its pinned reference on stdout."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import click

from envbuild.app import build, specs
from envbuild.app.requests import BuildRequest
from envbuild.cli.call import Call
from envbuild.cli.commands.plan import show
from envbuild.cli.options import (
    attest_options,
    build_options,
    display_options,
    json_option,
    outputs_option,
    platform_option,
    spec_argument,
    stale_options,
    upgrade_options,
)
from envbuild.cli.requests import with_request
from envbuild.cli.show.report import build_json, build_lines, json_text
from envbuild.errors import PublishError


@click.command(short_help="Build the image of a spec and print its pinned reference.")
@spec_argument
@platform_option
@click.option(
    "-t", "--tag", "tags", metavar="REPO:TAG", multiple=True, help="Name the image; may be repeated."
)
@outputs_option
@click.option(
    "--push",
    "push",
    metavar="REPO[:TAG]",
    multiple=True,
    help="Push it under its own tag, and TAG; may be repeated. Without a host: below the setting registry.",
)
@attest_options
@click.option("--load", is_flag=True, help="Load it into the Docker engine.")
@stale_options
@upgrade_options
@click.option("--no-cache", is_flag=True, help="Compose every layer anew.")
@click.option(
    "--verify-found",
    is_flag=True,
    help="Compose what a registry has, too, and fail where that is another image.",
)
@click.option(
    "--secret",
    "secrets",
    metavar="id=NAME,src=FILE",
    multiple=True,
    help="What steps of a Dockerfile may mount (buildx), or id=NAME,env=VARIABLE; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be built; write nothing.")
@click.option(
    "--metadata-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what --json prints to FILE.",
)
@build_options
@json_option
@display_options
@with_request(BuildRequest)
def command(
    call: Call, request: BuildRequest, *, spec: str, metadata_file: Path | None, as_json: bool
) -> int:
    """Build the image of SPEC, locking it first where need be.

    Prints the pinned reference on stdout and nothing else: docker run $(envbuild build --load .)
    """
    if request.lock.dry_run:
        show(call, spec, request, as_json=as_json, engine=True)
        return 0
    _few_arenas()
    with call.session(spec) as session:
        result = build.build(session, specs.find_spec(session, spec), request)
    for line in build_lines(result):
        call.say(line)
    if metadata_file is not None:
        _write(call.cwd / metadata_file, json_text(build_json(result)) + "\n")
    call.out(json_text(build_json(result)) if as_json else result.reference)
    return 0


def _few_arenas() -> None:
    """Lets all threads of this process share two of glibc's memory arenas.

    With one a thread each keeps what it once needed; for a large image that is a fifth of the peak."""
    arena_max = -8  # M_ARENA_MAX of malloc.h
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(arena_max, 2)


def _write(path: Path, text: str) -> None:
    """Writes the file as a whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise PublishError(
            f"can't write {path}: {error.strerror}", hint="the image itself is built and in the store"
        ) from error
