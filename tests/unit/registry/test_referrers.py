"""What refers to an image: by the registry's own list, and by the tag of registries without one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from envbuild.errors import FetchError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient
from envbuild.registry.referrers import AttachedArtifact, artifact_manifest, attach, fallback_tag, referrers
from envbuild.store.content import Store
from tests.fakes.registry import Registry, serve

NOTE = AttachedArtifact(
    name="note.txt",
    artifact_type="application/vnd.example.note",
    media_type="text/plain",
    content=b"hello",
    annotations=(("org.example.when", "today"),),
)
BILL = AttachedArtifact(
    name="bill.json",
    artifact_type="application/vnd.example.bill",
    media_type="application/json",
    content=b"{}",
)
IMAGE = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
SUBJECT = Descriptor(digest=digest_bytes(IMAGE), size=len(IMAGE), media_type=OCI_MANIFEST)
TAG = fallback_tag(SUBJECT.digest)


@pytest.fixture(params=[True, False], ids=["api", "tag"])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    with serve(Registry(referrers=request.param)) as found:
        found.put_manifest("app", "1", OCI_MANIFEST, IMAGE)
        yield found


@pytest.fixture
def old() -> Iterator[Registry]:
    """A registry without a list of referrers."""
    with serve() as found:
        yield found


def app(registry: Registry) -> Reference:
    return Reference.parse(f"{registry.host}/app")


def put_index(registry: Registry, entries: Sequence[object]) -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    registry.put_manifest("app", TAG, OCI_INDEX, index)


def listed(registry: Registry) -> list[str]:
    """Digests of the index under the fallback tag."""
    return [load["digest"] for load in json.loads(registry.manifests["app", TAG][1])["manifests"]]


def test_what_is_attached_is_found_with_its_type_and_annotations(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    assert referrers(client, app(registry), SUBJECT.digest) == ()
    note, bill = attach(client, store, app(registry), SUBJECT, [NOTE, BILL])
    found = referrers(client, app(registry), SUBJECT.digest)
    assert [(each.digest, each.artifact_type) for each in found] == [
        (note, NOTE.artifact_type),
        (bill, BILL.artifact_type),
    ]
    assert found[0].annotations == NOTE.annotations
    assert found[0].annotation("org.example.when") == "today"
    assert [
        referrer.digest for referrer in referrers(client, app(registry), SUBJECT.digest, BILL.artifact_type)
    ] == [bill]
    assert (("app", TAG) in registry.manifests) is not registry.referrers


def test_the_manifest_is_an_artifact_of_the_image_spec(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    (digest,) = attach(client, store, app(registry), SUBJECT, [NOTE])
    media_type, content = registry.manifests["app", digest]
    assert media_type == OCI_MANIFEST
    assert content == artifact_manifest(SUBJECT, NOTE, digest_bytes(b"{}"), digest_bytes(b"hello"))
    assert json.loads(content) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.note",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [
            {
                "mediaType": "text/plain",
                "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
                "size": 5,
                "annotations": {"org.opencontainers.image.title": "note.txt"},
            }
        ],
        "subject": {"mediaType": OCI_MANIFEST, "digest": SUBJECT.digest, "size": len(IMAGE)},
        "annotations": {"org.example.when": "today"},
    }
    assert registry.blobs[digest_bytes(b"hello")] == b"hello"
    assert registry.blobs[digest_bytes(b"{}")] == b"{}"


def test_the_same_content_is_attached_once_whatever_its_annotations(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    first = attach(client, store, app(registry), SUBJECT, [NOTE, BILL])
    later = AttachedArtifact(
        name=NOTE.name,
        artifact_type=NOTE.artifact_type,
        media_type=NOTE.media_type,
        content=NOTE.content,
        annotations=(("org.example.when", "tomorrow"),),
    )
    registry.requests.clear()
    assert attach(client, store, app(registry), SUBJECT, [later, BILL]) == first
    assert registry.paths("PUT") == registry.paths("POST") == []
    assert len(referrers(client, app(registry), SUBJECT.digest)) == 2


def test_another_content_of_the_same_type_is_attached_too(
    registry: Registry, client: RegistryClient, store: Store
) -> None:
    other = AttachedArtifact(
        name=NOTE.name, artifact_type=NOTE.artifact_type, media_type=NOTE.media_type, content=b"bye"
    )
    first = attach(client, store, app(registry), SUBJECT, [NOTE])
    second = attach(client, store, app(registry), SUBJECT, [other])
    assert {referrer.digest for referrer in referrers(client, app(registry), SUBJECT.digest)} == {
        *first,
        *second,
    }


def test_what_others_listed_under_the_tag_stays_as_it_is(
    old: Registry, client: RegistryClient, store: Store
) -> None:
    other = {
        "mediaType": OCI_MANIFEST,
        "digest": digest_bytes(b"other"),
        "size": 5,
        "artifactType": "application/vnd.other",
        "annotations": {"a": "b"},
        "unknown": [1, None],
    }
    put_index(old, [other])
    (digest,) = attach(client, store, app(old), SUBJECT, [NOTE])
    assert json.loads(old.manifests["app", TAG][1])["manifests"][0] == other
    assert listed(old) == [digest_bytes(b"other"), digest]


class Racing(RegistryClient):
    """Somebody else writes the fallback index after ours, as often as ``others`` says."""

    others = 0
    registry: Registry

    def push_manifest(
        self, reference: Reference, content: bytes, media_type: str, target: str | None = None
    ) -> str:
        digest = super().push_manifest(reference, content, media_type, target)
        if target == TAG and self.others:
            self.others -= 1
            name = digest_bytes(str(self.others).encode())
            put_index(self.registry, [{"mediaType": OCI_MANIFEST, "digest": name, "size": 1}])
        return digest


def race(old: Registry, store: Store, tmp_path: Path, others: int) -> Racing:
    racing = Racing(store, Silent(), RegistryCredentials({"HOME": str(tmp_path)}), sleep=lambda seconds: None)
    racing.registry, racing.others = old, others
    return racing


def test_a_lost_race_for_the_tag_is_noticed_and_run_again(
    old: Registry, store: Store, tmp_path: Path
) -> None:
    with race(old, store, tmp_path, 2) as client:
        (digest,) = attach(client, store, app(old), SUBJECT, [NOTE])
    assert listed(old) == [digest_bytes(b"0"), digest]


def test_a_race_that_never_ends_is_given_up(old: Registry, store: Store, tmp_path: Path) -> None:
    with (
        race(old, store, tmp_path, 100) as client,
        pytest.raises(FetchError, match="others keep changing the list of what is attached") as error,
    ):
        attach(client, store, app(old), SUBJECT, [NOTE])
    assert error.value.hint == "push again: what is there already stays"


def test_an_interrupted_attachment_is_completed(old: Registry, client: RegistryClient, store: Store) -> None:
    """The artifact is there, but its entry under the tag is not."""
    (digest,) = attach(client, store, app(old), SUBJECT, [NOTE])
    del old.manifests["app", TAG]
    assert attach(client, store, app(old), SUBJECT, [NOTE]) == (digest,)
    assert listed(old) == [digest]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[]", "not the form of a list"),
        (b'{"manifests": {"a": 1}}', "not the form of a list"),
        (b'{"manifests": [1]}', "something attached has no digest, size and type"),
        (b'{"manifests": [{"digest": "sha256:1", "size": 1, "mediaType": "x"}]}', "has no digest"),
    ],
)
def test_a_list_of_another_form_is_refused(
    old: Registry, client: RegistryClient, content: bytes, words: str
) -> None:
    old.manifests["app", TAG] = (OCI_INDEX, content)
    with pytest.raises(FetchError, match=words):
        referrers(client, app(old), SUBJECT.digest)


def test_a_list_without_end_is_refused(old: Registry, client: RegistryClient, store: Store) -> None:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest_bytes(str(number).encode()), "size": 1}
        for number in range(1000)
    ]
    put_index(old, entries)
    assert len(referrers(client, app(old), SUBJECT.digest)) == 1000
    with pytest.raises(FetchError, match="more than 1000 artifacts would refer to it"):
        attach(client, store, app(old), SUBJECT, [NOTE])
    put_index(old, [*entries, entries[0]])
    with pytest.raises(FetchError, match="more than 1000 artifacts refer to it"):
        referrers(client, app(old), SUBJECT.digest)


def test_pages_without_end_are_refused(client: RegistryClient, store: Store) -> None:
    with serve(Registry(referrers=True)) as registry:
        for number in range(101):
            document = {"artifactType": "x", "number": number, "subject": {"digest": SUBJECT.digest}}
            content = json.dumps(document).encode()
            registry.manifests["app", digest_bytes(content)] = (OCI_MANIFEST, content)
        with pytest.raises(FetchError, match="has more than 100 pages"):
            referrers(client, app(registry), SUBJECT.digest)


def test_a_tag_that_names_an_image_is_no_list(old: Registry, client: RegistryClient) -> None:
    old.put_manifest("app", TAG, OCI_MANIFEST, IMAGE)
    with pytest.raises(FetchError, match=r"no list of what refers to sha256:[0-9a-f]{64}, but application"):
        referrers(client, app(old), SUBJECT.digest)


def test_a_registry_that_refuses_is_asked_no_further(client: RegistryClient) -> None:
    with serve(Registry(auth="basic", user=("me", "secret"))) as registry:
        with pytest.raises(FetchError, match="HTTP 401"):
            referrers(client, app(registry), SUBJECT.digest)
        assert registry.paths() == [f"/v2/app/referrers/{SUBJECT.digest}"]
