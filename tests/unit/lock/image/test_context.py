"""The images that a Dockerfile names, by digest where a registry says it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import KEEP, BaseRequest, Upgrade
from envbuild.lock.image.context import ContextResolver
from envbuild.lock.model import Base, ContextBase, ImagePin
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_INDEX
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.registry.client import RegistryClient
from envbuild.specs.model import BuildContextSpec
from tests.fakes.progress import Notes
from tests.fakes.registry import Registry

CONTEXT = digest_bytes(b"context")
OLD = digest_bytes(b"old")


class World:
    """A Dockerfile in a directory, and a registry with two images."""

    def __init__(self, directory: Path, registry: Registry, client: RegistryClient) -> None:
        self.registry, self.client, self.directory = registry, client, directory
        self.notes = Notes()
        self.digests = [
            registry.put_manifest(name, "1", OCI_INDEX, b'{"manifests":[],"annotations":{"a":"%d"}}' % number)
            for number, name in enumerate(("a", "b"))
        ]
        self.a, self.b = f"{registry.host}/a:1", f"{registry.host}/b:1"

    def resolver(self) -> ContextResolver:
        return ContextResolver(lambda: self.client, self.directory, self.notes)

    def resolve(
        self,
        dockerfile: str,
        preferred: Base | None = None,
        upgrade: Upgrade = KEEP,
        *,
        offline: bool = False,
        resolver: ContextResolver | None = None,
        platform: Platform = LINUX_AMD64,
    ) -> Base:
        (self.directory / "ctx").mkdir(exist_ok=True)
        (self.directory / "ctx/Dockerfile").write_text(dockerfile)
        return (
            (resolver or self.resolver())
            .resolve(
                BaseRequest(
                    spec=BuildContextSpec(path=Path("ctx"), dockerfile_path="Dockerfile", digest=CONTEXT),
                    platform=platform,
                    with_python=False,
                    preferred=preferred,
                    upgrade=upgrade,
                    offline=offline,
                )
            )
            .base
        )


@pytest.fixture
def world(tmp_path: Path, registry: Registry, client: RegistryClient) -> World:
    return World(tmp_path, registry, client)


def base(*images: ImagePin) -> ContextBase:
    return ContextBase(digest=CONTEXT, dockerfile="Dockerfile", images=images)


def test_each_image_has_the_digest_of_its_tag_and_is_asked_for_once(world: World) -> None:
    text = f"FROM {world.b} AS x\nFROM {world.a}\nCOPY --from={world.b} / /\nCOPY --from=x / /\n"
    resolver = world.resolver()
    first, second = (
        ImagePin(reference=world.a, digest=world.digests[0]),
        ImagePin(reference=world.b, digest=world.digests[1]),
    )
    for platform in (LINUX_AMD64, LINUX_ARM64):
        assert world.resolve(text, resolver=resolver, platform=platform) == base(first, second)
    assert len(world.registry.paths()) == 2
    assert world.notes.notes == [
        f"the Dockerfile's {world.b} is {world.b}@{world.digests[1]}",
        f"the Dockerfile's {world.a} is {world.a}@{world.digests[0]}",
    ]


def test_a_pin_of_the_present_lock_stays_until_an_upgrade_names_it(world: World) -> None:
    kept = base(ImagePin(reference=world.a, digest=OLD), ImagePin(reference=f"{world.a}-gone", digest=OLD))
    text = f"FROM {world.a}\n"
    stays, moves = base(kept.images[0]), base(ImagePin(reference=world.a, digest=world.digests[0]))
    assert world.resolve(text, kept, offline=True) == stays
    assert world.resolve(text, kept, Upgrade(packages=frozenset({"other"}))) == stays
    assert world.registry.requests == []
    for name in ("base", world.a, world.a.removesuffix(":1")):
        assert world.resolve(text, kept, Upgrade(packages=frozenset({name}))) == moves
    assert world.resolve(text, kept, Upgrade(everything=True)) == moves


def test_what_no_registry_says_is_left_and_said_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    gone = f"{world.registry.host}/gone:1"
    text = f"FROM {gone}\nFROM {gone}\nFROM {world.a}-$ARCH\nFROM {world.b}\n"
    with caplog.at_level(logging.WARNING):
        pins = world.resolve(text)
    assert pins == base(ImagePin(reference=world.b, digest=world.digests[1]))
    host = world.registry.host
    assert caplog.messages == [
        f"the Dockerfile's {gone} isn't pinned: {gone}: {host} has no such image (HTTP 404)",
        f"the Dockerfile's {host}/a:1-$ARCH isn't pinned: only a build knows which image that is",
    ]


def test_a_registry_that_does_not_answer_is_asked_for_one_image_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert world.resolve("FROM localhost:9/a:1\nFROM localhost:9/b:1\n") == base()
    first, second = caplog.messages
    assert first.startswith("the Dockerfile's localhost:9/a:1 isn't pinned: localhost:9/a:1: ")
    assert second == "the Dockerfile's localhost:9/b:1 isn't pinned: localhost:9 didn't answer"


def test_offline_an_image_without_a_pin_is_left(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert world.resolve(f"FROM {world.a}\n", offline=True) == base()
    assert caplog.messages == [f"the Dockerfile's {world.a} isn't pinned: this is an offline run"]
    assert world.registry.requests == []


def test_an_upgrade_that_can_not_be_done_loses_no_pin(world: World) -> None:
    gone = f"{world.a}-gone"
    kept = base(ImagePin(reference=gone, digest=OLD))
    with pytest.raises(ResolveError) as caught:
        world.resolve(f"FROM {gone}\n", kept, Upgrade(everything=True))
    assert caught.value.message.startswith(f"the Dockerfile's {gone} can't be upgraded: {gone}: ")
