"""The kinds of artifacts, each a module of its own.

A kind is added by its module, a member of :class:`ArtifactKind` and a line of :data:`_KINDS`. Files that
envbuild writes itself (``GENERATED``) are in the plan: there is nothing to fetch of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from envbuild.compose.base import (
    ArtifactFiles,
    ArtifactSource,
    ComposeContext,
    SourceFactory,
    SourceTarget,
    source_target,
)
from envbuild.errors import BuildError
from envbuild.lazy import lazy
from envbuild.plan.model import Artifact, ArtifactKind, Plan
from envbuild.store.content import Store

if TYPE_CHECKING:
    from envbuild.compose.artifacts import jar, python
    from envbuild.compose.artifacts.conda import source as conda
    from envbuild.compose.artifacts.deb import source as deb
    from envbuild.compose.artifacts.wheel import source as wheel
else:
    conda = lazy("envbuild.compose.artifacts.conda.source")
    deb = lazy("envbuild.compose.artifacts.deb.source")
    jar = lazy("envbuild.compose.artifacts.jar")
    python = lazy("envbuild.compose.artifacts.python")
    wheel = lazy("envbuild.compose.artifacts.wheel.source")


class KindModule(Protocol):
    """What the module of a kind has."""

    def open_source(
        self, context: ComposeContext, target: SourceTarget
    ) -> AbstractContextManager[ArtifactSource]:
        """What brings its artifacts and gives their entries. Raises ``BuildError`` where ``target`` can't
        have any."""


class FilesModule(Protocol):
    """What the module of a kind has whose source doesn't leave the artifacts themselves in the store."""

    def open_files(self, context: ComposeContext, target: SourceTarget) -> ArtifactFiles:
        """What fetches its artifacts as the files that their hashes are of."""


_KINDS: Mapping[ArtifactKind, KindModule] = {
    ArtifactKind.DEBIAN: deb,
    ArtifactKind.PYTHON: python,
    ArtifactKind.CONDA: conda,
    ArtifactKind.WHEEL: wheel,
    ArtifactKind.JAR: jar,
}
_FILES: Mapping[ArtifactKind, FilesModule] = {ArtifactKind.CONDA: conda, ArtifactKind.WHEEL: wheel}


def artifact_sources(context: ComposeContext) -> dict[ArtifactKind, SourceFactory]:
    """The source of each kind; its module is imported when the source is opened."""
    return {kind: partial(_open_source, module, context) for kind, module in _KINDS.items()}


def artifact_files(context: ComposeContext, plan: Plan) -> ArtifactFiles:
    """What fetches the artifacts of ``plan``, of all kinds, as files for builds without a network: all are
    kept in the store's artifacts."""
    target = source_target(plan)
    return FilesByKind({kind: partial(_open_files, kind, context, target) for kind in _KINDS})


def _open_source(
    module: KindModule, context: ComposeContext, target: SourceTarget
) -> AbstractContextManager[ArtifactSource]:
    return module.open_source(context, target)


def _open_files(kind: ArtifactKind, context: ComposeContext, target: SourceTarget) -> ArtifactFiles:
    if kind in _FILES:
        return _FILES[kind].open_files(context, target)
    return FetchedFiles(context.store, partial(_open_source, _KINDS[kind], context, target))


class FilesByKind:
    """Has each artifact fetched by what its kind is fetched by; that is made when it is first needed."""

    def __init__(self, factories: Mapping[ArtifactKind, Callable[[], ArtifactFiles]]) -> None:
        self._factories = factories

    def fetch_files(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        kinds: dict[ArtifactKind, list[Artifact]] = {}
        for artifact in artifacts:
            if artifact.kind not in self._factories:
                raise BuildError(f"{artifact.name} {artifact.version} has no archive")
            kinds.setdefault(artifact.kind, []).append(artifact)
        files: dict[str, Path] = {}
        for kind, group in kinds.items():
            files.update(self._factories[kind]().fetch_files(group))
        return files


class FetchedFiles:
    """Artifacts whose composing source leaves the very file in the store when it fetches: Debian's, jars."""

    def __init__(
        self, store: Store, open_source: Callable[[], AbstractContextManager[ArtifactSource]]
    ) -> None:
        self._store = store
        self._open_source = open_source

    def fetch_files(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        with self._open_source() as source:
            source.fetch(artifacts)
        files = {artifact.sha256: self._store.artifact(artifact.sha256) for artifact in artifacts}
        for artifact in artifacts:
            if not files[artifact.sha256].is_file():
                raise BuildError(f"{artifact.name} {artifact.version} was not kept when it was fetched")
        return files
