"""The source of files that envbuild itself writes: they are in the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envbuild.compose.base import Entry, EntryKind
from envbuild.plan.model import Artifact


class GeneratedSource:
    """An ``ArtifactSource`` of :attr:`Artifact.files`."""

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        pass

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        for file in sorted(artifact.files, key=lambda file: file.path):
            if file.directory:
                kind = EntryKind.DIRECTORY
            elif file.target is not None:
                kind = EntryKind.SYMLINK
            else:
                kind = EntryKind.FILE
            yield Entry(
                path=file.path,
                kind=kind,
                mode=file.mode,
                content=file.content if kind is EntryKind.FILE else b"",
                target=file.target or "",
                uid=file.uid,
                gid=file.gid,
            )
