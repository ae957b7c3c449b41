"""``envbuild publish``: files that run an environment elsewhere, with its image by digest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuild.app import deploy, specs
from envbuild.app.deploy import PublishRequest
from envbuild.cli.commands.run import KEY, CommandAfterDashes
from envbuild.cli.options import (
    PLATFORM,
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
    record_option,
    render_options,
    shared_cache_options,
    spec_argument,
    stale_options,
    store_options,
    workspace_option,
)
from envbuild.cli.requests import build_request, given_variables
from envbuild.cli.show.report import json_text, push_json
from envbuild.cli.show.text import printable
from envbuild.platforms import Platform

if TYPE_CHECKING:
    from envbuild.app.deploy import Published, PublishedTo
    from envbuild.cli.call import Call


@click.command(
    cls=CommandAfterDashes,
    short_help="Push an image and write the files that run it elsewhere.",
    options_metavar="[OPTIONS] [SPEC] [-- COMMAND [ARGS]...]",
)
@spec_argument
@click.option(
    "--to",
    "to",
    metavar="TARGET|KIND",
    multiple=True,
    required=True,
    help="A target of the workspace, or compose, github, kubernetes, sbatch, spark, ray, azureml; may be "
    "repeated.",
)
@click.option(
    "-o",
    "--output",
    "output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files there; of several targets, each below its name [default: a single one to stdout].",
)
@click.option(
    "--push",
    "push",
    metavar="REPO[:TAG]",
    help="Push it there [default: the targets' registries, else the setting registry].",
)
@click.option(
    "--code",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="The command's code, as a small layer on top of the image.",
)
@click.option(
    "--serve",
    "serve",
    metavar="SCRIPT",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Serve this entry script instead of a command, as envbuild serve does.",
)
@click.option(
    "--model",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="With --serve: the model.",
)
@click.option("-e", "--env", metavar="NAME[=VALUE]", multiple=True, help="A variable of the command.")
@click.option("-p", "--platform", type=PLATFORM, help="Whose image [default: the target's].")
@attest_options
@stale_options
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
    to: tuple[str, ...],
    output: Path | None,
    push: str | None,
    code: Path | None,
    serve: Path | None,
    model: Path | None,
    env: tuple[str, ...],
    platform: Platform | None,
    locked: bool,
    frozen: bool,
    as_json: bool,
) -> int:
    """Push the image of SPEC and write the files that run COMMAND in it elsewhere, or serve it.

    Every file names the image by digest and leads back to the environment. Nothing is pushed where the
    image doesn't fit a target. Without a COMMAND and --serve, an image that serves by itself does, and
    azureml and github get the environment alone.
    """
    call = call_of(context)
    path = one_spec(spec, spec_file)
    request = PublishRequest(
        to=to,
        command=context.meta.get(KEY, ()),
        code=call.cwd / code if code else None,
        serve=call.cwd / serve if serve else None,
        model=call.cwd / model if model else None,
        env=given_variables(env, call.environ),
        push=push,
        directory=call.cwd / output if output else None,
        single=output is None and not as_json,
        build=build_request(
            platforms=(platform,) if platform else (), locked=locked, frozen=frozen, upgrade=False
        ),
    )
    with call.session(path) as session:
        published = deploy.publish(session, specs.find_spec(session, path), request)
    for line in _lines(published):
        call.say(line)
    if as_json:
        call.out(json_text(_json(published)))
    elif output is None:
        call.stdout.write(published.targets[0].files[0].content)
    else:
        _list(call, published)
    return 0


def _lines(published: Published) -> list[str]:
    lines = []
    for each in published.targets:
        lines += [f"note: {printable(found.text)}" for found in each.findings]
        lines.append(f"{printable(each.target)}: {printable(each.reference)}")
        lines += [f"next: {printable(line)}" for line in each.how]
    return lines


def _list(call: Call, published: Published) -> None:
    for target in published.targets:
        for path in target.paths:
            shown = path.relative_to(call.cwd) if path.is_relative_to(call.cwd) else path
            call.out(printable(str(shown)))


def _json(published: Published) -> dict[str, object]:
    return {
        "environment": published.environment,
        "targets": [_target_json(target) for target in published.targets],
        "pushed": [push_json(each) for each in published.pushed],
    }


def _target_json(published: PublishedTo) -> dict[str, object]:
    paths = published.paths or (None,) * len(published.files)
    return {
        "target": published.target,
        "kind": published.kind,
        "platform": str(published.platform),
        "reference": published.reference,
        "base_reference": published.base_reference,
        "code": published.code,
        "files": [
            {"name": file.name, "path": str(path) if path else None, "content": file.content}
            for file, path in zip(published.files, paths, strict=True)
        ],
        "notes": [finding.text for finding in published.findings],
    }
