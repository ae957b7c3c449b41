"""``envbuild run --target``: a job on a target, watched from here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app import jobs, specs
from envbuild.cli.show.text import count_text, printable, size_text

if TYPE_CHECKING:
    from envbuild.app.jobs import JobOutcome, JobRequest, PreparedJob
    from envbuild.cli.call import Call


def run_job(call: Call, path: str, request: JobRequest, *, outputs: Path | None, dry_run: bool) -> int:
    """Runs the job and returns its exit status; with ``dry_run`` prints what the target would be given."""

    with (
        call.session(path) as session,
        jobs.prepare_job(session, specs.find_spec(session, path), request) as prepared,
    ):
        for finding in prepared.findings:
            if not finding.error:
                call.say(f"note: {printable(finding.text)}")
        if dry_run:
            jobs.refuse(prepared.findings, prepared.target.record.name)
            _show(call, prepared)
            return 0
        for line in _lines(prepared):
            call.say(line)
        outcome = jobs.run_job(session, prepared, _write, outputs=outputs, starting=call.wait_for_jobs)
    _tell(call, outcome)
    return outcome.exit_status


def _write(piece: bytes) -> None:
    # As the job wrote it, at once: whoever watches wants to see it now.
    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except OSError:
        # The reader has gone, the job goes on. What is still buffered must not be tried again at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise


def _show(call: Call, prepared: PreparedJob) -> None:
    files = prepared.files
    for line in _lines(prepared):
        call.say(line)
    for number, file in enumerate(files):
        if len(files) > 1:
            call.out(f"{'' if number == 0 else chr(10)}# {file.name}")
        call.out(file.content.rstrip("\n"))


def _lines(prepared: PreparedJob) -> list[str]:
    job = prepared.job
    lines = [f"run {job.name} of {printable(job.environment)} on {printable(prepared.target.record.name)}"]
    lines.append(f"image {printable(job.reference)}")
    layers = count_text(len(job.image.layers), "layer")
    pull = "unknown" if prepared.to_pull is None else size_text(prepared.to_pull)
    lines.append(f"{layers}, to pull there: {pull}")
    if job.code_digest is not None:
        lines.append(f"code {job.code_digest.removeprefix('sha256:')[:12]}, {size_text(prepared.code_size)}")
    return lines


def _tell(call: Call, outcome: JobOutcome) -> None:
    call.say(f"{outcome.name} ended with the exit status {outcome.exit_status}")
    if outcome.outputs is not None:
        call.say(f"outputs: {printable(str(outcome.outputs))}")
    if outcome.record is not None:
        call.say(f"all of it: envbuild runs show {outcome.name}")
