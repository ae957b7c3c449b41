"""``envbuild build``: an image, its pinned reference on stdout."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuild.app import build, specs
from envbuild.cli.commands.plan import show
from envbuild.cli.options import (
    attest_options,
    build_engine_option,
    call_of,
    compose_options,
    display_options,
    engine_options,
    json_option,
    lock_dir_option,
    offline_option,
    one_spec,
    platform_option,
    record_option,
    render_options,
    shared_cache_options,
    spec_argument,
    stale_options,
    store_options,
    upgrade_options,
    workspace_option,
)
from envbuild.cli.requests import build_request
from envbuild.cli.show.report import build_json, build_lines, json_text
from envbuild.errors import PublishError

if TYPE_CHECKING:
    pass


@click.command(short_help="Build the image of a spec and print its pinned reference.")
@spec_argument
@platform_option
@click.option(
    "-t", "--tag", "tags", metavar="REPO:TAG", multiple=True, help="Name the image; may be repeated."
)
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="KIND:PATH",
    multiple=True,
    help="Write it to oci:DIR, oci-archive:FILE or docker-archive:FILE; may be repeated.",
)
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
@build_engine_option
@render_options
@engine_options
@compose_options
@shared_cache_options
@lock_dir_option
@offline_option
@store_options
@workspace_option
@record_option
@json_option
@display_options
@click.pass_context
def command(
    context: click.Context,
    spec: str | None,
    spec_file: str | None,
    platforms: tuple[object, ...],
    tags: tuple[str, ...],
    outputs: tuple[str, ...],
    push: tuple[str, ...],
    load: bool,
    locked: bool,
    frozen: bool,
    upgrade: bool,
    upgrade_packages: tuple[str, ...],
    as_of: date | None,
    no_cache: bool,
    verify_found: bool,
    secrets: tuple[str, ...],
    dry_run: bool,
    metadata_file: Path | None,
    as_json: bool,
) -> int:
    """Build the image of SPEC, locking it first where need be.

    Prints the pinned reference on stdout and nothing else: docker run $(envbuild build --load .)
    """
    call = call_of(context)
    path = one_spec(spec, spec_file)
    request = build_request(
        platforms=platforms,
        tags=tags,
        outputs=outputs,
        push=push,
        load=load,
        locked=locked,
        frozen=frozen,
        no_cache=no_cache,
        verify_found=verify_found,
        secrets=secrets,
        upgrade=upgrade,
        upgrade_packages=upgrade_packages,
        as_of=as_of,
        dry_run=dry_run,
    )
    if dry_run:
        show(call, path, request, as_json=as_json, engine=True)
        return 0
    _few_arenas()
    with call.session(path) as session:
        result = build.build(session, specs.find_spec(session, path), request)
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
