"""What the operations of one call share: settings, store, progress, and what is made of them when it is first
asked for. A build of what is already in the store needs no resolver and no HTTP client.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.environments import Workspace
from envbuild.lazy import lazy
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    from envbuild.cache import segments
    from envbuild.compose import base as compose
    from envbuild.compose.artifacts.sdist import builds as sdist
    from envbuild.compose.base import ComposeContext
    from envbuild.docker import client as docker_client
    from envbuild.engines import factory as engine_factory
    from envbuild.engines.factory import Engines
    from envbuild.http import fetcher as http
    from envbuild.images.sources import locate
    from envbuild.lock import resolvers as lock_resolvers
    from envbuild.lock.base import SdistBuilder
    from envbuild.lock.conda import configuration as conda_configuration
    from envbuild.lock.make import Resolvers
    from envbuild.lock.pip import uv
    from envbuild.plan.model import Inputs
    from envbuild.registry import auth
    from envbuild.registry import client as registry_client
    from envbuild.registry.client import RegistryClient
else:
    auth = lazy("envbuild.registry.auth")
    conda_configuration = lazy("envbuild.lock.conda.configuration")
    compose = lazy("envbuild.compose.base")
    docker_client = lazy("envbuild.docker.client")
    engine_factory = lazy("envbuild.engines.factory")
    http = lazy("envbuild.http.fetcher")
    locate = lazy("envbuild.images.sources.locate")
    lock_resolvers = lazy("envbuild.lock.resolvers")
    registry_client = lazy("envbuild.registry.client")
    sdist = lazy("envbuild.compose.artifacts.sdist.builds")
    segments = lazy("envbuild.cache.segments")
    uv = lazy("envbuild.lock.pip.uv")


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
        for name in ("fetcher", "registry", "hurried_registry"):
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
    def fetcher(self) -> http.HttpFetcher:
        return http.HttpFetcher(
            self.store,
            offline=self.settings.offline,
            settings=self.settings,
            progress=self.progress,
            environ=self.environ,
            mirrors=lambda: self._conda_mirrors,
        )

    @cached_property
    def _conda_mirrors(self) -> Mapping[str, tuple[str, ...]]:
        return conda_configuration.conda_configuration(self.settings, self.environ).mirrors

    @cached_property
    def registry(self) -> RegistryClient:
        return self._registry_client(self.store, self.progress)

    @cached_property
    def hurried_registry(self) -> RegistryClient:
        """For what can be done without: it soon gives up."""
        return self._registry_client(self.store, self.progress, hurried=True)

    def _registry_client(self, store: Store, progress: Progress, *, hurried: bool = False) -> RegistryClient:
        return registry_client.RegistryClient(
            store,
            progress,
            auth.RegistryCredentials(self.environ),
            environ=self.environ,
            options=registry_client.RegistryOptions(
                ca_bundle=self.settings.ca_bundle, offline=self.settings.offline, hurried=hurried
            ),
        )

    @cached_property
    def image_sources(self) -> locate.Sources:
        """What opens images by their names."""
        # Older than all that a source brings: what it has brought is named only later.
        _ = self.lease
        return locate.Sources(
            self.store,
            lambda: self.registry,
            scratch=self.scratch,
            save=lambda name, file: docker_client.save_image(self.environ, name, file, self.progress),
            offline=self.settings.offline,
        )

    def apart(self, store: Store) -> Session:
        """A session with another store, which shares nothing but the network. Whoever asks closes it."""
        settings = replace(self.settings, cache_dir=store.root, cache_from=(), cache_to=None)
        return Session(settings, self.progress, environ=self.environ, workspace=self.workspace)

    # --- stages -----------------------------------------------------------------------------------------

    def resolvers(self, inputs: Inputs) -> Resolvers:
        """What resolves a spec's parts."""
        context = lock_resolvers.ResolveContext(
            settings=self.settings,
            store=self.store,
            progress=self.progress,
            environ=self.environ,
            fetcher=lambda: self.fetcher,
            registry=lambda: self.registry,
            directory=inputs.directory,
        )
        return lock_resolvers.make_resolvers(context, partial(self._sdist_builder, inputs))

    def _sdist_builder(self, inputs: Inputs) -> SdistBuilder:
        # Whichever engine resolves the spec: what a build requires is for the target's python, not ours.
        builds = sdist.sdist_builds(self._compose_context(inputs))
        return sdist.LockedSdists(builds, lambda: uv.UvResolver(env=self.environ))

    def engines(self, inputs: Inputs) -> Engines:
        """What builds plans."""
        return engine_factory.Engines(
            context=self._compose_context(inputs),
            scratch=self.scratch,
            shared=lambda: self._shared_segments,
        )

    def _compose_context(self, inputs: Inputs) -> ComposeContext:
        return compose.ComposeContext(
            store=self.store,
            settings=self.settings,
            environ=self.environ,
            progress=self.progress,
            fetcher=lambda: self.fetcher,
            registry=lambda: self.registry,
            inputs=inputs,
        )

    @cached_property
    def _shared_segments(self) -> segments.SharedSegments | None:
        """The caches of segments that the settings name; made once: one that is away is not asked again."""
        settings = self.settings
        if settings.offline or not (settings.cache_from or settings.cache_to):
            return None
        return segments.SharedSegments(
            readers=tuple(dict.fromkeys(map(segments.cache_repository, settings.cache_from))),
            writer=segments.cache_repository(settings.cache_to) if settings.cache_to else None,
            reading=partial(self._registry_client, hurried=True),
            writing=self._registry_client,
            progress=self.progress,
        )
