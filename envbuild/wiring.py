"""Makes the parts of one call: which resolver, engine, publisher and runner the settings mean.

Everything is made when it is first asked for, and imported then: a build of what is already in the store
needs no resolver and no HTTP client.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.errors import RunError, UsageError
from envbuild.lock.make import Resolvers
from envbuild.lock.model import ImageBase, PythonPin
from envbuild.plan.model import ArtifactKind, Plan
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.publish.base import Publication
from envbuild.settings import Settings
from envbuild.store.content import Store

if TYPE_CHECKING:
    from envbuild.compose.base import ArtifactSource, ByteCompiler
    from envbuild.engines.native import NativeEngine
    from envbuild.fetch.http import HttpFetcher
    from envbuild.lock.base import CondaResolver, PipResolver
    from envbuild.run.base import Runner


class Parts:
    """The parts of one call, each made once. ``environ`` is the process's environment."""

    def __init__(
        self, settings: Settings, progress: Progress, environ: Mapping[str, str] | None = None
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.environ = os.environ if environ is None else environ
        self.store = Store(settings.cache_dir)

    def close(self) -> None:
        """Closes connections, where any were opened."""
        if "fetcher" in self.__dict__:
            self.fetcher.close()

    @cached_property
    def fetcher(self) -> HttpFetcher:
        from envbuild.fetch.http import HttpFetcher

        return HttpFetcher(
            self.store,
            offline=self.settings.offline,
            settings=self.settings,
            progress=self.progress,
            environ=self.environ,
        )

    # --- resolvers ------------------------------------------------------------------------------------

    @cached_property
    def resolvers(self) -> Resolvers:
        from envbuild.lock.debian.mirror import known_mirror
        from envbuild.lock.debian.resolver import DebianResolver
        from envbuild.lock.image.resolver import ImageResolver

        return Resolvers(
            bases=(
                DebianResolver(self.fetcher, self.store, self.settings),
                ImageResolver(self.store, self.settings, self.progress, self.environ),
            ),
            conda=self._conda_resolver,
            pip=self._pip_resolver,
            has_debian=lambda: known_mirror(self.settings) is not None,
        )

    def _conda_resolver(self) -> CondaResolver:
        engine = self.settings.conda_engine
        cache = self.store.directory("metadata/conda")
        if engine == "rattler":
            from envbuild.lock.conda.rattler import RattlerResolver

            return RattlerResolver(cache)
        if engine == "conda-lock":
            from envbuild.lock.conda.conda_lock import CondaLockResolver

            return CondaLockResolver(env=self.environ)
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

    # --- engine ---------------------------------------------------------------------------------------

    def engine(self, *, reuse: bool) -> NativeEngine:
        """The composer. ``reuse=False`` takes nothing from the caches."""
        from envbuild.engines.native import NativeEngine

        return NativeEngine(
            store=self.store,
            sources={
                ArtifactKind.DEBIAN: self._debian,
                ArtifactKind.CONDA: self._conda,
                ArtifactKind.WHEEL: self._wheels,
            },
            compiler_factory=_Compilers(),
            base_loader=self._load_base,
            unpack_base=self._unpack_base,
            progress=self.progress,
            workers=self.settings.workers,
            reuse=reuse,
        )

    def _debian(self, plan: Plan) -> AbstractContextManager[ArtifactSource]:
        from envbuild.compose.deb import DebianSource

        return DebianSource(self.store, fetcher=self.fetcher, settings=self.settings)

    def _conda(self, plan: Plan) -> AbstractContextManager[ArtifactSource]:
        from envbuild.compose.conda import CondaSource

        return CondaSource(self.store, fetcher=self.fetcher, python=plan.python, bytecode=plan.bytecode)

    def _wheels(self, plan: Plan) -> AbstractContextManager[ArtifactSource]:
        from envbuild.compose.wheel import WheelSource

        return WheelSource(self.store, plan=plan)
