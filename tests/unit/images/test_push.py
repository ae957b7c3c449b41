"""Pushes to a registry: what is asked, in which order, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import PublishError, UsageError
from envbuild.images.base import PushResult
from envbuild.images.repository import (
    PushTarget,
    known_repositories,
    push_target,
    remember_repository,
    repository_name,
)
from envbuild.images.sinks.registry import RegistrySink
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.registry.base import Pushed, RefusedError
from envbuild.registry.client import RegistryClient
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.registry import Registry
from tests.integration.registry import make_client


@pytest.fixture
def client(tmp_path: Path, store: Store) -> Iterator[RegistryClient]:
    with make_client(tmp_path, store) as made:
        yield made


def one(store: Store, seed: str = "a") -> ImageSet:
    layers = [put_layer(store, [Item(name=seed * 3)]), put_layer(store, [Item(name="shared")])]
    return ImageSet(images=(put_image(store, layers, platform=LINUX_AMD64),), names=())


def two(store: Store) -> ImageSet:
    """Two platforms that share a layer."""
    shared = put_layer(store, [Item(name="shared")])
    images = [
        put_image(store, [shared, put_layer(store, [Item(name=str(each))])], platform=each)
        for each in (LINUX_AMD64, LINUX_ARM64)
    ]
    return put_index(store, images, ())


def pushed(
    publication: ImageSet, registry: Registry, client: RegistryClient, store: Store, *tags: str
) -> PushResult:
    target = Reference.parse(f"{registry.host}/team/app")
    return RegistrySink(remote=client, store=store, repository=target, tags=tags).publish(publication)


def writes(registry: Registry) -> list[str]:
    """What was put, in order: the digest of a blob, or the tag or digest of a manifest."""
    return [
        path.partition("digest=")[2].replace("%3A", ":") or path.rpartition("/")[2]
        for path in registry.paths("PUT")
    ]


def size(store: Store, image: Image) -> int:
    return sum(layer.size for layer in image.layers) + store.blob(image.config_digest).stat().st_size


def test_layers_configs_manifests_and_then_the_tags(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = two(store)
    first, second = publication.images
    done = pushed(publication, registry, client, store, "1", "latest")
    put = writes(registry)
    layers = {first.layers[0].digest, first.layers[1].digest, second.layers[1].digest}
    assert (len(put), set(put[:3])) == (9, layers)
    assert set(put[3:5]) == {first.config_digest, second.config_digest}
    assert put[5:] == [first.digest, second.digest, "1", "latest"]
    name = f"{registry.host}/team/app"
    digest = publication.digest
    assert done.references == (f"{name}:1@{digest}", f"{name}:latest@{digest}")
    total = size(store, first) + size(store, second) - first.layers[0].size
    assert (done.sent, done.mounted, done.present) == (total, 0, 0)
    assert registry.manifests["team/app", "1"][1] == store.blob(digest).read_bytes()
    assert registry.manifests["team/app", first.digest][1] == store.blob(first.digest).read_bytes()


def test_without_tags_an_image_is_there_by_its_digest(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = one(store)
    done = pushed(publication, registry, client, store)
    assert done.references == (f"{registry.host}/team/app@{publication.digest}",)
    assert writes(registry)[-1] == publication.digest


def test_a_push_of_what_is_there_is_one_question(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = two(store)
    pushed(publication, registry, client, store, "1")
    registry.requests.clear()
    done = pushed(publication, registry, client, store, "1")
    assert [(method, path) for method, path, _ in registry.requests] == [("GET", "/v2/team/app/manifests/1")]
    shared = publication.images[0].layers[0].size
    assert (done.sent, done.present) == (0, sum(size(store, image) for image in publication.images) - shared)


def test_another_tag_of_what_is_there_sends_no_blob_and_asks_for_none(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = one(store)
    pushed(publication, registry, client, store, "1")
    registry.requests.clear()
    pushed(publication, registry, client, store, "1", "prod")
    assert registry.manifests["team/app", "prod"] == registry.manifests["team/app", "1"]
    assert not [path for _, path, _ in registry.requests if "/blobs/" in path]
    assert writes(registry) == ["prod"]


@pytest.mark.parametrize("number", range(5))
def test_a_push_that_fails_anywhere_moves_no_tag(
    number: int, registry: Registry, client: RegistryClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(one(store), registry, client, store, "1")
    before = registry.manifests["team/app", "1"]
    publication = two(store)
    left = number

    def breaks(patch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(RegistryClient, name)

        def call(self: RegistryClient, *arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise RefusedError("not today", hint="tomorrow", status=500)
            return real(self, *arguments, **options)

        patch.setattr(RegistryClient, name, call)

    with monkeypatch.context() as patch:
        breaks(patch, "push_blobs")
        breaks(patch, "push_manifest")
        with pytest.raises(PublishError) as caught:
            pushed(publication, registry, client, store, "1")
    assert caught.value.message == f"the push to {registry.host}/team/app failed: not today"
    assert (caught.value.hint, caught.value.exit_code) == ("tomorrow", 7)
    assert registry.manifests["team/app", "1"] == before
    pushed(publication, registry, client, store, "1")
    assert registry.manifests["team/app", "1"][1] == store.blob(publication.digest).read_bytes()


def test_what_is_attached_comes_before_the_tag(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = one(store)
    seen: list[tuple[str, list[str]]] = []

    class Attach:
        def prepare(self, image_set: ImageSet) -> None:
            seen.append(("prepare", writes(registry)))

        def __call__(self, repository: Reference, image_set: ImageSet, fetch: object = None) -> None:
            assert image_set == one(store)
            seen.append((str(repository), writes(registry)[-1:]))

    target = Reference.parse(f"{registry.host}/team/app:ignored")
    for _ in range(2):
        RegistrySink(remote=client, store=store, repository=target, tags=("1",), attach=Attach()).publish(
            publication
        )
    # The second time too: what has its tag may have been pushed without. But then there is no time to win.
    where = f"{registry.host}/team/app@{publication.digest}"
    assert seen == [("prepare", []), (where, [publication.digest]), (where, ["1"])]


def test_only_what_must_be_sent_is_fetched(registry: Registry, client: RegistryClient, store: Store) -> None:
    publication = one(store)
    layers = publication.images[0].layers
    content = {layer.digest: store.blob(layer.digest).read_bytes() for layer in layers}
    registry.put_blob(content[layers[0].digest])
    for layer in layers:
        store.blob(layer.digest).unlink()
    fetched: list[str] = []

    def fetch(blob: Descriptor) -> None:
        fetched.append(blob.digest)
        if blob.digest in content:
            store.add_blob(content[blob.digest])

    repository = Reference.parse(f"{registry.host}/team/app")
    sink = RegistrySink(remote=client, store=store, repository=repository, tags=("1",), fetch=fetch)
    sink.publish(publication)
    assert fetched == [layers[1].digest, publication.images[0].config_digest]
    assert set(registry.blobs) == {*content, publication.images[0].config_digest}


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_a_store_that_lacks_a_part_is_told(
    what: str, registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = one(store)
    image = publication.images[0]
    store.blob(image.digest if what == "manifest" else image.config_digest).unlink()
    with pytest.raises(PublishError, match=f"the push to {registry.host}/team/app failed: "):
        pushed(publication, registry, client, store, "1")
    assert registry.manifests == {}


def test_a_damaged_manifest_is_not_pushed(registry: Registry, client: RegistryClient, store: Store) -> None:
    publication = one(store)
    path = store.blob(publication.digest)
    path.write_bytes(path.read_bytes().replace(b"layers", b"LAYERS"))
    with pytest.raises(PublishError, match=f"{publication.digest} was damaged"):
        pushed(publication, registry, client, store, "1")
    assert registry.requests == []


def test_a_publication_of_nothing_is_refused(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    with pytest.raises(PublishError, match="there is no image to publish"):
        pushed(ImageSet(images=(), names=()), registry, client, store, "1")


def test_the_own_tag_stands_between_the_images_and_those_that_move(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    publication = one(store)
    targets = [
        PushTarget(repository=Reference.parse(f"{registry.host}/team/app"), tag="prod"),
        PushTarget(repository=Reference.parse(f"{registry.host}/other/app")),
    ]
    results = [
        RegistrySink(
            remote=client,
            store=store,
            repository=target.repository,
            tags=target.with_own(("3f2a", "v1", "latest")),
            near=(),
        ).publish(publication)
        for target in targets
    ]
    assert [result.tags for result in results] == [("3f2a", "prod", "v1", "latest"), ("3f2a", "v1", "latest")]
    known = known_repositories(store, registry.host)
    assert [each.repository for each in known] == ["other/app", "team/app"]


def test_repositories_of_the_same_registry_are_offered_for_mounting(
    store: Store, monkeypatch: pytest.MonkeyPatch, registry: Registry, client: RegistryClient
) -> None:
    offered: list[list[str]] = []

    def push_blobs(
        self: RegistryClient,
        reference: Reference,
        blobs: Sequence[Descriptor],
        *,
        mount_from: Sequence[Reference] = (),
        fetch: object = None,
    ) -> Pushed:
        offered.append([each.name for each in mount_from])
        return Pushed()

    monkeypatch.setattr(RegistryClient, "push_blobs", push_blobs)
    host = registry.host
    remember_repository(store, Reference.parse(f"{host}/earlier"))
    remember_repository(store, Reference.parse("elsewhere.example/x"))
    near = [Reference.parse(f"{host}/base:1"), Reference.parse("docker.io/library/debian:12")]
    for name in ("a", "b"):
        repository = Reference.parse(f"{host}/{name}")
        sink = RegistrySink(remote=client, store=store, repository=repository, tags=("1",), near=near)
        sink.publish(one(store))
    # Once for layers, once for configs.
    assert offered[::2] == [
        [f"{host}/base", f"{host}/earlier"],
        [f"{host}/base", f"{host}/a", f"{host}/earlier"],
    ]


def test_a_push_says_where_the_image_is(registry: Registry, client: RegistryClient, store: Store) -> None:
    publication = one(store)
    repository = Reference.parse(f"{registry.host}/team/app")
    pushed = RegistrySink(remote=client, store=store, repository=repository, tags=("1", "2")).publish(
        publication
    )
    assert pushed.references[0] == f"{registry.host}/team/app:1@{publication.digest}"


@pytest.mark.parametrize(
    ("text", "registry", "name", "tag"),
    [
        ("registry.example.org/team/train", None, "registry.example.org/team/train", None),
        ("registry.example.org/team/train:prod", None, "registry.example.org/team/train", "prod"),
        ("localhost/train", None, "localhost/train", None),
        ("localhost:5000/train:1", None, "localhost:5000/train", "1"),
        ("docker.io/me/train", "registry.example.org", "docker.io/me/train", None),
        ("train", "registry.example.org/team", "registry.example.org/team/train", None),
        ("sub/train:1", "registry.example.org/team", "registry.example.org/team/sub/train", "1"),
    ],
)
def test_where_a_push_goes(text: str, registry: str | None, name: str, tag: str | None) -> None:
    target = push_target(text, registry)
    assert (target.repository.name, target.repository.tag, target.tag) == (name, None, tag)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "train:1",
            "'train:1' names no registry to push to",
            "write docker.io/train:1 or HOST[:PORT]/train:1, or set registry (ENVBUILD_REGISTRY)",
        ),
        (
            "me/train",
            "'me/train' names no registry to push to",
            "write docker.io/me/train or HOST[:PORT]/me/train, or set registry (ENVBUILD_REGISTRY)",
        ),
        (
            "r.example/train@sha256:" + "0" * 64,
            f"a push goes to a repository, not to a digest: 'r.example/train@sha256:{'0' * 64}'",
            "write REPO or REPO:TAG",
        ),
    ],
)
def test_what_no_push_can_go_to(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        push_target(text, None)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_names_of_environments_become_those_of_repositories() -> None:
    names = ["Train", "a__b..c", "x-", "a.-_b"]
    assert [repository_name(name) for name in names] == ["train", "a_b.c", "x", "a.b"]


def test_known_repositories_are_few_and_the_latest_first(store: Store) -> None:
    for name in "abcdea":
        remember_repository(store, Reference.parse(f"r.example:5000/{name}"))
    known = [known_repository.repository for known_repository in known_repositories(store, "r.example:5000")]
    assert known == ["a", "e", "d", "c"]
    assert known_repositories(store, "other.example") == ()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'["../../x"]', b"\xff", b'{"a": 1}'])
def test_damaged_memory_of_repositories_is_forgotten(store: Store, content: bytes) -> None:
    (store.directory("metadata/pushed") / "r.example").write_bytes(content)
    assert known_repositories(store, "r.example") == ()
    remember_repository(store, Reference.parse("r.example/a"))
    assert [known_repository.repository for known_repository in known_repositories(store, "r.example")] == [
        "a"
    ]
