"""``envbuild run``: a command in the image of a spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from envbuild.app import run, specs
from envbuild.app.jobs import JobRequest
from envbuild.app.requests import RunRequest
from envbuild.cli.call import Call
from envbuild.cli.commands.run_job import run_job
from envbuild.cli.options import (
    DIRECTORY,
    PRESENT_DIRECTORY,
    build_options,
    display_options,
    env_option,
    one_platform_option,
    spec_argument,
    stale_options,
)
from envbuild.cli.requests import CommandAfterDashes, with_request
from envbuild.errors import UsageError


@click.command(
    cls=CommandAfterDashes,
    short_help="Run a command in the image of a spec.",
    options_metavar="[OPTIONS] [SPEC] -- COMMAND [ARGS]...",
)
@spec_argument
@env_option()
@click.option(
    "--mount", "mounts", metavar="SOURCE:TARGET[:ro]", multiple=True, help="Mount a directory or file."
)
@click.option(
    "-w",
    "--workdir",
    metavar="DIR",
    type=PRESENT_DIRECTORY,
    help="Mount DIR as the working directory [default: where you stand].",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "docker", "userns"]),
    default="auto",
    help="auto: Docker where an engine answers, else a user namespace.",
)
@click.option("--target", metavar="NAME", help="Run it there: envbuild target list shows where.")
@click.option(
    "--code",
    metavar="DIR",
    type=PRESENT_DIRECTORY,
    help="With --target: the code, as a small layer on top of the image.",
)
@click.option(
    "--outputs",
    metavar="DIR",
    type=DIRECTORY,
    help="With --target: where what the job writes to outputs/ is brought.",
)
@click.option("--dry-run", is_flag=True, help="With --target: print what the target would be given.")
@one_platform_option("The platform to run [default: this machine's].")
@stale_options
@build_options
@display_options
@with_request(RunRequest, own=("dry_run", "outputs"))
def command(
    call: Call,
    request: RunRequest,
    *,
    spec: str,
    target: str | None,
    code: Path | None,
    outputs: Path | None,
    dry_run: bool,
) -> int:
    """Run COMMAND in the image of SPEC, building it first where need be.

    The working directory is mounted and stays the working directory; the exit status is the command's.
    On a target nothing is mounted: --code is in the image, below /workspace, where the command starts.
    """
    if not request.command:
        raise UsageError(
            "no command to run is given", hint="put it after two dashes: envbuild run SPEC -- python train.py"
        )
    if target is not None:
        job = JobRequest(
            target=target,
            command=request.command,
            code=code,
            env=request.env,
            register=not dry_run,
            build=request.build,
        )
        return run_job(call, spec, job, outputs=outputs, dry_run=dry_run)
    if code is not None or outputs is not None or dry_run:
        raise UsageError("--code, --outputs and --dry-run are for targets", hint="add --target local")
    request = replace(request, workdir=request.workdir or call.cwd)
    with call.session(spec) as session:
        return run.run(session, specs.find_spec(session, spec), request)
