"""``envbuild publish``: files that run an environment elsewhere, with its image by digest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from envbuild.app import deploy, specs
from envbuild.app.deploy import PublishRequest
from envbuild.cli.options import (
    DIRECTORY,
    PRESENT_DIRECTORY,
    HerePath,
    attest_options,
    build_options,
    display_options,
    env_option,
    json_option,
    one_platform_option,
    spec_argument,
    stale_options,
)
from envbuild.cli.requests import CommandAfterDashes, with_request
from envbuild.cli.show.report import json_text, push_json
from envbuild.cli.show.text import printable

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
    "directory",
    metavar="DIR",
    type=DIRECTORY,
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
    type=PRESENT_DIRECTORY,
    help="The command's code, as a small layer on top of the image.",
)
@click.option(
    "--serve",
    "serve",
    metavar="SCRIPT",
    type=HerePath(dir_okay=False, exists=True),
    help="Serve this entry script instead of a command, as envbuild serve does.",
)
@click.option(
    "--model",
    metavar="DIR",
    type=PRESENT_DIRECTORY,
    help="With --serve: the model.",
)
@env_option("A variable of the command.")
@one_platform_option("Whose image [default: the target's].")
@attest_options
@stale_options
@build_options
@json_option
@display_options
@with_request(PublishRequest)
def command(call: Call, request: PublishRequest, *, spec: str, as_json: bool) -> int:
    """Push the image of SPEC and write the files that run COMMAND in it elsewhere, or serve it.

    Every file names the image by digest and leads back to the environment. Nothing is pushed where the
    image doesn't fit a target. Without a COMMAND and --serve, an image that serves by itself does, and
    azureml and github get the environment alone.
    """
    request = replace(request, single=request.directory is None and not as_json)
    with call.session(spec) as session:
        published = deploy.publish(session, specs.find_spec(session, spec), request)
    for line in _lines(published):
        call.say(line)
    if as_json:
        call.out(json_text(_json(published)))
    elif request.directory is None:
        call.stdout.write(published.targets[0].files[0].content)
    else:
        _list(call, published)
    return 0


def _lines(published: Published) -> list[str]:
    lines = []
    for target in published.targets:
        lines += [f"note: {printable(finding.text)}" for finding in target.findings]
        lines.append(f"{printable(target.target)}: {printable(target.reference)}")
        lines += [f"next: {printable(line)}" for line in target.how]
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
        "pushed": [push_json(push) for push in published.pushed],
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
