"""The engine that has BuildKit build a Dockerfile, through the docker command: caches, secrets, any builder
that buildx knows."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.compose.base import cannot_build
from envbuild.compose.tar import MTIME
from envbuild.docker.client import NoEngine, connect
from envbuild.docker.proxy import loopback_proxy, proxy_secrets
from envbuild.engines.buildx.build_log import LONGEST, BuildKitLog
from envbuild.engines.buildx.command import (
    ARCHIVE,
    CONTEXT,
    IMAGE_ID,
    Builder,
    BuildxBuild,
    NoBuilder,
    build_argv,
    find_builder,
    lacks_bridge,
    set_proxies,
)
from envbuild.engines.buildx.layout_image import store_layout_image
from envbuild.engines.buildx.secrets import hidden_words, machine_secrets, user_secrets, write_secrets
from envbuild.engines.docker.image import import_image
from envbuild.engines.docker.leftovers import Leftovers
from envbuild.engines.secret import Secret
from envbuild.errors import BuildError
from envbuild.lock.model import ContextBase
from envbuild.oci.digest import is_digest
from envbuild.oci.image import Image
from envbuild.oci.manifest import matches
from envbuild.plan.model import Plan
from envbuild.progress import Progress, Silent
from envbuild.redact import safe_text
from envbuild.render.access import PipAccess
from envbuild.render.base import BuildContext, Renderer
from envbuild.render.context import RECORD, write_context
from envbuild.store.content import Store
from envbuild.store.images import Made, indexed_build
from envbuild.store.leases import Lease

_log = logging.getLogger(__name__)

_POLITE_SECONDS = 0.9
"""For the docker command to end a build after Ctrl-C; envbuild itself is gone 1.5 s after the signal."""


@dataclass(kw_only=True)
class BuildxEngine:
    """Builds plans with BuildKit.

    ``reuse=False`` takes nothing from caches, but fills them; ``keep`` leaves the image in the engine too,
    where one was used; ``offline`` puts all pinned files into the context. ``access`` is how a step's pip
    reaches this machine's indexes.
    """

    store: Store
    renderer: Renderer
    environ: Mapping[str, str] = field(repr=False)
    access: Callable[[Plan], PipAccess]
    progress: Progress = field(default_factory=Silent)
    reuse: bool = True
    keep: bool = False
    offline: bool = False
    secrets: Sequence[Secret] = ()
    clock: Callable[[], float] = time.time
    name: str = "buildx"
    _found: Builder | NoBuilder | None = field(default=None, init=False, repr=False)

    def unable(self, plan: Plan) -> list[str]:
        """What no Dockerfile can do, why there is no BuildKit, and that it runs other platforms only."""
        reasons = list(self.renderer.unable(plan))
        builder = self._builder()
        if isinstance(builder, NoBuilder):
            return [*reasons, *builder.reasons]
        return [*reasons, *_other_platforms(builder, plan)]

    def identity(self, plan: Plan) -> str:
        """The digest of lock and Dockerfile together."""
        return self.renderer.describe(plan, self.name).lock_digest

    def build(self, plan: Plan) -> Image:
        """The image. One in the store needs no docker; two builds of one plan at once build it once."""
        if reasons := self.renderer.unable(plan):
            raise BuildError(cannot_build(self.name, reasons))
        described = self.renderer.describe(plan, self.name)

        def build(lease: Lease) -> Made:
            builder = self._able(described)
            uses = described.artifact_names
            lease.use(*uses)
            context = self.renderer.context(described, offline=self.offline)
            with self.store.scratch() as scratch:
                return self._made(builder, context, described, scratch, lease), uses

        return indexed_build(self.store, described.lock_digest, build, reuse=self.reuse, clock=self.clock)

    def _able(self, plan: Plan) -> Builder:
        """The builder. Raises ``BuildError`` where there is none, or none for the plan's platform."""
        builder = self._builder()
        if isinstance(builder, NoBuilder):
            raise BuildError(
                cannot_build(self.name, builder.reasons),
                hint="install docker's buildx plugin; start an engine or choose a builder: docker buildx use",
            )
        if reasons := _other_platforms(builder, plan):
            raise BuildError(
                cannot_build(self.name, reasons),
                hint="add a node of that platform to the builder: docker buildx create",
            )
        return builder

    def _builder(self) -> Builder | NoBuilder:
        if self._found is None:
            self._found = find_builder(self.environ)
        return self._found

    def _made(
        self, builder: Builder, context: BuildContext, plan: Plan, scratch: Path, lease: Lease
    ) -> Image:
        directory = scratch / f"{CONTEXT}-{secrets.token_hex(8)}"
        write_context(context, directory)
        _settle(directory)
        given = machine_secrets(plan, self.access, self.environ) if _ours(context, plan) else {}
        own = user_secrets(self.secrets, self.environ)
        proxies = set_proxies(self.environ)
        network = None
        if context.offline:
            network = "none"
        elif builder.in_engine and lacks_bridge(builder):
            network = "host"
        job = BuildxBuild(
            platform=str(plan.platform),
            created=plan.created,
            context=directory.name,
            dockerfile=context.dockerfile,
            labels=context.labels,
            secrets=write_secrets({**given, **own}, scratch),
            proxies=proxies,
            network=network,
            reuse=self.reuse,
            zstd=plan.compression == "zstd",
        )
        values = {name: self.environ[name] for name in proxies}
        hidden = [*hidden_words(given, own), *proxy_secrets(values)]
        shared = network == "host" or context.offline
        proxy = None if shared else loopback_proxy({name.upper(): text for name, text in values.items()})
        argv = build_argv(builder, job)
        _log.debug("%s with the driver %s", argv, builder.driver)

        def run() -> None:
            with self.progress.stage("build"), closing(BuildKitLog(self.progress, hidden)) as log:
                status = run_build(argv, builder.environ, scratch, log)
                if status != 0:
                    raise log.failure(status, str(plan.platform), proxy=proxy)

        if builder.in_engine:
            return self._from_engine(run, builder, plan, scratch / IMAGE_ID, lease)
        run()
        with self.progress.stage("import"):
            return store_layout_image(scratch / ARCHIVE, plan, self.store, lease=lease)

    def _from_engine(
        self, run: Callable[[], None], builder: Builder, plan: Plan, file: Path, lease: Lease
    ) -> Image:
        """What ``run`` made in an engine. Nothing of it stays there unless it is to, however this ends."""
        client = connect(builder.engine)
        if isinstance(client, NoEngine):
            raise BuildError(client.reason, hint=client.hint)
        with closing(client), Leftovers(self.store, client) as leftovers:
            try:
                run()
                image = import_image(client, _image_id(file), plan, self.store, self.progress, lease)
            finally:
                if file.exists():
                    leftovers.add(_image_id(file))
            if self.keep:
                leftovers.keep()
            return image


def _ours(context: BuildContext, plan: Plan) -> bool:
    """Whether the steps need this machine's access and may have it: a Dockerfile of the user's own is given
    what the user says and nothing else."""
    return not context.offline and not isinstance(plan.base, ContextBase)


def _other_platforms(builder: Builder, plan: Plan) -> list[str]:
    """The reason why no node of the builder runs the steps of ``plan``, as far as the builder says."""
    if not builder.platforms or any(matches(plan.platform, platform) for platform in builder.platforms):
        return []
    there = ", ".join(builder.platforms)
    return [f"the builder runs {there}, and the build steps of this image need {plan.platform}"]


def run_build(argv: Sequence[str], environ: Mapping[str, str], directory: Path, log: BuildKitLog) -> int:
    """Runs the command, its output going to ``log``, and returns its status. When this is interrupted, the
    command and all it started are ended first: politely, as that is how BuildKit stops its steps."""
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(environ),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BuildError(f"{argv[0]} can't be started: {reason}") from error
    try:
        assert process.stdout is not None, "it is a pipe"
        whole = True
        while line := process.stdout.readline(4 * LONGEST):
            if whole:
                log.line(line)
            # What follows a piece of an endless line has no number, so it could pass for anything.
            whole = line.endswith(b"\n")
        return process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        # Only now: a command that can't write its log any more dies before it has stopped its steps.
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGINT, _POLITE_SECONDS), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    # Whatever the command had started and didn't take with it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _settle(directory: Path) -> None:
    """Makes the written context what the renderer said and nothing else: no record of ours beside it, one
    time for all, because ``COPY`` keeps times."""
    (directory / RECORD).unlink(missing_ok=True)
    for root, directories, files in os.walk(directory, topdown=False):
        for name in (*directories, *files):
            os.utime(Path(root) / name, (MTIME, MTIME), follow_symlinks=False)
    os.utime(directory, (MTIME, MTIME))


def _image_id(file: Path) -> str:
    text = file.read_text(encoding="ascii", errors="replace").strip()
    if not is_digest(text):
        raise BuildError(f"the builder named no image: {safe_text(text[:100])!r}")
    return text
