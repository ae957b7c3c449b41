"""What is asked of registries before a build, and what of their answers is believed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import FetchError, PublishError
from envbuild.images.lookup import CandidateRepository, ExpectedImage, Lookup, MatchedImage, pull_layers
from envbuild.images.sinks.registry import RegistrySink
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.reference import Reference
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient, RegistryOptions
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.progress import Notes
from tests.fakes.registry import Registry

LOCK, DEFINITION = digest_bytes(b"a lock"), digest_bytes(b"a definition")
LABELS = {
    "dev.envbuild.lock": LOCK,
    "dev.envbuild.definition": DEFINITION,
    "dev.envbuild.level": "L3",
    # Of an image that is another one as it is, whose history says nothing of envbuild.
    "org.opencontainers.image.base.digest": digest_bytes(b"a base"),
}
WANTED = ExpectedImage(platform=LINUX_AMD64, lock_digest=LOCK, definition_digest=DEFINITION, level="L3")


Client = Callable[[str], RegistryClient]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Makes clients in a hurry, each with a store of its own."""
    made = []

    def make(name: str) -> RegistryClient:
        one = RegistryClient(
            Store(tmp_path / name),
            Silent(),
            RegistryCredentials({"HOME": str(tmp_path)}),
            options=RegistryOptions(hurried=True),
        )
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def image(store: Store, platform: Platform = LINUX_AMD64, labels: dict[str, str] | None = None) -> Image:
    layers = [put_layer(store, [Item(name=each, content=str(platform).encode())]) for each in "ab"]
    return put_image(store, layers, {"Labels": LABELS if labels is None else labels}, platform)


def push(registry: Registry, client: RegistryClient, store: Store, publication: ImageSet) -> None:
    target = Reference.parse(f"{registry.host}/app")
    RegistrySink(remote=client, store=store, repository=target, tags=("3f2a",)).publish(publication)
    registry.requests.clear()


def lookup(client: RegistryClient, *names: str, notes: Notes | None = None, required: bool = False) -> Lookup:
    places = [
        CandidateRepository(repository=Reference.parse(name), remote=lambda: client, required=required)
        for name in names
    ]
    return Lookup(places=places, progress=notes or Notes())


def test_the_image_of_a_tag_without_its_layers(registry: Registry, client: Client, tmp_path: Path) -> None:
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")
    made = image(there)
    push(registry, client("there"), there, ImageSet(images=(made,), names=()))
    remote = client("here")
    found = lookup(remote, f"{registry.host}/app").find(WANTED, ("none", "3f2a"))
    expected = replace(made, lock_digest=LOCK, definition_digest=DEFINITION, level="L3")
    assert found == MatchedImage(
        image=expected, reference=Reference.parse(f"{registry.host}/app:3f2a@{made.digest}")
    )
    assert [here.has_blob(layer.digest) for layer in made.layers] == [False, False]
    pull_layers(found, remote, here)
    assert [here.blob(each.digest).stat().st_size for each in made.layers] == [
        layer.size for layer in made.layers
    ]
    registry.requests.clear()
    pull_layers(found, remote, here)
    assert registry.requests == []


def test_a_platform_is_found_in_an_index(registry: Registry, client: Client, tmp_path: Path) -> None:
    store = Store(tmp_path / "there")
    images = [image(store), image(store, LINUX_ARM64)]
    publication = put_index(store, images, ())
    push(registry, client("there"), store, publication)
    looking = lookup(client("here"), f"{registry.host}/app")
    for each in images:
        found = looking.find(replace(WANTED, platform=each.platform), ("3f2a",))
        assert found is not None
        assert (found.image.digest, found.reference.digest) == (each.digest, publication.digest)
    # The index itself was asked for once.
    assert registry.paths().count("/v2/app/manifests/3f2a") == 1
    assert looking.find(replace(WANTED, platform=Platform("linux", "riscv64")), ("3f2a",)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dev.envbuild.lock": LOCK[:-1] + "0"}, f"its lock is {LOCK[:-1]}0, not {LOCK}"),
        ({"dev.envbuild.lock": ""}, f"its lock is not stated, not {LOCK}"),
        (
            {"dev.envbuild.definition": digest_bytes(b"x")},
            f"its definition is {digest_bytes(b'x')}, not {DEFINITION}",
        ),
        ({"dev.envbuild.level": "L2"}, "its level is L2, not L3"),
    ],
)
def test_an_image_that_says_to_be_another_is_a_warning(
    registry: Registry,
    client: Client,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, str],
    said: str,
) -> None:
    store = Store(tmp_path / "there")
    made = image(store, labels={**LABELS, **change})
    push(registry, client("there"), store, ImageSet(images=(made,), names=()))
    assert lookup(client("here"), f"{registry.host}/app").find(WANTED, ("3f2a",)) is None
    assert caplog.record_tuples == [
        ("envbuild.images.lookup", logging.WARNING, f"{registry.host}/app:3f2a isn't used: {said}")
    ]


def test_an_image_of_another_platform_is_a_warning(
    registry: Registry, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "there")
    push(registry, client("there"), store, ImageSet(images=(image(store, LINUX_ARM64),), names=()))
    assert lookup(client("here"), f"{registry.host}/app").find(WANTED, ("3f2a",)) is None
    assert "its platform is linux/arm64, not linux/amd64" in caplog.text


def test_what_is_no_image_is_a_warning(
    registry: Registry, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    registry.put_manifest("app", "3f2a", "application/vnd.oci.image.manifest.v1+json", b'{"layers": 1}')
    assert lookup(client("here"), f"{registry.host}/app").find(WANTED, ("3f2a",)) is None
    assert f"{registry.host}/app:3f2a isn't used: " in caplog.text


def test_a_registry_that_fails_is_told_once_and_asked_once(
    registry: Registry, client: Client, progress: Notes
) -> None:
    registry.faults = [503]
    looking = lookup(client("here"), f"{registry.host}/a", f"{registry.host}/b", notes=progress)
    assert looking.find(WANTED, ("1", "2")) is None
    assert looking.find(replace(WANTED, platform=LINUX_ARM64), ("3",)) is None
    assert len(registry.requests) == 1
    assert progress.notes == [
        f"no image is looked for in {registry.host}: {registry.host}/a:1: {registry.host} answered HTTP 503"
    ]


def test_a_registry_that_is_pushed_to_must_be_there(client: Client, progress: Notes) -> None:
    assert lookup(client("a"), "127.0.0.1:9/app", notes=progress).find(WANTED, ("1",)) is None
    assert len(progress.notes) == 1
    with pytest.raises(PublishError, match=r"127\.0\.0\.1:9 can't be reached"):
        lookup(client("b"), "127.0.0.1:9/app", required=True).find(WANTED, ("1",))


def test_a_layer_that_is_not_what_its_config_says_is_refused(
    registry: Registry, client: Client, tmp_path: Path
) -> None:
    store = Store(tmp_path / "there")
    honest, other = (put_layer(store, [Item(name=each)]) for each in "ab")
    made = put_image(store, [replace(honest, diff_id=other.diff_id)], {"Labels": LABELS}, LINUX_AMD64)
    push(registry, client("there"), store, ImageSet(images=(made,), names=()))
    remote = client("here")
    found = lookup(remote, f"{registry.host}/app").find(WANTED, ("3f2a",))
    assert found is not None
    with pytest.raises(FetchError, match=f"its config says {other.diff_id}"):
        pull_layers(found, remote, Store(tmp_path / "here"))
