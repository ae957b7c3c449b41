"""The engine that has a Docker engine build a rendered Dockerfile, by its API and the classic builder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from envbuild.compose.base import cannot_build
from envbuild.docker.client import NoEngine, connect, has_bridge
from envbuild.docker.proxy import loopback_proxy, proxy_arguments, proxy_secrets
from envbuild.docker.stream import Conversation, engine_errors
from envbuild.engines.docker.build_log import ClassicBuildLog, ContainerBegan, ImageMade, StepBegan
from envbuild.engines.docker.image import import_image
from envbuild.engines.docker.leftovers import Leftovers, remove_image
from envbuild.engines.secret import Secret
from envbuild.errors import BuildError
from envbuild.lazy import lazy
from envbuild.oci.image import Image
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.progress import Progress, Silent, Task
from envbuild.redact import clipped
from envbuild.render.base import BuildContext, Renderer
from envbuild.render.context import context_size, context_tar
from envbuild.store.content import Store
from envbuild.store.images import Made, indexed_build
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    import docker
else:
    docker = lazy("docker")

_log = logging.getLogger(__name__)

_STOP_SECONDS = 20.0
"""How long an engine that was told to stop a build may take. The command line itself waits less."""


@dataclass(frozen=True, kw_only=True)
class DockerEngine:
    """Builds plans with the Docker engine that the user's own ``docker`` would talk to.

    The classic builder has no secrets and no cache mounts: pinned artifacts go into the context. ``keep``
    leaves the image in the engine, untagged, for whoever publishes it there.
    """

    store: Store
    renderer: Renderer
    environ: Mapping[str, str]
    progress: Progress = field(default_factory=Silent)
    reuse: bool = True
    keep: bool = False
    secrets: tuple[Secret, ...] = ()
    clock: Callable[[], float] = time.time
    name: str = "docker"

    def unable(self, plan: Plan) -> list[str]:
        """What no Dockerfile can do, that secrets are asked for, that no engine answers or that it runs
        another platform."""
        reasons = self._unfit(plan)
        client = connect(self.environ)
        if isinstance(client, NoEngine):
            return [*reasons, client.reason]
        with closing(client):
            try:
                return [*reasons, *_other_platform(client, plan)]
            except BuildError as error:
                return [*reasons, error.message]

    def identity(self, plan: Plan) -> str:
        """The lock digest of the image, which covers the templates as well."""
        return self.renderer.describe(plan, self.name).lock_digest

    def build(self, plan: Plan) -> Image:
        """The image. Two builds of one plan at once run it once. An error or an interrupt leaves nothing in
        the engine that wasn't there before."""
        if reasons := self._unfit(plan):
            raise BuildError(cannot_build(self.name, reasons))
        described = self.renderer.describe(plan, self.name)

        def build(lease: Lease) -> Made:
            uses = described.artifact_names
            lease.use(*uses)
            with engine_errors(), ExitStack() as stack:
                return self._build(described, lease, stack), uses

        return indexed_build(self.store, described.lock_digest, build, reuse=self.reuse, clock=self.clock)

    def _unfit(self, plan: Plan) -> list[str]:
        """Reasons that don't depend on any engine."""
        reasons = self.renderer.unable(plan)
        if not self.secrets:
            return reasons
        names = ", ".join(secret.id for secret in self.secrets)
        return [
            *reasons,
            f"the classic builder of Docker's API has no build secrets ({names}); --engine buildx has",
        ]

    def _build(self, plan: Plan, lease: Lease, stack: ExitStack) -> Image:
        client = connect(self.environ)
        if isinstance(client, NoEngine):
            raise BuildError(client.reason, hint=client.hint)
        stack.enter_context(closing(client))
        if reasons := _other_platform(client, plan):
            raise BuildError(
                cannot_build(self.name, reasons),
                hint=f"build it where an engine runs {plan.platform}, or with --engine buildx",
            )
        context = self.renderer.context(plan, offline=True)
        with self.progress.stage("build"), Leftovers(self.store, client) as leftovers:
            built = _ClassicBuild(self, client, leftovers, context).run()
            image = import_image(client, built, plan, self.store, self.progress, lease)
            fresh = leftovers.add(built)
            leftovers.keep()
        if fresh and not self.keep:
            # Its parents stay: they are the engine's build cache.
            with suppress(OSError):
                remove_image(client, built)
        return image


class _ClassicBuild:
    """One build of a context under way."""

    def __init__(
        self, engine: DockerEngine, client: docker.DockerClient, leftovers: Leftovers, context: BuildContext
    ) -> None:
        self._engine = engine
        self._client = client
        self._leftovers = leftovers
        self._context = context
        self._proxies = proxy_arguments(engine.environ, engine.environ.get("DOCKER_HOST"))
        self._network = None if has_bridge(client) else "host"
        self._log = ClassicBuildLog(proxy_secrets(self._proxies))
        self._steps = ExitStack()
        self._step = ExitStack()
        self._all: Task | None = None

    def run(self) -> str:
        """The id of the image. Raises ``BuildError`` with the failing step and its last lines; containers
        are gone then, images on the list of leftovers."""
        # The conversation has a client of its own: this one is for what is asked meanwhile.
        own = connect(self._engine.environ)
        if isinstance(own, NoEngine):
            raise BuildError(own.reason, hint=own.hint)
        with closing(own), self._steps, self._step:
            conversation = Conversation(own, self._upload(), self._options())
            try:
                for message in conversation:
                    self._take(message)
            except BaseException:
                for message in conversation.stop(_STOP_SECONDS):
                    self._take(message, told=False)
                raise
            finally:
                self._end_container()
        if self._log.error is not None:
            raise self._failure(self._log.error)
        if self._log.image is None:
            raise BuildError("the Docker engine ended the build without an image and without an error")
        return self._log.image

    def _options(self) -> dict[str, Any]:
        return {
            "dockerfile": self._context.dockerfile,
            "rm": True,
            "forcerm": True,
            "nocache": not self._engine.reuse,
            "buildargs": self._proxies,
            "labels": dict(self._context.labels) or None,
            "network_mode": self._network,
            # Ours already has what docker's config.json says.
            "use_config_proxy": False,
        }

    def _upload(self) -> Iterator[bytes]:
        size = context_size(self._context)
        with self._engine.progress.task("context", "to the Docker engine", total=size) as task:
            for piece in context_tar(self._context):
                yield piece
                task.advance(len(piece))

    def _take(self, message: Mapping[str, Any], *, told: bool = True) -> None:
        step = self._log.step
        event = self._log.take(message)
        if isinstance(event, ImageMade):
            self._leftovers.add(event.image)
        elif isinstance(event, StepBegan) and told:
            self._began(event)
        elif isinstance(event, ContainerBegan) and told and step and step.instruction.startswith("RUN "):
            self._engine.progress.note(f"step {step.number}/{step.total}: {clipped(step.instruction, 100)}")

    def _began(self, step: StepBegan) -> None:
        if self._all is None:
            self._all = self._steps.enter_context(
                self._engine.progress.task("build", "steps", total=step.total, unit="steps")
            )
        else:
            self._all.advance(1)
        # What is shown is the name of the piece of work that was opened last.
        what = f"{step.number}/{step.total} {step.instruction}"
        self._step.close()
        self._step.enter_context(self._engine.progress.task("build", what, unit="steps"))

    def _end_container(self) -> None:
        """The engine removes what it made, but one that had no time for it is helped."""
        if self._log.container is None:
            return

        with suppress(docker.errors.APIError, OSError):
            self._client.api.remove_container(self._log.container, force=True, v=True)

    def _failure(self, error: str) -> BuildError:
        step, status = self._log.step, self._log.status
        if step is None:
            return BuildError(f"the Docker engine failed before the first step: {error}")
        reason = f"exit status {status}" if status is not None else error
        lines = [f"step {step.number} of {step.total} failed: {step.instruction}", f"  {reason}"]
        last = self._log.last_lines()
        if last:
            lines += ["the last lines of its log:", *(f"  {line}" for line in last)]
        hint = "-vv shows the whole log; envbuild render writes the Dockerfile and its context to a directory"
        proxy = loopback_proxy(self._proxies)
        if proxy and self._network != "host":
            hint = (
                f"the proxy {proxy} is this machine's own, which build steps reach in the host's network only"
            )
        return BuildError("\n".join(lines), hint=hint)


def _other_platform(client: docker.DockerClient, plan: Plan) -> list[str]:
    """The reason why this engine can't run the steps of ``plan``, if there is one."""
    with engine_errors():
        version = cast(Callable[[], Mapping[str, Any]], client.api.version)()
    engine = Platform(str(version.get("Os")), str(version.get("Arch")))
    if engine == plan.platform:
        return []
    return [f"the Docker engine runs {engine}, and the build steps of this image need {plan.platform}"]
