"""``envbuild run``: a command in the image of a spec."""

from __future__ import annotations

from pathlib import Path

import click

from envbuild.app import run, specs
from envbuild.app.jobs import JobRequest
from envbuild.app.requests import RunRequest
from envbuild.cli.commands.run_job import run_job
from envbuild.cli.options import (
    PLATFORM,
    build_engine_option,
    call_of,
    compose_options,
    display_options,
    engine_options,
    lock_dir_option,
    offline_option,
    one_spec,
    record_option,
    refuse_both,
    render_options,
    shared_cache_options,
    spec_argument,
    stale_options,
    store_options,
    workspace_option,
)
from envbuild.cli.requests import build_request, given_variables
from envbuild.errors import UsageError
from envbuild.platforms import Platform


class CommandAfterDashes(click.Command):
    """Keeps all after the first ``--`` as it is: options of the user's command are none of ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            args, ctx.meta[KEY] = args[:cut], tuple(args[cut + 1 :])
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        # The metavar of the options says it all: the arguments stand before the dashes.
        return [self.options_metavar] if self.options_metavar else []


KEY = "envbuild.command"
"""Where the command after the dashes is in a context's ``meta``."""


@click.command(
    cls=CommandAfterDashes,
    short_help="Run a command in the image of a spec.",
    options_metavar="[OPTIONS] [SPEC] -- COMMAND [ARGS]...",
)
@spec_argument
@click.option("-e", "--env", metavar="NAME[=VALUE]", multiple=True, help="Set a variable, or pass it on.")
@click.option(
    "--mount", "mounts", metavar="SOURCE:TARGET[:ro]", multiple=True, help="Mount a directory or file."
)
@click.option(
    "-w",
    "--workdir",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
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
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="With --target: the code, as a small layer on top of the image.",
)
@click.option(
    "--outputs",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --target: where what the job writes to outputs/ is brought.",
)
@click.option("--dry-run", is_flag=True, help="With --target: print what the target would be given.")
@click.option("-p", "--platform", type=PLATFORM, help="The platform to run [default: this machine's].")
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
@display_options
@click.pass_context
def command(
    context: click.Context,
    spec: str | None,
    spec_file: str | None,
    env: tuple[str, ...],
    mounts: tuple[str, ...],
    workdir: Path | None,
    backend: str,
    target: str | None,
    code: Path | None,
    outputs: Path | None,
    dry_run: bool,
    platform: Platform | None,
    locked: bool,
    frozen: bool,
) -> int:
    """Run COMMAND in the image of SPEC, building it first where need be.

    The working directory is mounted and stays the working directory; the exit status is the command's.
    On a target nothing is mounted: --code is in the image, below /workspace, where the command starts.
    """
    call = call_of(context)
    words: tuple[str, ...] = context.meta.get(KEY, ())
    if not words:
        raise UsageError(
            "no command to run is given", hint="put it after two dashes: envbuild run SPEC -- python train.py"
        )
    path = one_spec(spec, spec_file)
    build = build_request(
        platforms=(platform,) if platform else (), locked=locked, frozen=frozen, upgrade=False
    )
    variables = given_variables(env, call.environ)
    if target is not None:
        refuse_both(target=True, mount=bool(mounts))
        refuse_both(target=True, workdir=workdir is not None)
        refuse_both(target=True, backend=backend != "auto")
        job = JobRequest(
            target=target,
            command=words,
            code=call.cwd / code if code else None,
            env=variables,
            build=build,
        )
        return run_job(call, path, job, outputs=call.cwd / outputs if outputs else None, dry_run=dry_run)
    if code is not None or outputs is not None or dry_run:
        raise UsageError("--code, --outputs and --dry-run are for targets", hint="add --target local")
    request = RunRequest(
        command=words,
        platform=platform,
        env=variables,
        backend=backend,
        workdir=call.cwd / workdir if workdir else call.cwd,
        mounts=mounts,
        build=build,
    )
    with call.session(path) as session:
        return run.run(session, specs.find_spec(session, path), request)
