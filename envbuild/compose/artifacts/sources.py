"""The kinds of artifacts, each a module of its own.

A kind is added by its module, a member of :class:`ArtifactKind` and a line of :data:`_KINDS`. Files that
envbuild writes itself (``GENERATED``) are in the plan: there is nothing to fetch of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from envbuild.compose.artifacts.files import FilesByKind
from envbuild.compose.base import (
    ArtifactFiles,
    ArtifactSource,
    ComposeContext,
    SourceFactory,
    SourceTarget,
    source_target,
)
from envbuild.lazy import lazy
from envbuild.plan.model import ArtifactKind, Plan

if TYPE_CHECKING:
    from envbuild.compose.artifacts import jar
    from envbuild.compose.artifacts.conda import source as conda
    from envbuild.compose.artifacts.deb import source as deb
    from envbuild.compose.artifacts.wheel import source as wheel
else:
    conda = lazy("envbuild.compose.artifacts.conda.source")
    deb = lazy("envbuild.compose.artifacts.deb.source")
    jar = lazy("envbuild.compose.artifacts.jar")
    wheel = lazy("envbuild.compose.artifacts.wheel.source")


class KindModule(Protocol):
    """What the module of a kind has."""

    def open_source(
        self, context: ComposeContext, target: SourceTarget
    ) -> AbstractContextManager[ArtifactSource]:
        """What brings its artifacts and gives their entries. Raises ``BuildError`` where ``target`` can't
        have any."""

    def open_files(self, context: ComposeContext, target: SourceTarget) -> ArtifactFiles:
        """What fetches its artifacts as files."""


_KINDS: Mapping[ArtifactKind, KindModule] = {
    ArtifactKind.DEBIAN: deb,
    ArtifactKind.CONDA: conda,
    ArtifactKind.WHEEL: wheel,
    ArtifactKind.JAR: jar,
}


def artifact_sources(context: ComposeContext) -> dict[ArtifactKind, SourceFactory]:
    """The source of each kind; its module is imported when the source is opened."""
    return {kind: partial(_open_source, module, context) for kind, module in _KINDS.items()}


def artifact_files(context: ComposeContext, plan: Plan) -> ArtifactFiles:
    """What fetches the artifacts of ``plan`` as files, of all kinds."""
    target = source_target(plan)
    return FilesByKind(
        {kind: partial(_open_files, module, context, target) for kind, module in _KINDS.items()}
    )


def _open_source(
    module: KindModule, context: ComposeContext, target: SourceTarget
) -> AbstractContextManager[ArtifactSource]:
    return module.open_source(context, target)


def _open_files(module: KindModule, context: ComposeContext, target: SourceTarget) -> ArtifactFiles:
    return module.open_files(context, target)
