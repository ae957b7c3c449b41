"""Pinned artifacts as the very files that their hashes are of, for builds without a network.

The composer needs only what archives hold; a build context carries the archives themselves. All are kept in
the store's artifacts, by their SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from envbuild.compose.base import Archives, ArtifactSource
from envbuild.errors import BuildError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.model import CondaPin
from envbuild.plan.model import Artifact, ArtifactKind
from envbuild.store.content import Store


class ArchivesByKind:
    """Asks for each artifact what brings its kind; made when first asked for."""

    def __init__(self, makers: Mapping[ArtifactKind, Callable[[], Archives]]) -> None:
        self._makers = makers

    def archives(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        kinds: dict[ArtifactKind, list[Artifact]] = {}
        for artifact in artifacts:
            if artifact.kind not in self._makers:
                raise BuildError(f"{artifact.name} {artifact.version} has no archive")
            kinds.setdefault(artifact.kind, []).append(artifact)
        found: dict[str, Path] = {}
        for kind, those in kinds.items():
            found.update(self._makers[kind]().archives(those))
        return found


class CondaArchives:
    """Conda packages, from their channels. What a package would run when it is linked is no matter here."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def archives(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        return self._fetcher.files([_download(artifact) for artifact in artifacts])


class FetchedArchives:
    """Artifacts whose composing source leaves the very file in the store when it fetches: Debian's, jars."""

    def __init__(self, store: Store, source: Callable[[], AbstractContextManager[ArtifactSource]]) -> None:
        self._store = store
        self._source = source

    def archives(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        with self._source() as source:
            source.fetch(artifacts)
        found = {artifact.sha256: self._store.artifact(artifact.sha256) for artifact in artifacts}
        missing = [artifact for artifact in artifacts if not found[artifact.sha256].is_file()]
        if missing:
            raise BuildError(f"{missing[0].name} {missing[0].version} was not kept when it was fetched")
        return found


def _download(artifact: Artifact) -> Download:
    pin = artifact.pin
    if not isinstance(pin, CondaPin):
        raise BuildError(f"{artifact.name} is planned as a conda package but has no pin of one")
    return Download(
        what=f"conda package {pin.name} {pin.version}",
        urls=(pin.url,),
        sha256=pin.sha256,
        size=pin.size or None,
    )
