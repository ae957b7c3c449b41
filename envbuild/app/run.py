"""Runs a command in the image of a spec, on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from envbuild.app import build
from envbuild.app.requests import RunRequest
from envbuild.app.session import Session
from envbuild.platforms import Platform
from envbuild.run.command import Command, Mount
from envbuild.run.runners import runner
from envbuild.specs.model import Spec
from envbuild.store.content import blob_name
from envbuild.store.leases import Lease


def run(session: Session, spec: Spec, request: RunRequest) -> int:
    """The command's exit status (128 + n where signal n ended it). Builds the image where need be."""
    chosen = runner(request.backend, session.store, session.progress, session.environ)
    platform = request.platform or Platform.host()
    build_request = replace(request.build, platforms=(platform,))
    here = request.workdir or Path()
    mounts = tuple(Mount.parse(mount, relative_to=here) for mount in request.mounts)
    # What the command runs in must outlast it, whoever prunes; nothing else, as it may run for weeks.
    with Lease(session.store) as lease:
        image = build.build(session, spec, build_request).images[0]
        lease.hold(*map(blob_name, image.blobs))
        return chosen.run(
            Command(
                image=image,
                arguments=request.command,
                env=request.env,
                workdir=request.workdir,
                mounts=mounts,
            )
        )
