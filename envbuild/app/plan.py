"""Plans of locks: made, described as an engine builds them, rendered as Dockerfiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envbuild.app.lock import lock_to_build
from envbuild.app.requests import BuildRequest, RenderRequest, RenderResult
from envbuild.app.session import Session
from envbuild.app.specs import inputs_of
from envbuild.compose.codec import composer_identity
from envbuild.errors import UsageError
from envbuild.lazy import lazy
from envbuild.lock.identity import ComposerSettings
from envbuild.lock.model import Lock, PlatformLock
from envbuild.plan.activation import Activation
from envbuild.plan.make import make_plan
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.render.context import context_size, write_context
from envbuild.specs.model import Spec
from envbuild.store.images import ImageIndex, composed_key, read_config

if TYPE_CHECKING:
    from envbuild.engines import base as engines_base
    from envbuild.engines import factory as engine_factory
    from envbuild.engines.base import Engine
else:
    engines_base = lazy("envbuild.engines.base")
    engine_factory = lazy("envbuild.engines.factory")


def plan_image(session: Session, spec: Spec, lock: Lock, platform: Platform) -> Plan:
    """The plan of one platform of ``lock``. Raises ``UsageError`` where the lock hasn't that platform."""
    with session.progress.stage("plan"):
        pins = pins_of(spec, lock, platform)
        return make_plan(lock, pins, composer_settings(session), host=Platform.host())


def known_activation(session: Session, plan: Plan) -> Activation | None:
    """What activating the environment of ``plan`` sets, where its image was composed here before."""
    image = ImageIndex(session.store, session.clock).get(composed_key(plan.lock_digest))
    return Activation.of_config(read_config(image, session.store)) if image else None


def composer_settings(session: Session) -> ComposerSettings:
    """What the bytes of a composed image depend on beside its lock."""
    settings = session.settings
    return ComposerSettings(
        composer=composer_identity(settings.compression),
        compression=settings.compression,
        layer_budget=settings.layer_budget,
        created=settings.source_date_epoch,
    )


def choose_engine(session: Session, spec: Spec, plan: Plan, request: BuildRequest) -> Engine:
    """What is to build ``plan``. Raises ``BuildError`` where nothing can."""
    options = engine_factory.EngineOptions(
        reuse=not request.no_cache, keep=request.load, secrets=request.secrets
    )
    engines = session.engines(inputs_of(spec)).by_name(options)
    engine = engines_base.choose_engine(session.settings.engine, plan, engines, session.progress)
    if request.secrets and engine.name == "native":
        session.progress.note("the secrets are not used: the native engine runs no steps")
    return engine


def describe_plan(
    session: Session, spec: Spec, lock: Lock, platform: Platform, request: BuildRequest
) -> Plan:
    """The plan as the engine describes it that would build it; chosen, and refused, as for a build."""
    plan = plan_image(session, spec, lock, platform)
    engine = choose_engine(session, spec, plan, request)
    if engine.name == "native":
        return plan
    return session.engines(inputs_of(spec)).renderer().describe(plan, engine.name)


def pins_of(spec: Spec, lock: Lock, platform: Platform) -> PlatformLock:
    """The pins of one platform. Raises ``UsageError`` where the lock hasn't that platform."""
    pins = lock.platform(platform)
    if pins is None:
        have = ", ".join(str(pins.platform) for pins in lock.platforms)
        raise UsageError(
            f"{spec.name} is not locked for {platform}, only for {have}",
            hint=f"add {platform} to platforms in {spec.source}",
        )
    return pins


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
