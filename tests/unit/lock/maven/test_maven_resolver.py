"""Coordinates become the jars of their closure, from a repository on loopback."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import KEEP, MavenRequest, Upgrade
from envbuild.lock.maven.resolver import PomResolver
from envbuild.lock.model import MavenPin
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import MavenPackage, SparkSpec
from envbuild.store.content import Store
from tests.fakes.maven import MavenRepository, jar, needs


class World:
    """One repository, served; and what asks it."""

    def __init__(self, root: Path, address: str, repository: MavenRepository) -> None:
        self.root, self.address, self.repository = root, address, repository
        self.store = Store(root / "store")

    def resolve(
        self,
        *coordinates: str,
        repositories: tuple[str, ...] = (),
        preferred: tuple[MavenPin, ...] = (),
        upgrade: Upgrade = KEEP,
        offline: bool = False,
    ) -> tuple[MavenPin, ...]:
        packages = tuple(
            MavenPackage(group=group, artifact=artifact, version=version)
            for group, artifact, version in (coordinate.split(":") for coordinate in coordinates)
        )
        settings = Settings(cache_dir=self.store.root)
        with HttpFetcher(
            self.store,
            offline=offline,
            settings=settings,
            progress=Silent(),
            sleep=lambda _: None,
            environ={},
        ) as fetcher:
            return PomResolver(fetcher, self.store, self.address).resolve(
                MavenRequest(
                    spec=SparkSpec(packages=packages, repositories=repositories),
                    preferred=preferred,
                    upgrade=upgrade,
                    offline=offline,
                )
            )

    def names(self, *coordinates: str) -> list[str]:
        return [f"{each.name}:{each.version}" for each in self.resolve(*coordinates)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    repository = MavenRepository(tmp_path / "repository")
    with repository.serve() as address:
        yield World(tmp_path, address, repository)


def test_a_pin_says_where_the_jar_is_and_what_it_is(world: World) -> None:
    world.repository.add("org.example:lib:1.0")
    (pin,) = world.resolve("org.example:lib:1.0")
    data = jar("org.example:lib:1.0")
    assert pin == MavenPin(
        group="org.example",
        artifact="lib",
        version="1.0",
        file="org/example/lib/1.0/lib-1.0.jar",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    assert world.store.artifact(pin.sha256).read_bytes() == data


def test_what_is_needed_comes_along_and_circles_end(world: World) -> None:
    world.repository.add("g:a:1", "g:b:1", needs("g:list:1", type="pom"), needs("g:t:1", scope="test"))
    world.repository.add("g:b:1", "g:a:1")
    world.repository.add("g:list:1", "g:c:1", packaging="pom")
    world.repository.add("g:c:1")
    assert world.names("g:a:1") == ["g:a:1", "g:b:1", "g:c:1"]


def test_the_latest_version_counts_even_over_what_was_asked_for(world: World) -> None:
    world.repository.add("g:a:1", "g:b:1.10")
    world.repository.add("g:b:1.9")
    world.repository.add("g:b:1.10")
    assert world.names("g:a:1", "g:b:1.9") == ["g:a:1", "g:b:1.10"]


def test_what_a_superseded_version_needs_does_not_count(world: World) -> None:
    world.repository.add("g:a:1", "g:b:2", "g:c:1")
    world.repository.add("g:b:1", "g:gone:1", "g:c:9")
    world.repository.add("g:b:2")
    world.repository.add("g:c:1")
    world.repository.add("g:c:9")
    world.repository.add("g:gone:1")
    assert world.names("g:a:1", "g:b:1") == ["g:a:1", "g:b:2", "g:c:1"]


def test_versions_that_rule_each_other_out_end_at_the_later_ones(world: World) -> None:
    """a:1 wants b:2, b:1 wants a:2; a:2 and b:2 want nothing: neither choice is its own reason."""
    world.repository.add("g:a:1", "g:b:2")
    world.repository.add("g:a:2")
    world.repository.add("g:b:1", "g:a:2")
    world.repository.add("g:b:2")
    assert world.names("g:a:1", "g:b:1") == ["g:a:2", "g:b:2"]


def test_an_exclusion_holds_on_its_way_only(world: World) -> None:
    world.repository.add("g:a:1", needs("g:b:1", without=("g:*",)))
    world.repository.add("g:b:1", "g:c:1")
    world.repository.add("g:c:1")
    world.repository.add("g:d:1", "g:b:1")
    assert world.names("g:a:1") == ["g:a:1", "g:b:1"]
    assert world.names("g:a:1", "g:d:1") == ["g:a:1", "g:b:1", "g:c:1", "g:d:1"]


def test_a_classifier_is_another_jar_of_the_module(world: World) -> None:
    world.repository.add("g:a:1", "g:n:1", needs("g:n:1", classifier="linux"))
    world.repository.add("g:n:1")
    world.repository.put("g:n:1", "-linux.jar", jar("native"))
    assert [each.file for each in world.resolve("g:a:1")] == [
        "g/a/1/a-1.jar",
        "g/n/1/n-1-linux.jar",
        "g/n/1/n-1.jar",
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_packages_makes_no_difference(world: World, seed: int) -> None:
    modules = [f"g:m{number}" for number in range(8)]
    chance = random.Random(seed)
    for module in modules:
        for version in (1, 2, 3):
            others = chance.sample(modules, 3)
            world.repository.add(
                f"{module}:{version}", *(f"{other}:{chance.randint(1, 3)}" for other in others)
            )
    asked = [f"{module}:{chance.randint(1, 3)}" for module in modules[:4]]
    first = world.resolve(*asked)
    chance.shuffle(asked)
    assert world.resolve(*asked) == first
    assert list(first) == sorted(first)


def test_the_specs_repositories_are_asked_first(world: World) -> None:
    own = MavenRepository(world.root / "own")
    own.add("g:a:1", "g:b:1", checksum="sha256")
    own.put("g:a:1", "jar", jar("another"), "sha256")
    world.repository.add("g:a:1")
    world.repository.add("g:b:1")
    with own.serve() as address:
        found = world.resolve("g:a:1", repositories=(address,))
    assert [each.name for each in found] == ["g:a", "g:b"]
    assert world.store.artifact(found[0].sha256).read_bytes() == jar("another")
    assert not any("/g/a/" in path for path in world.repository.asked)


def test_a_kept_pin_is_not_read_again_unless_it_is_to_be_upgraded(world: World) -> None:
    world.repository.add("g:a:1")
    (pin,) = world.resolve("g:a:1")
    kept = replace(pin, sha256="1" * 64)
    world.repository.asked.clear()
    assert world.resolve("g:a:1", preferred=(kept,)) == (kept,)
    assert not any(".jar" in path for path in world.repository.asked)
    assert world.resolve("g:a:1", preferred=(kept,), upgrade=Upgrade(packages=frozenset({"g:a"}))) == (pin,)
    assert world.resolve("g:a:1", preferred=(kept,), upgrade=Upgrade(everything=True)) == (pin,)


def test_a_pin_of_another_version_is_left_behind(world: World) -> None:
    world.repository.add("g:a:1")
    world.repository.add("g:a:2")
    before = world.resolve("g:a:1")
    assert [each.version for each in world.resolve("g:a:2", preferred=before)] == ["2"]


def test_offline_answers_from_what_was_read_before(world: World) -> None:
    world.repository.add("g:a:1", "g:b:1")
    world.repository.add("g:b:1")
    pins = world.resolve("g:a:1")
    world.repository.asked.clear()
    assert world.resolve("g:a:1", preferred=pins, offline=True) == pins
    assert world.repository.asked == []
    with pytest.raises(ResolveError) as caught:
        world.resolve("g:other:1", offline=True)
    assert caught.value.message == f"g:other:1 is in none of the Maven repositories {world.address}"
    assert caught.value.hint == "run once without --offline, so that it is kept"


def test_unknown_coordinates_are_named_with_how_they_came_in(world: World) -> None:
    world.repository.add("g:a:1", "g:b:1")
    world.repository.add("g:b:1", "g:typo:1")
    with pytest.raises(ResolveError) as caught:
        world.resolve("g:a:1")
    assert caught.value.message == (
        f"g:typo:1 is in none of the Maven repositories {world.address}\n"
        "(it came in by g:a:1 → g:b:1 → g:typo:1)"
    )


def test_a_repository_that_does_not_answer_is_named_without_its_password(world: World) -> None:
    world.repository.add("g:a:1")
    with pytest.raises(ResolveError) as caught:
        world.resolve("g:a:1", repositories=("http://me:hunter2@127.0.0.1:9/m2",))
    start = f"g:a:1 can't be looked for in the Maven repositories http://127.0.0.1:9/m2, {world.address}: "
    assert caught.value.message.startswith(start)
    assert "hunter2" not in caught.value.message
    assert "ENVBUILD_MAVEN_REPOSITORY" in (caught.value.hint or "")


@pytest.mark.parametrize("checksum", ["sha1", "sha256"])
def test_a_jar_that_is_not_what_its_repository_says_is_refused(world: World, checksum: str) -> None:
    world.repository.add("g:a:1", checksum=checksum)
    path = world.repository.put("g:a:1", "jar", b"changed", "")
    with pytest.raises(ResolveError) as caught:
        world.resolve("g:a:1")
    found = hashlib.new(checksum, path.read_bytes()).hexdigest()
    assert f"is {found}, but " in caught.value.message
    assert caught.value.hint == "the file was replaced or damaged on its way; nothing of it was kept"


def test_a_pom_that_is_not_what_its_repository_says_is_refused(world: World) -> None:
    world.repository.add("g:a:1")
    world.repository.put("g:a:1", "pom", b"<project/>", "")
    with pytest.raises(ResolveError, match=r"a-1\.pom: its SHA1 is .*, but the repository says "):
        world.resolve("g:a:1")


def test_a_jar_that_nothing_vouches_for_is_refused(world: World) -> None:
    world.repository.add("g:a:1", checksum="")
    with pytest.raises(ResolveError) as caught:
        world.resolve("g:a:1")
    assert caught.value.message == (
        f"{world.address}/g/a/1/a-1.jar has neither a .sha256 nor a .sha1 beside it"
    )


def test_two_jars_of_one_name_are_refused(world: World) -> None:
    world.repository.add("g:util:1")
    world.repository.add("h:util:1")
    with pytest.raises(ResolveError) as caught:
        world.resolve("g:util:1", "h:util:1")
    assert caught.value.message == (
        "g:util:1 and h:util:1 have jars of one name, util-1.jar, and Spark keeps its jars in one directory"
    )
