"""Which resolver the settings mean, made when it is first asked. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from envbuild.errors import UsageError
from envbuild.http.base import Fetcher
from envbuild.lazy import lazy
from envbuild.lock.base import (
    BaseResolver,
    CondaResolver,
    MavenResolver,
    PipResolver,
    PythonResolver,
    SdistBuilder,
)
from envbuild.lock.debian.mirror import known_mirror
from envbuild.lock.git.repository import GitRepositories
from envbuild.lock.make import Resolvers
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.store.content import Store

if TYPE_CHECKING:
    from envbuild.lock.conda import conda_lock, configuration, distributions, rattler
    from envbuild.lock.debian import keys
    from envbuild.lock.debian import resolver as debian
    from envbuild.lock.image import context as image_context
    from envbuild.lock.image import resolver as image
    from envbuild.lock.maven import resolver as maven
    from envbuild.lock.pip import piptools, uv
    from envbuild.lock.python import standalone
    from envbuild.registry.client import RegistryClient
else:
    configuration = lazy("envbuild.lock.conda.configuration")
    conda_lock = lazy("envbuild.lock.conda.conda_lock")
    distributions = lazy("envbuild.lock.conda.distributions")
    debian = lazy("envbuild.lock.debian.resolver")
    image = lazy("envbuild.lock.image.resolver")
    image_context = lazy("envbuild.lock.image.context")
    keys = lazy("envbuild.lock.debian.keys")
    maven = lazy("envbuild.lock.maven.resolver")
    piptools = lazy("envbuild.lock.pip.piptools")
    rattler = lazy("envbuild.lock.conda.rattler")
    standalone = lazy("envbuild.lock.python.standalone")
    uv = lazy("envbuild.lock.pip.uv")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolveContext:
    """What resolvers use of the process. ``fetcher`` and ``registry`` connect only when they are called."""

    settings: Settings
    store: Store
    progress: Progress
    environ: Mapping[str, str]
    fetcher: Callable[[], Fetcher]
    registry: Callable[[], RegistryClient]
    directory: Path
    """What relative paths of images are relative to."""


def make_resolvers(context: ResolveContext, sdists: Callable[[], SdistBuilder]) -> Resolvers:
    """The resolvers that the settings mean; ``sdists`` makes what builds source distributions."""
    return Resolvers(
        bases=(cache(partial(_debian, context)), partial(_image, context), cache(partial(_context, context))),
        conda=partial(_chosen, "conda", CONDA_ENGINES, context.settings.conda_engine, context),
        pip=partial(_chosen, "pip", PIP_ENGINES, context.settings.pip_engine, context),
        has_debian=lambda: known_mirror(context.settings) is not None,
        sdists=cache(sdists),
        distributions=partial(_distributions, context),
        maven=partial(_maven, context),
        git=partial(_git, context),
        standalone=cache(partial(_standalone, context)),
    )


def _debian(context: ResolveContext) -> BaseResolver:
    own = context.settings.debian_keyring
    keyrings = (keys.keyring_file(own),) if own else None
    return debian.DebianResolver(context.fetcher(), context.store, context.settings, keyrings=keyrings)


def _image(context: ResolveContext) -> BaseResolver:
    return image.ImageResolver(
        context.store, context.registry(), context.progress, directory=context.directory
    )


def _context(context: ResolveContext) -> BaseResolver:
    return image_context.ContextResolver(context.registry, context.directory, context.progress)


def _distributions(context: ResolveContext) -> distributions.CondaDistributions:
    return distributions.CondaDistributions(context.store, context.fetcher())


def _maven(context: ResolveContext) -> MavenResolver:
    return maven.PomResolver(context.fetcher(), context.store, context.settings.maven_repository)


def _git(context: ResolveContext) -> GitRepositories:
    return GitRepositories(store=context.store, env=context.environ, offline=context.settings.offline)


def _standalone(context: ResolveContext) -> PythonResolver:
    places = standalone.python_places(context.settings, context.environ)
    return standalone.StandaloneResolver(context.fetcher(), places, env=context.environ)


def _rattler(context: ResolveContext) -> rattler.RattlerResolver:
    return rattler.RattlerResolver(
        context.store.directory("metadata/conda"),
        configuration.conda_configuration(context.settings, context.environ),
        fetcher=context.fetcher(),
    )


def _conda_lock(context: ResolveContext) -> CondaResolver:
    return conda_lock.CondaLockResolver(_rattler(context), env=context.environ)


def _uv(context: ResolveContext) -> PipResolver:
    return uv.UvResolver(env=context.environ)


def _piptools(context: ResolveContext) -> PipResolver:
    return piptools.PipToolsResolver(env=context.environ)


CONDA_ENGINES: Mapping[str, Callable[[ResolveContext], CondaResolver]] = {
    "rattler": _rattler,
    "conda-lock": _conda_lock,
}
PIP_ENGINES: Mapping[str, Callable[[ResolveContext], PipResolver]] = {"uv": _uv, "pip-tools": _piptools}

_Resolver = TypeVar("_Resolver")


def _chosen(
    kind: str,
    engines: Mapping[str, Callable[[ResolveContext], _Resolver]],
    name: str,
    context: ResolveContext,
) -> _Resolver:
    """The resolver called ``name``. Raises ``UsageError`` where there is none."""
    if name not in engines:
        raise UsageError(f"unknown {kind} engine {name!r}", hint=f"use {' or '.join(engines)}")
    return engines[name](context)
