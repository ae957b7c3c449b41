"""The engines of one build by their names, and the renderer that two of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.compose.base import ArtifactFiles, ComposeContext
from envbuild.engines.base import Engine
from envbuild.errors import BuildError
from envbuild.lazy import lazy
from envbuild.lock.model import ContextBase, PipPin, PlatformLock
from envbuild.plan.activation import Activation
from envbuild.plan.make import base_plan
from envbuild.plan.model import Plan

if TYPE_CHECKING:
    from envbuild.cache.segments import SharedSegments
    from envbuild.compose import engine as native
    from envbuild.compose.artifacts import sources
    from envbuild.engines import secret
    from envbuild.engines.buildx import engine as buildx
    from envbuild.engines.docker import engine as docker
    from envbuild.render import access, templates
    from envbuild.render import context as render_context
    from envbuild.render import make as render
    from envbuild.render.base import BuildContext
else:
    buildx = lazy("envbuild.engines.buildx.engine")
    docker = lazy("envbuild.engines.docker.engine")
    native = lazy("envbuild.compose.engine")
    access = lazy("envbuild.render.access")
    render = lazy("envbuild.render.make")
    secret = lazy("envbuild.engines.secret")
    render_context = lazy("envbuild.render.context")
    sources = lazy("envbuild.compose.artifacts.sources")
    templates = lazy("envbuild.render.templates")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How engines are to build. Without ``reuse`` nothing is taken from the caches; ``keep``: the image is to
    stay in the Docker engine that built it."""

    reuse: bool = True
    keep: bool = False
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Engines:
    """What makes the engines of one build. ``scratch`` makes a directory that lasts until it ends."""

    context: ComposeContext
    scratch: Callable[[], Path]
    shared: Callable[[], SharedSegments | None] = lambda: None
    """The caches of segments that machines share."""

    def by_name(self, options: EngineOptions) -> Mapping[str, Callable[[], Engine]]:
        """Each engine; a new one is a line here and its place in ``ENGINES``."""
        return {
            "native": partial(self.native, reuse=options.reuse),
            "buildx": partial(self._buildx, options),
            "docker": partial(self._docker, options),
        }

    def native(self, *, reuse: bool) -> native.NativeEngine:
        """The composer."""
        return native.native_engine(self.context, reuse=reuse, shared=self.shared())

    def renderer(self) -> render.DockerfileRenderer:
        """What renders Dockerfiles."""
        settings = self.context.settings
        return render.DockerfileRenderer(
            templates=templates.Templates(settings.template_dir),
            base_archive=self._base_archive,
            files=self._artifact_files,
            snapshot=self._snapshot,
            activation=self._activation,
            micromamba=settings.micromamba_image,
        )

    def _docker(self, options: EngineOptions) -> Engine:
        return docker.DockerEngine(
            store=self.context.store,
            progress=self.context.progress,
            environ=self.context.environ,
            renderer=self.renderer(),
            reuse=options.reuse,
            keep=options.keep,
            secrets=_secrets(options.secrets),
        )

    def _buildx(self, options: EngineOptions) -> Engine:
        return buildx.BuildxEngine(
            store=self.context.store,
            progress=self.context.progress,
            environ=self.context.environ,
            renderer=self.renderer(),
            reuse=options.reuse,
            keep=options.keep,
            offline=self.context.settings.offline,
            secrets=_secrets(options.secrets),
            access=self._pip_access,
        )

    def _base_archive(self, plan: Plan, stage: PlatformLock | None) -> Path:
        image = self.native(reuse=True).build(base_plan(plan, stage))
        return self.context.store.blob(image.layers[0].digest)

    def _activation(self, plan: Plan) -> Activation:
        try:
            return self.native(reuse=True).activation(plan)
        except BuildError as error:
            self.context.progress.note(f"no variables of conda's activation are set: {error.message}")
            return Activation()

    def _snapshot(self, plan: Plan) -> BuildContext:
        inputs = self.context.inputs
        assert isinstance(plan.base, ContextBase)
        if inputs.context is None:
            raise BuildError(
                f"the lock is of a build context, and {inputs.source} has none",
                hint=f"bring the lock up to date with: envbuild lock {inputs.source}",
            )
        # What was hashed is what is built.
        return render_context.snapshot_context(inputs.context, inputs.directory, plan.base, self.scratch())

    def _artifact_files(self, plan: Plan) -> ArtifactFiles:
        return sources.artifact_files(self.context, plan)

    def _pip_access(self, plan: Plan) -> access.PipAccess:
        pins = [artifact.pin for artifact in plan.artifacts if isinstance(artifact.pin, PipPin)]
        addresses = [pin.url for pin in pins if pin.url]
        context, inputs = self.context, self.context.inputs
        options = (*inputs.pip_options, *(index.option for index in inputs.package_indexes))
        return access.pip_access(context.environ, options, context.settings, addresses=addresses)


def _secrets(texts: Sequence[str]) -> tuple[secret.Secret, ...]:
    return tuple(secret.Secret.parse(text) for text in texts)
