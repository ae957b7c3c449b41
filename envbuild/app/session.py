"""What the operations of one call share: settings, store, progress, and what is made of them when it is first
asked for. A build of what is already in the store needs no resolver and no HTTP client.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.app.environments import Workspace
from envbuild.errors import BuildError, UsageError
from envbuild.oci.image import ImageSet
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    from envbuild.attest.attach import Attachments
    from envbuild.cache.segments import SharedSegments
    from envbuild.compose.base import ArtifactFiles, ComposeContext
    from envbuild.compose.engine import NativeEngine
    from envbuild.engines.base import Engine
    from envbuild.http.fetcher import HttpFetcher
    from envbuild.images.lookup import Lookup
    from envbuild.images.repository import PushTarget
    from envbuild.images.sources.locate import Sources
    from envbuild.lock.base import BaseResolver, CondaResolver, MavenResolver, PipResolver, SdistBuilder
    from envbuild.lock.make import Resolvers
    from envbuild.lock.model import ImageBase, PlatformLock
    from envbuild.plan.inputs import Inputs
    from envbuild.plan.model import Plan
    from envbuild.registry.client import RegistryClient
    from envbuild.render.base import BuildContext
    from envbuild.render.make import DockerfileRenderer
    from envbuild.render.pip_access import PipAccess
    from envbuild.run.base import Runner


class Session:
    """Every operation of ``envbuild.app`` takes one first. Opens no connection and touches no file before one
    needs it; a context manager.

    ``environ`` is the process's environment; ``directory`` is what relative paths of images are relative to;
    ``clock`` counts seconds, for durations only. A ``workspace`` that is given stays open at the end.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        workspace: Workspace | None = None,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.environ = os.environ if environ is None else environ
        self.directory = directory or Path()
        self.clock = clock
        self.store = Store(settings.cache_dir)
        self.workspace = workspace or Workspace(settings, environ=environ)
        """Of the settings; without a database where they name none."""
        self._own_workspace = workspace is None
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes connections, removes scratch space and ends the lease, where there are any. It may be used
        again."""
        self._stack.close()
        for name in ("fetcher", "registry", "_hurried_registry"):
            if name in self.__dict__:
                getattr(self, name).close()
        if self._own_workspace:
            self.workspace.close()
        for name in ("lease", "image_sources"):
            self.__dict__.pop(name, None)

    @cached_property
    def lease(self) -> Lease:
        """Held until the end, so that no prune takes what an opened image has brought here."""
        return self._stack.enter_context(Lease(self.store))

    def scratch(self) -> Path:
        """A new directory of the store that goes when the session ends."""
        return self._stack.enter_context(self.store.scratch())

    @cached_property
    def fetcher(self) -> HttpFetcher:
        from envbuild.http.fetcher import HttpFetcher

        return HttpFetcher(
            self.store,
            offline=self.settings.offline,
            settings=self.settings,
            progress=self.progress,
            environ=self.environ,
        )

    @cached_property
    def registry(self) -> RegistryClient:
        return self._registry_client(self.store, self.progress)

    @cached_property
    def _hurried_registry(self) -> RegistryClient:
        return self._registry_client(self.store, self.progress, hurried=True)

    def _registry_client(self, store: Store, progress: Progress, *, hurried: bool = False) -> RegistryClient:
        from envbuild.registry.auth import Credentials
        from envbuild.registry.client import RegistryClient

        return RegistryClient(
            store,
            progress,
            Credentials(self.environ),
            ca_bundle=self.settings.ca_bundle,
            offline=self.settings.offline,
            hurried=hurried,
            environ=self.environ,
        )

    @cached_property
    def image_sources(self) -> Sources:
        """What opens images by their names."""
        from envbuild.docker.save import save_image
        from envbuild.images.sources.locate import Sources

        # Older than all that a source brings: what it has brought is named only later.
        _ = self.lease
        return Sources(
            self.store,
            lambda: self.registry,
            scratch=self.scratch,
            save=lambda name, file: save_image(self.environ, name, file, self.progress),
            offline=self.settings.offline,
        )

    def apart(self, store: Store) -> Session:
        """A session with another store, which shares nothing but the network. Whoever asks closes it."""
        settings = replace(self.settings, cache_dir=store.root, cache_from=(), cache_to=None)
        return Session(settings, self.progress, environ=self.environ, workspace=self.workspace)

    # --- resolvers ------------------------------------------------------------------------------------

    def resolvers(self, inputs: Inputs) -> Resolvers:
        """The resolvers of the settings."""
        from envbuild.lock.debian.mirror import known_mirror
        from envbuild.lock.make import Resolvers

        return Resolvers(
            bases=(lambda: self._debian_resolver, partial(self._image_resolver, inputs.directory)),
            conda=self._conda_resolver,
            pip=self._pip_resolver,
            has_debian=lambda: known_mirror(self.settings) is not None,
            sdists=cache(partial(self._sdist_builder, inputs)),
            maven=self._maven_resolver,
        )

    @cached_property
    def _debian_resolver(self) -> BaseResolver:
        from envbuild.lock.debian.keys import keyring_file
        from envbuild.lock.debian.resolver import DebianResolver

        own = self.settings.debian_keyring
        return DebianResolver(
            self.fetcher, self.store, self.settings, keyrings=(keyring_file(own),) if own else None
        )

    def _image_resolver(self, directory: Path) -> BaseResolver:
        from envbuild.lock.image.resolver import ImageResolver

        return ImageResolver(self.store, self.registry, self.progress, directory=directory)

    def _conda_resolver(self) -> CondaResolver:
        from envbuild.lock.conda.rattler import RattlerResolver

        engine = self.settings.conda_engine
        rattler = RattlerResolver(self.store.directory("metadata/conda"), fetcher=self.fetcher)
        if engine == "rattler":
            return rattler
        if engine == "conda-lock":
            from envbuild.lock.conda.conda_lock import CondaLockResolver

            return CondaLockResolver(rattler, env=self.environ)
        raise UsageError(f"unknown conda engine {engine!r}", hint="use rattler or conda-lock")

    def _pip_resolver(self) -> PipResolver:
        engine = self.settings.pip_engine
        if engine == "uv":
            from envbuild.lock.pip.uv import UvResolver

            return UvResolver(env=self.environ)
        if engine == "pip-tools":
            from envbuild.lock.pip.piptools import PipToolsResolver

            return PipToolsResolver(env=self.environ)
        raise UsageError(f"unknown pip engine {engine!r}", hint="use uv or pip-tools")

    def _maven_resolver(self) -> MavenResolver:
        from envbuild.lock.maven.resolver import PomResolver

        return PomResolver(self.fetcher, self.store, self.settings.maven_repository)

    def _sdist_builder(self, inputs: Inputs) -> SdistBuilder:
        from envbuild.compose.artifacts.sdist.builds import LockedSdists, sdist_builds
        from envbuild.lock.pip.uv import UvResolver

        # Whichever engine resolves the spec: what a build requires is for the target's python, not ours.
        return LockedSdists(sdist_builds(self._compose_context(inputs)), lambda: UvResolver(env=self.environ))

    def _compose_context(self, inputs: Inputs) -> ComposeContext:
        from envbuild.compose.base import ComposeContext

        return ComposeContext(
            store=self.store,
            settings=self.settings,
            environ=self.environ,
            progress=self.progress,
            fetcher=lambda: self.fetcher,
            registry=lambda: self.registry,
            inputs=inputs,
        )

    # --- engines --------------------------------------------------------------------------------------

    def engines(
        self, inputs: Inputs, *, reuse: bool, keep: bool = False, secrets: Sequence[str] = ()
    ) -> dict[str, Callable[[], Engine]]:
        """The engines by name. ``reuse=False`` takes nothing from the caches; ``keep``: the image is to
        stay in the Docker engine that built it."""
        return {
            "native": partial(self.native_engine, inputs, reuse=reuse),
            "buildx": partial(self._buildx_engine, inputs, reuse, keep, secrets),
            "docker": partial(self._docker_engine, inputs, reuse, keep, secrets),
        }

    def _docker_engine(self, inputs: Inputs, reuse: bool, keep: bool, secrets: Sequence[str]) -> Engine:
        from envbuild.engines.docker.engine import DockerEngine
        from envbuild.engines.secret import Secret

        return DockerEngine(
            store=self.store,
            progress=self.progress,
            environ=self.environ,
            renderer=self.renderer(inputs),
            reuse=reuse,
            keep=keep,
            secrets=tuple(Secret.parse(secret) for secret in secrets),
        )

    def _buildx_engine(self, inputs: Inputs, reuse: bool, keep: bool, secrets: Sequence[str]) -> Engine:
        from envbuild.engines.buildx.engine import BuildxEngine
        from envbuild.engines.secret import Secret

        return BuildxEngine(
            store=self.store,
            progress=self.progress,
            environ=self.environ,
            renderer=self.renderer(inputs),
            reuse=reuse,
            keep=keep,
            offline=self.settings.offline,
            secrets=tuple(Secret.parse(secret) for secret in secrets),
            access=partial(self._pip_access, inputs),
        )

    def renderer(self, inputs: Inputs) -> DockerfileRenderer:
        """What renders Dockerfiles."""
        from envbuild.render.make import DockerfileRenderer
        from envbuild.render.templates import Templates

        return DockerfileRenderer(
            templates=Templates(self.settings.template_dir),
            base_archive=partial(self._base_archive, inputs),
            files=partial(self._artifact_files, inputs),
            snapshot=partial(self._snapshot, inputs),
            micromamba=self.settings.micromamba_image,
        )

    def _base_archive(self, inputs: Inputs, plan: Plan, stage: PlatformLock | None) -> Path:
        from envbuild.plan.base import base_plan

        image = self.native_engine(inputs, reuse=True).build(base_plan(plan, stage))
        return self.store.blob(image.layers[0].digest)

    def _snapshot(self, inputs: Inputs, plan: Plan) -> BuildContext:
        from envbuild.lock.model import ContextBase
        from envbuild.render.snapshot import snapshot_context

        assert isinstance(plan.base, ContextBase)
        if inputs.context is None:
            raise BuildError(
                f"the lock is of a build context, and {inputs.source} has none",
                hint=f"bring the lock up to date with: envbuild lock {inputs.source}",
            )
        # What was hashed is what is built: the copy stays until this session ends.
        return snapshot_context(inputs.context, inputs.directory, plan.base, self.scratch())

    def _artifact_files(self, inputs: Inputs, plan: Plan) -> ArtifactFiles:
        from envbuild.compose.artifacts.sources import artifact_files

        return artifact_files(self._compose_context(inputs), plan)

    def _pip_access(self, inputs: Inputs, plan: Plan) -> PipAccess:
        from envbuild.lock.model import PipPin
        from envbuild.render.pip_access import pip_access

        pins = [artifact.pin for artifact in plan.artifacts if isinstance(artifact.pin, PipPin)]
        addresses = [pin.url for pin in pins if pin.url]
        return pip_access(self.environ, inputs.pip_options, self.settings, addresses=addresses)

    def native_engine(self, inputs: Inputs, *, reuse: bool) -> NativeEngine:
        """The composer; see ``engines``."""
        from envbuild.compose.engine import native_engine

        return native_engine(self._compose_context(inputs), reuse=reuse, shared=self._shared_segments)

    @cached_property
    def _shared_segments(self) -> SharedSegments | None:
        """The caches of segments that the settings name; made once: one that is away is not asked again."""
        settings = self.settings
        if settings.offline or not (settings.cache_from or settings.cache_to):
            return None
        from envbuild.cache.segments import SharedSegments, cache_repository

        return SharedSegments(
            readers=tuple(dict.fromkeys(map(cache_repository, settings.cache_from))),
            writer=cache_repository(settings.cache_to) if settings.cache_to else None,
            reading=partial(self._registry_client, hurried=True),
            writing=self._registry_client,
            progress=self.progress,
        )

    def base_config(self, inputs: Inputs, base: ImageBase, platform: Platform) -> Mapping[str, Any]:
        """The whole config document of an image base; no layer is brought. Raises ``FetchError``."""
        from envbuild.images.contents import image_source, read_image

        source = image_source(base.reference, self.store, self.registry, inputs.directory)
        return read_image(
            source, base.digest, self.store, platform=platform, expected=base.diff_ids, layers=False
        ).config

    # --- publish and run ------------------------------------------------------------------------------

    def publishers(self, outputs: Sequence[str], *, load: bool) -> dict[str, Callable[[ImageSet], str]]:
        """What brings an image to each of ``outputs`` (``-o``) and, with ``load``, into the engine."""
        sinks: dict[str, Callable[[ImageSet], str]] = {}
        if outputs:
            from envbuild.images.sinks.choose import publisher

            sinks = {output: publisher(output, self.store, self.progress).publish for output in outputs}
        if load:
            from envbuild.images.sinks.daemon import DaemonPublisher

            sinks["docker"] = DaemonPublisher(self.store, self.progress, self.environ).publish
        return sinks

    def push_targets(self, push: Sequence[str]) -> tuple[PushTarget, ...]:
        """What each ``REPO[:TAG]`` of ``--push`` means. Raises ``UsageError``, also for any in an offline
        run."""
        if not push:
            return ()
        from envbuild.images.repository import push_target

        if self.settings.offline:
            raise UsageError("an offline run can't push", hint="leave out --push or --offline")
        return tuple(dict.fromkeys(push_target(text, self.settings.registry) for text in push))

    def attachments(self) -> Attachments | None:
        """What a push attaches and signs; None: nothing. Raises ``UsageError`` for a key that is no use."""
        from envbuild.attest.attach import attachments

        return attachments(
            self.registry,
            self.store,
            self.progress,
            attest=self.settings.attest,
            sign_key=self.settings.sign_key,
            environ=self.environ,
            clock=time.time,
        )

    def lookup(self, name: str, targets: Sequence[PushTarget]) -> Lookup | None:
        """What looks for the images of ``name`` in ``targets`` and in the setting's registry; None where
        there are none, or in an offline run."""
        setting = self.settings.registry
        if self.settings.offline or not (targets or setting):
            return None
        from envbuild.images.lookup import CandidateRepository, Lookup
        from envbuild.images.repository import repository_of

        places = [
            CandidateRepository(repository=target.repository, remote=lambda: self.registry, required=True)
            for target in targets
        ]
        if setting is not None:
            repository = repository_of(name, setting)
            pushed = {target.repository.registry for target in targets}
            # Who is only asked whether an image is there may not hold up a build that can do without.
            places.append(
                CandidateRepository(repository=repository, remote=lambda: self.registry)
                if repository.registry in pushed
                else CandidateRepository(repository=repository, remote=lambda: self._hurried_registry)
            )
        return Lookup(places=places, progress=self.progress)

    def engine_platform(self) -> Platform:
        """What the Docker engine runs. Raises ``PublishError`` where there is no engine."""
        from envbuild.images.sinks.daemon import engine_platform

        return engine_platform(self.environ)

    def loaded_reference(self, publication: ImageSet, pinned: str) -> str:
        """What the engine resolves to what it has loaded, ``pinned`` if it can. Raises ``PublishError``."""
        from envbuild.images.sinks.daemon import loaded_reference

        return loaded_reference(publication, pinned, self.environ)

    def runner(self, backend: str) -> Runner:
        """What starts commands: ``auto``, ``docker`` or ``userns``."""
        from envbuild.run.choose import runner

        return runner(backend, self.store, self.progress, self.environ)
