"""Jars come from the store or a repository, and stand where Spark looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.artifacts.jar import JarSource
from envbuild.compose.base import Entry
from envbuild.errors import BuildError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import MavenRequest
from envbuild.lock.maven.resolver import PomResolver
from envbuild.lock.model import MavenPin, PythonPin
from envbuild.plan.model import Artifact
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import MavenPackage, SparkSpec
from envbuild.store.content import Store
from tests.fakes.maven import MavenRepository, jar

PYTHON = PythonPin(version="3.12.4", provider="conda", executable="/opt/env/bin/python3.12")


class World:
    def __init__(self, root: Path, address: str) -> None:
        self.address = address
        repository = MavenRepository(root / "repository")
        repository.add("org.example:lib:1.0")
        self.pin = self.resolved(Store(root / "elsewhere"))
        self.store = Store(root / "store")

    def fetcher(self, store: Store) -> HttpFetcher:
        return HttpFetcher(
            store,
            offline=False,
            settings=Settings(cache_dir=store.root),
            progress=Silent(),
            sleep=lambda _: None,
            environ={},
        )

    def resolved(self, store: Store) -> MavenPin:
        asked = MavenPackage(group="org.example", artifact="lib", version="1.0")
        with self.fetcher(store) as fetcher:
            (pin,) = PomResolver(fetcher, store, self.address).resolve(
                MavenRequest(spec=SparkSpec(packages=(asked,)))
            )
        return pin

    def source(self, *repositories: str) -> AbstractContextManager[JarSource]:
        fetcher = self.fetcher(self.store)
        return nullcontext(
            JarSource(fetcher, self.store, python=PYTHON, repositories=repositories or (self.address,))
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with MavenRepository(tmp_path / "repository").serve() as address:
        yield World(tmp_path, address)


def test_a_jar_is_one_file_among_sparks_own(world: World) -> None:
    with world.source() as source:
        source.fetch([Artifact.of(world.pin)])
        (entry,) = source.entries(Artifact.of(world.pin))
    assert entry == Entry(
        path="opt/env/lib/python3.12/site-packages/pyspark/jars/lib-1.0.jar",
        content=world.store.artifact(world.pin.sha256),
    )
    assert world.store.artifact(world.pin.sha256).read_bytes() == jar("org.example:lib:1.0")


def test_the_next_repository_is_asked_where_one_has_it_not(world: World, tmp_path: Path) -> None:
    empty = MavenRepository(tmp_path / "empty")
    with empty.serve() as first, world.source(first, world.address) as source:
        source.fetch([Artifact.of(world.pin)])
    assert empty.asked == ["/maven2/org/example/lib/1.0/lib-1.0.jar"]
    assert world.store.artifact(world.pin.sha256).is_file()


def test_a_jar_that_was_replaced_is_refused(world: World) -> None:
    pin = replace(world.pin, sha256="1" * 64)
    with world.source() as source, pytest.raises(BuildError, match=r"but 1111.* is pinned"):
        source.fetch([Artifact.of(pin)])


def test_two_jars_of_one_name_are_refused_before_anything_is_fetched(world: World) -> None:
    other = replace(world.pin, group="other", file="other/lib/1.0/lib-1.0.jar", sha256="1" * 64)
    with world.source() as source, pytest.raises(BuildError) as caught:
        source.foresee([Artifact.of(world.pin), Artifact.of(other)])
    assert caught.value.message == (
        "org.example:lib 1.0 and other:lib 1.0 have jars of one name, lib-1.0.jar, "
        "and Spark keeps its jars in one directory"
    )


@pytest.mark.parametrize("file", ["g/lib/1/..", "g/lib/1/lib.sh", "lib\\x.jar", "g/\n.jar"])
def test_a_path_that_is_no_jars_is_refused(world: World, file: str) -> None:
    with world.source() as source, pytest.raises(BuildError, match="is no jar's path"):
        source.fetch([Artifact.of(replace(world.pin, file=file))])
