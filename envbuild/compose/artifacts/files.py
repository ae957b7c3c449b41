"""Pinned artifacts as the very files that their hashes are of, for builds without a network.

The composer needs only what the files hold; a build context carries the files themselves. All are kept in
the store's artifacts, by their SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from envbuild.compose.base import ArtifactFiles, ArtifactSource
from envbuild.errors import BuildError
from envbuild.plan.model import Artifact, ArtifactKind
from envbuild.store.content import Store

_OpenSource = Callable[[], AbstractContextManager[ArtifactSource]]


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
