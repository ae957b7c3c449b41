"""Standalone builds of python as entries of an image: what an archive has below ``python/``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from envbuild.compose.artifacts.conda.archive import unpack
from envbuild.compose.base import ComposeContext, Entry, EntryKind, SourceTarget
from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.model import PythonBuild
from envbuild.lock.python.standalone import addresses, python_places
from envbuild.plan.model import Artifact
from envbuild.specs.model import STANDALONE
from envbuild.store.content import Store

_TOP = STANDALONE.name
"""What all of an archive lies below, and the directory that it becomes."""


@contextmanager
def open_source(context: ComposeContext, target: SourceTarget) -> Iterator[PythonSource]:
    with context.store.scratch() as scratch:
        mirror = python_places(context.settings, context.environ).mirror
        yield PythonSource(context.fetcher(), context.store, mirror=mirror, scratch=scratch)


class PythonSource:
    """An ``ArtifactSource`` of standalone pythons: in the store, else on ``mirror``, or where they were
    published if there is none.

    Byte code that an archive brings is left out: it holds the times of files that aren't in the image."""

    def __init__(self, fetcher: Fetcher, store: Store, *, mirror: str | None, scratch: Path) -> None:
        self._fetcher = fetcher
        self._store = store
        self._mirror = mirror
        self._scratch = scratch

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        builds = [_build(artifact) for artifact in artifacts]
        try:
            self._fetcher.files([self._download(build) for build in builds])
        except FetchError as error:
            hint = error.hint or "set ENVBUILD_PYTHON_MIRROR to a mirror that has it"
            raise BuildError(error.message, hint=hint) from error

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        build = _build(artifact)
        folder = self._scratch / build.sha256
        label = f"the standalone python {build.version} ({build.file})"
        try:
            folder.mkdir(exist_ok=True)
            package = unpack(self._store.artifact(build.sha256), build.file, folder, label)
        except FileNotFoundError as error:
            raise BuildError(f"{label} was not fetched") from error
        except BuildError as error:
            raise BuildError(error.message, hint="take it from another mirror, or lock again") from error
        series = ".".join(build.version.split(".")[:2])
        if package.members.get(f"{_TOP}/bin/python{series}") is None:
            raise BuildError(
                f"{label} has no {_TOP}/bin/python{series}: it isn't one of the install_only archives",
                hint="name another list of pythons with ENVBUILD_PYTHON_DOWNLOADS_JSON_URL",
            )
        for path in sorted(package.members):
            member = package.members[path]
            top, _, below = path.partition("/")
            if top != _TOP:
                raise BuildError(f"{label}: {path} lies outside {_TOP}/")
            if member.kind is EntryKind.DIRECTORY or "__pycache__" in below.split("/"):
                continue
            yield Entry(
                path=f"{str(STANDALONE)[1:]}/{below}",
                kind=member.kind,
                mode=0o755 if member.executable else 0o644,
                content=member.content() if member.kind is EntryKind.FILE else b"",
                target=member.target,
            )

    def _download(self, build: PythonBuild) -> Download:
        return Download(
            what=f"python {build.version}",
            urls=addresses(build.url, self._mirror),
            sha256=build.sha256,
            size=build.size,
        )


def _build(artifact: Artifact) -> PythonBuild:
    if not isinstance(artifact.pin, PythonBuild):
        raise TypeError(f"{artifact.name} is no standalone python")
    return artifact.pin
