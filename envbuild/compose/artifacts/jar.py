"""Jars as entries of an image: each where Spark looks without being told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from envbuild.compose.base import ComposeContext, Entry, SourceTarget
from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.maven.repository import address
from envbuild.lock.model import MavenPin, PythonPin
from envbuild.plan.model import Artifact
from envbuild.plan.spark import spark_home
from envbuild.store.content import Store


def open_source(context: ComposeContext, target: SourceTarget) -> AbstractContextManager[JarSource]:
    if target.python is None:
        raise BuildError("there are jars for Spark, but no python whose pyspark they belong to")
    repositories = (*context.inputs.spark_repositories, context.settings.maven_repository)
    return nullcontext(
        JarSource(context.fetcher(), context.store, python=target.python, repositories=repositories)
    )


class JarSource:
    """An ``ArtifactSource`` of jars: in the store, else in one of ``repositories``, in their order."""

    def __init__(
        self, fetcher: Fetcher, store: Store, *, python: PythonPin, repositories: Sequence[str]
    ) -> None:
        self._fetcher = fetcher
        self._store = store
        self._folder = str(spark_home(python) / "jars").lstrip("/")
        self._repositories = tuple(repositories)

    def foresee(self, artifacts: Sequence[Artifact]) -> None:
        """Refuses two jars of one name; see the protocol."""
        names: dict[str, MavenPin] = {}
        for pin in map(_pin, artifacts):
            other = names.setdefault(_file_name(pin), pin)
            if other.file != pin.file:
                raise BuildError(
                    f"{other.name} {other.version} and {pin.name} {pin.version} have jars of one name, "
                    f"{_file_name(pin)}, and Spark keeps its jars in one directory",
                    hint="leave one of the packages that need them out",
                )

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        pins = [_pin(artifact) for artifact in artifacts]
        try:
            self._fetcher.files([self._download(pin) for pin in pins])
        except FetchError as error:
            hint = error.hint or "add the repository that has it to spark.repositories"
            raise BuildError(error.message, hint=hint) from error

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        pin = _pin(artifact)
        yield Entry(path=f"{self._folder}/{_file_name(pin)}", content=self._store.artifact(pin.sha256))

    def _download(self, pin: MavenPin) -> Download:
        urls = tuple(address(root, pin.file) for root in self._repositories)
        return Download(what=_file_name(pin), urls=urls, sha256=pin.sha256, size=pin.size)


def _pin(artifact: Artifact) -> MavenPin:
    pin = artifact.pin
    if not isinstance(pin, MavenPin):
        raise TypeError(f"{artifact.name} is no jar")
    name = _file_name(pin)
    if not name.endswith(".jar") or "\\" in name or not name.isprintable():
        raise BuildError(f"{pin.file!r} is no jar's path", hint="lock again: envbuild lock")
    return pin


def _file_name(pin: MavenPin) -> str:
    return pin.file.rpartition("/")[2]
