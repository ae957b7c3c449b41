"""What a push attaches: once, only to our images, and never at the price of the push."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.attest.attach import Attachments, attachments
from envbuild.attest.base import CYCLONEDX, SPDX, AttachedDocument
from envbuild.attest.sign import Signer, signature_tag
from envbuild.errors import BuildError, FetchError, PublishError, UsageError
from envbuild.images.sinks.registry import RegistrySink
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import IN_TOTO, Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Silent
from envbuild.registry.client import RegistryClient
from envbuild.registry.referrers import fallback_tag, referrers
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.registry import Registry, serve

NOON = 1_700_000_000.0
TYPES = (CYCLONEDX, SPDX, IN_TOTO)


def some_documents(image: Image, store: Store) -> Sequence[AttachedDocument]:
    return [
        AttachedDocument(
            name=f"{number}.json", media_type=kind, artifact_type=kind, content=image.digest.encode()
        )
        for number, kind in enumerate(TYPES)
    ]


@pytest.fixture(params=[True, False], ids=["api", "tag"])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    with serve(Registry(referrers=request.param)) as found:
        yield found


@pytest.fixture
def image(store: Store) -> Image:
    return put_image(store, [put_layer(store, [Item(name="etc/one")])])


def app(registry: Registry) -> Reference:
    return Reference.parse(f"{registry.host}/app")


def push(
    registry: Registry, client: RegistryClient, store: Store, publication: ImageSet, attach: Attachments
) -> None:
    sink = RegistrySink(remote=client, store=store, repository=app(registry), tags=["1"], attach=attach)
    sink.publish(publication)


def attacher(
    client: RegistryClient,
    store: Store,
    documents: Callable[[Image, Store], Sequence[AttachedDocument]] | None = some_documents,
    *,
    signer: Signer | None = None,
    now: float = NOON,
) -> Attachments:
    return Attachments(client, store, Silent(), clock=lambda: now, documents=documents, signer=signer)


def one(image: Image) -> ImageSet:
    return ImageSet(images=(image,), names=("app:1",))


def types(registry: Registry, client: RegistryClient, digest: str) -> list[str]:
    return [referrer.artifact_type for referrer in referrers(client, app(registry), digest)]


def test_every_document_is_attached_before_a_tag_is_there(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    push(registry, client, store, one(image), attacher(client, store))
    assert types(registry, client, image.digest) == list(TYPES)
    put = [path.rpartition("/")[2] for path in registry.paths("PUT") if "/manifests/" in path]
    assert (put[0], put[-1]) == (image.digest, "1")


def test_only_the_provenances_manifest_says_when(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    push(registry, client, store, one(image), attacher(client, store))
    found = referrers(client, app(registry), image.digest)
    assert [dict(each.annotations) for each in found] == [
        {"dev.envbuild.document": "0.json"},
        {"dev.envbuild.document": "1.json"},
        {
            "dev.envbuild.document": "2.json",
            "in-toto.io/predicate-type": "https://slsa.dev/provenance/v1",
            "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        },
    ]


def test_a_second_push_makes_no_document_and_writes_nothing(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    def never(image: Image, store: Store) -> Sequence[AttachedDocument]:
        raise AssertionError

    push(registry, client, store, one(image), attacher(client, store))
    registry.requests.clear()
    push(registry, client, store, one(image), attacher(client, store, never, now=NOON + 1))
    assert {method for method, _, _ in registry.requests} <= {"GET", "HEAD"}
    # The tag, and the list of referrers: a page each, or an answer that there is none and the tag's index.
    assert len(registry.requests) == (1 + len(TYPES) if registry.referrers else 3)


def test_what_was_pushed_without_gets_its_documents_later(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    RegistrySink(remote=client, store=store, repository=app(registry), tags=["1"]).publish(one(image))
    assert types(registry, client, image.digest) == []
    push(registry, client, store, one(image), attacher(client, store))
    assert types(registry, client, image.digest) == list(TYPES)


def test_a_push_that_broke_off_while_attaching_is_completed(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    def broken(image: Image, store: Store) -> Sequence[AttachedDocument]:
        raise FetchError("the line is cut")

    with pytest.raises(PublishError, match="the line is cut"):
        push(registry, client, store, one(image), attacher(client, store, broken))
    assert ("app", "1") not in registry.manifests
    push(registry, client, store, one(image), attacher(client, store))
    assert types(registry, client, image.digest) == list(TYPES)
    assert ("app", "1") in registry.manifests


def test_a_scan_that_somebody_attached_does_not_pass_for_ours(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    for kind in TYPES:
        theirs = {"artifactType": kind, "subject": {"digest": image.digest}, "annotations": {"by": "them"}}
        content = json.dumps({**theirs, "config": {}, "layers": []}).encode()
        registry.put_manifest("app", "scan", "application/vnd.oci.image.manifest.v1+json", content)
    push(registry, client, store, one(image), attacher(client, store))
    ours = [
        referrer
        for referrer in referrers(client, app(registry), image.digest)
        if referrer.annotation("by") is None
    ]
    assert [our.artifact_type for our in ours] == list(TYPES)


def test_each_platform_of_an_index_gets_its_own(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    other = put_image(store, [put_layer(store, [Item(name="etc/two")])])
    publication = put_index(store, [image, other], ["app:1"])
    push(registry, client, store, publication, attacher(client, store))
    for each in (image, other):
        assert types(registry, client, each.digest) == list(TYPES)
    assert types(registry, client, publication.digest) == []


def test_somebody_elses_image_stays_as_it_is(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    publication = one(replace(image, lock_digest="", definition_digest=""))
    push(registry, client, store, publication, attacher(client, store))
    assert types(registry, client, image.digest) == []
    assert ("app", fallback_tag(image.digest)) not in registry.manifests


def test_a_registry_that_takes_no_documents_gets_the_image(
    registry: Registry,
    client: RegistryClient,
    store: Store,
    image: Image,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.refused_types = TYPES
    with caplog.at_level(logging.WARNING):
        push(registry, client, store, one(image), attacher(client, store))
    assert ("app", "1") in registry.manifests
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("the registry takes no bill of materials and no provenance: ")
    assert said.endswith("answered HTTP 400")


def test_an_image_that_cannot_be_described_is_pushed(
    registry: Registry,
    client: RegistryClient,
    store: Store,
    image: Image,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def puzzled(image: Image, store: Store) -> Sequence[AttachedDocument]:
        raise BuildError("a layer is damaged")

    with caplog.at_level(logging.WARNING):
        push(registry, client, store, one(image), attacher(client, store, puzzled))
    assert ("app", "1") in registry.manifests
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"nothing is attached to {image.digest}: a layer is damaged"


def test_layers_that_are_not_here_are_fetched_to_be_described(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    (layer,) = image.layers
    content = store.blob(layer.digest).read_bytes()
    registry.put_blob(content)
    store.blob(layer.digest).unlink()
    asked: list[str] = []

    def fetch(blob: Descriptor) -> None:
        asked.append(blob.digest)
        store.add_blob(content)

    attacher(client, store)(app(registry), one(image), fetch)
    assert asked == [layer.digest]
    assert types(registry, client, image.digest) == list(TYPES)


def test_documents_are_begun_before_the_push_and_made_once(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    made: list[str] = []

    def counted(image: Image, store: Store) -> Sequence[AttachedDocument]:
        made.append(image.digest)
        return some_documents(image, store)

    attach = attacher(client, store, counted)
    elsewhere = Reference.parse(f"{registry.host}/elsewhere")
    attach.prepare(one(image))
    push(registry, client, store, one(image), attach)
    RegistrySink(remote=client, store=store, repository=elsewhere, tags=["1"], attach=attach).publish(
        one(image)
    )
    assert made == [image.digest]
    assert [referrer.artifact_type for referrer in referrers(client, elsewhere, image.digest)] == list(TYPES)


def test_an_image_that_has_been_described_in_vain_is_pushed(
    registry: Registry, client: RegistryClient, store: Store, image: Image
) -> None:
    """The error comes from the thread that began before the push."""

    def puzzled(image: Image, store: Store) -> Sequence[AttachedDocument]:
        raise BuildError("a layer is damaged")

    attach = attacher(client, store, puzzled)
    attach.prepare(one(image))
    push(registry, client, store, one(image), attach)
    assert ("app", "1") in registry.manifests
    assert types(registry, client, image.digest) == []


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    return path


def test_an_index_and_all_its_images_are_signed_before_the_tag(
    registry: Registry, client: RegistryClient, store: Store, image: Image, key: Path
) -> None:
    other = put_image(store, [put_layer(store, [Item(name="etc/two")])])
    publication = put_index(store, [image, other], ["app:1"])
    signing = attacher(client, store, None, signer=Signer.load(key, {}))
    push(registry, client, store, publication, signing)
    put = [path.rpartition("/")[2] for path in registry.paths("PUT") if "/manifests/" in path]
    digests = [image.digest, other.digest, publication.digest]
    assert put[-4:] == [*(signature_tag(digest) for digest in digests), "1"]
    registry.requests.clear()
    push(registry, client, store, publication, signing)
    assert registry.paths("PUT") == []


def test_a_registry_that_takes_no_signature_fails_the_push(
    client: RegistryClient, store: Store, image: Image, key: Path
) -> None:
    signing = attacher(client, store, None, signer=Signer.load(key, {}))
    with serve(Registry(refused_types=("",))) as registry, pytest.raises(PublishError, match="HTTP 400"):
        push(registry, client, store, one(image), signing)


def test_the_settings_say_what_is_attached(client: RegistryClient, store: Store, tmp_path: Path) -> None:
    def chosen(*, attest: bool, sign_key: Path | None) -> Attachments | None:
        return attachments(
            client, store, Silent(), attest=attest, sign_key=sign_key, environ={}, clock=lambda: NOON
        )

    assert chosen(attest=False, sign_key=None) is None
    assert chosen(attest=True, sign_key=None) is not None
    with pytest.raises(UsageError, match="can't read the key"):
        chosen(attest=False, sign_key=tmp_path / "none.pem")
