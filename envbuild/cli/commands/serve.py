"""``envbuild serve``: an entry script answers HTTP in the environment of a spec."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from envbuild.app import services, specs
from envbuild.app.jobs import refuse
from envbuild.app.services import READY_SECONDS, ServeRequest
from envbuild.cli.options import (
    DIRECTORY,
    HerePath,
    build_options,
    display_options,
    env_option,
    one_platform_option,
    spec_argument,
    stale_options,
)
from envbuild.cli.requests import with_request
from envbuild.cli.show.text import printable, size_text

if TYPE_CHECKING:
    from envbuild.app.services import PreparedService
    from envbuild.cli.call import Call


@click.command(short_help="Serve an entry script in the environment of a spec.")
@spec_argument
@click.option(
    "--entry-script",
    metavar="FILE",
    required=True,
    type=HerePath(dir_okay=False),
    help="Python with init(), called once, and run(data), called for each request.",
)
@click.option(
    "--code",
    metavar="DIR",
    type=DIRECTORY,
    help="What goes into the image [default: the script's directory].",
)
@click.option("--model", metavar="DIR", type=DIRECTORY, help="The model, found at AZUREML_MODEL_DIR.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Of this machine [default: the environment's, 5001].",
)
@click.option("--target", metavar="NAME", default="local", show_default=True, help="Serve it there.")
@env_option()
@click.option(
    "--ready-seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="How long it may take until it answers [default: 120].",
)
@click.option("--push", metavar="REPO", help="Push the serving image there, too.")
@click.option("--dry-run", is_flag=True, help="Print what the target would be given, and start nothing.")
@one_platform_option("The platform to serve [default: this machine's].")
@stale_options
@build_options
@display_options
@with_request(ServeRequest, own=("dry_run",))
def command(
    call: Call, request: ServeRequest, *, spec: str, ready_seconds: float | None, dry_run: bool
) -> int:
    """Serve an entry script in the environment of SPEC, on this machine's loopback, until Ctrl-C.

    An environment that asks for azureml-inference-server-http and has an inference_config is served as it
    is: the image that trained. Any other is locked with the server as NAME-serving. POST /score answers, and
    GET / says that it lives; every answer names its run in x-envbuild-run.
    """
    request = replace(request, register=not dry_run)
    with (
        call.session(spec) as session,
        services.prepare_service(session, specs.find_spec(session, spec), request) as prepared,
    ):
        for finding in prepared.prepared.findings:
            if not finding.error:
                call.say(f"note: {printable(finding.text)}")
        if dry_run:
            refuse(prepared.prepared.findings, request.target)
            _tell(call, prepared)
            _show(call, prepared)
            return 0
        _tell(call, prepared)
        with services.run_service(
            session,
            prepared,
            _write,
            ready_seconds=ready_seconds or READY_SECONDS,
            starting=call.wait_for_jobs,
        ) as serving:
            call.say(f"ready after {serving.seconds:.1f} s: {serving.scoring_url} (Ctrl-C stops it)")
            status = serving.wait()
    call.complain(f"the service {serving.name} ended by itself, with the exit status {status}")
    call.hint(f"all it said: envbuild runs logs {serving.name}")
    return status or 1


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _tell(call: Call, prepared: PreparedService) -> None:
    job, target = prepared.prepared.job, prepared.prepared.target.record.name
    call.say(f"service {job.name} of {printable(job.environment)} on {printable(target)}")
    call.say(f"image {printable(job.reference)}")
    parts = [f"code {_short(job.code_digest)}"]
    if prepared.model_digest is not None:
        by = f" of the run {prepared.model_run}" if prepared.model_run is not None else ""
        parts.append(f"model {_short(prepared.model_digest)}{by}")
    call.say(f"{', '.join(parts)}: {size_text(prepared.prepared.code_size)} on top")
    if prepared.pushed is not None:
        call.say(f"pushed {printable(prepared.pushed)}")


def _show(call: Call, prepared: PreparedService) -> None:
    for number, file in enumerate(files := prepared.files):
        if len(files) > 1:
            call.out(f"{'' if number == 0 else chr(10)}# {file.name}")
        call.out(file.content.rstrip("\n"))


def _short(digest: str | None) -> str:
    return (digest or "none").removeprefix("sha256:")[:12]
