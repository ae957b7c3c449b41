"""Writes the Dockerfile of a spec, with everything that its build needs."""

from __future__ import annotations

from envbuild.app.lock import lock_to_build
from envbuild.app.plan import plan_image
from envbuild.app.requests import RenderRequest, RenderResult
from envbuild.app.session import Session
from envbuild.app.specs import inputs_of
from envbuild.render.context import context_size, write_context
from envbuild.specs.model import Spec


def render(session: Session, spec: Spec, request: RenderRequest) -> tuple[RenderResult, ...]:
    """Dockerfiles and everything their builds need, written below ``request.output``."""
    lock = lock_to_build(session, spec, request.build)
    platforms = request.build.platforms or tuple(pins.platform for pins in lock.platforms)
    renderer = session.engines(inputs_of(spec)).renderer()
    results = []
    for platform in platforms:
        plan = renderer.describe(plan_image(session, spec, lock, platform), "dockerfile")
        with session.progress.stage("render"):
            context = renderer.context(plan, offline=request.offline_context)
            directory = request.output if len(platforms) == 1 else request.output / platform.subdir
            write_context(context, directory)
        results.append(
            RenderResult(
                platform=platform,
                directory=directory,
                files=len(context.files),
                size=context_size(context),
                digest=context.digest,
                lock_digest=plan.lock_digest,
                level=plan.level,
            )
        )
    return tuple(results)
