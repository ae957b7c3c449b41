"""``push``, ``pull`` and ``copy`` between real registries, layouts and archives; skopeo as the stranger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envbuild.images.sinks.layout import LayoutSink
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import ImageSet
from envbuild.oci.manifest import OCI_INDEX, OCI_MANIFEST
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.registry_server import RegistryServer, needs_registry, serve
from tests.integration.driver import Ended, Machine, a_world, demo
from tests.integration.registry import skopeo, small_image

pytestmark = [needs_registry()]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve(tmp_path_factory.mktemp("one")) as server:
        yield server


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve(tmp_path_factory.mktemp("two")) as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A store that no command knows: what is in it comes from elsewhere."""
    return Store(tmp_path / "source")


def layout(store: Store, publication: ImageSet, directory: Path) -> Path:
    LayoutSink(directory, store, Silent()).publish(publication)
    return directory


def answer(ended: Ended) -> Any:
    assert ended.status == 0, ended.stderr
    return json.loads(ended.stdout)


def two_platforms(store: Store) -> ImageSet:
    """An index as BuildKit writes one: two platforms that share a layer, and an attestation."""
    shared = put_layer(store, [Item(name="shared", content=b"s" * 5000)])
    images = [
        put_image(store, [shared, put_layer(store, [Item(name=str(each))])], {}, each)
        for each in (LINUX_AMD64, LINUX_ARM64)
    ]
    statement = store.add_blob(b'{"_type": "https://in-toto.io/Statement/v0.1"}')
    config = store.add_blob(b'{"architecture": "unknown", "os": "unknown"}')
    attestation = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 44},
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement, "size": 46}],
        }
    ).encode()
    publication = put_index(store, images, ["team/app:1"])
    assert publication.index_digest is not None
    document = json.loads(store.blob(publication.index_digest).read_bytes())
    document["manifests"].append(
        {
            "mediaType": OCI_MANIFEST,
            "digest": store.add_blob(attestation),
            "size": len(attestation),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
    )
    # Spaces and an unknown key: bytes that nobody would write the same way again.
    content = json.dumps({**document, "x-unknown": 1}, indent=3).encode()
    return ImageSet(images=tuple(images), names=("team/app:1",), index_digest=store.add_blob(content))


def in_layout(store: Store, tmp_path: Path, seed: int = 0) -> tuple[str, str]:
    """A small image in a layout: its digest and what names it."""
    image = small_image(store, seed)
    where = layout(store, ImageSet(images=(image,), names=("team/app:1",)), tmp_path / f"layout-{seed}")
    return image.digest, f"oci:{where}:team/app:1"


def test_a_layout_is_pushed_pulled_and_pushed_on_byte_for_byte(
    one: RegistryServer, two: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    digest, reference = in_layout(source, tmp_path)

    pushed = machine.run("push", reference, f"{one.host}/a/app")
    assert pushed.reference == f"{one.host}/a/app:1@{digest}"
    assert one.complete("a/app", "1")
    pulled = machine.run("pull", f"{one.host}/a/app:1")
    assert pulled.reference == f"{one.host}/a/app:1@{digest}"
    # By now it has a name in the store, so no registry is asked for it.
    again = machine.run("push", f"{one.host}/a/app:1", f"{two.host}/b/app:2")
    assert again.reference == f"{two.host}/b/app:2@{digest}"
    assert two.manifest("b/app", "2") == source.blob(digest).read_bytes()
    assert two.complete("b/app", "2")
    assert machine.leftovers() == []


def test_what_the_registry_has_is_neither_fetched_nor_sent(
    one: RegistryServer, two: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    digest, reference = in_layout(source, tmp_path, 1)
    size = sum(path.stat().st_size for path in source.root.glob("blobs/sha256/*"))
    size -= source.blob(digest).stat().st_size
    for server in (one, two):
        skopeo("copy", "--dest-tls-verify=false", reference, f"docker://{server.host}/there:1")

    copied = answer(machine.run("copy", f"{one.host}/there:1", f"{two.host}/there:2", "--json"))

    assert copied["digest"] == digest
    assert [(each["sent"], each["present"]) for each in copied["pushed"]] == [(0, size)]
    assert two.manifest("there", "2") == source.blob(digest).read_bytes()
    # The manifest alone came here.
    assert [path.name for path in machine.cache.glob("blobs/sha256/*")] == [digest[7:]]


def test_blobs_of_the_same_registry_are_mounted(
    one: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    digest, reference = in_layout(source, tmp_path, 2)
    skopeo("copy", "--dest-tls-verify=false", reference, f"docker://{one.host}/from/app:1")

    copied = answer(machine.run("copy", f"{one.host}/from/app:1", f"{one.host}/to/app", "--json"))

    (pushed,) = copied["pushed"]
    assert pushed["references"] == [f"{one.host}/to/app:1@{digest}"]
    assert (pushed["sent"], pushed["present"]) == (0, 0)
    assert pushed["mounted"] == copied["size"]
    assert one.complete("to/app", "1")


def test_an_index_keeps_all_it_lists_byte_for_byte(
    one: RegistryServer, two: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    publication = two_platforms(source)
    index = source.blob(publication.digest).read_bytes()
    where = layout(source, publication, tmp_path / "layout")
    # The publisher knows images only; the attestation is put there by hand.
    for blob in source.root.glob("blobs/sha256/*"):
        (where / "blobs" / "sha256" / blob.name).write_bytes(blob.read_bytes())

    machine.run("copy", f"oci:{where}", f"{one.host}/multi/app:1").reference  # noqa: B018
    machine.run("copy", f"{one.host}/multi/app:1", f"{two.host}/multi/app:1").reference  # noqa: B018
    archive = tmp_path / "out.tar"
    copied = machine.run("copy", f"{two.host}/multi/app:1", f"oci-archive:{archive}")
    assert copied.status == 0, copied.stderr
    back = machine.run("copy", f"oci-archive:{archive}:{two.host}/multi/app:1", f"{one.host}/multi/back")

    assert back.digest == publication.digest == digest_bytes(index)
    for server, repository in ((one, "multi/app"), (two, "multi/app"), (one, "multi/back")):
        assert server.manifest(repository, "1") == index
        assert server.complete(repository, "1")


def test_one_platform_of_an_index(
    one: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    publication = two_platforms(source)
    where = layout(source, publication, tmp_path / "layout")

    copied = machine.run("copy", f"oci:{where}", f"{one.host}/arm/app:1", "-p", "linux/arm64")
    assert copied.digest == publication.images[1].digest
    pulled = answer(machine.run("pull", f"oci:{where}", "-p", "linux/amd64", "--json"))
    assert [each["platform"] for each in pulled["images"]] == ["linux/amd64"]
    assert pulled["reference"] == publication.images[0].digest
    docker = machine.run("copy", f"oci:{where}", f"docker-archive:{tmp_path / 'all.tar'}")
    docker.failed(7, "linux/amd64, linux/arm64", "--platform")


def test_an_artifact_that_is_no_image_is_copied(
    one: RegistryServer, two: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    chart = source.add_blob(b"a chart, not a tar")
    config = source.add_blob(b"{}")
    content = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.cncf.helm.config.v1+json",
            "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": config, "size": 2},
            "layers": [
                {
                    "mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                    "digest": chart,
                    "size": 18,
                }
            ],
        }
    ).encode()
    where = tmp_path / "chart"
    (where / "blobs" / "sha256").mkdir(parents=True)
    for each in (chart, config, source.add_blob(content)):
        (where / "blobs" / "sha256" / each[7:]).write_bytes(source.blob(each).read_bytes())
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_bytes(content), "size": len(content)}
    (where / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    )

    machine.run("push", f"oci:{where}", f"{one.host}/charts/demo:0.1.0").reference  # noqa: B018
    copied = machine.run("copy", f"{one.host}/charts/demo:0.1.0", f"{two.host}/charts/demo")

    assert copied.reference == f"{two.host}/charts/demo:0.1.0@{digest_bytes(content)}"
    assert two.manifest("charts/demo", "0.1.0") == content
    assert two.complete("charts/demo", "0.1.0")
    machine.run("pull", f"{one.host}/charts/demo:0.1.0").failed(6, "a Helm chart, not an image")


def test_what_skopeo_wrote_is_pulled_and_what_we_write_skopeo_reads(
    one: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    digest, reference = in_layout(source, tmp_path, 3)
    config = json.loads(source.blob(digest).read_bytes())["config"]["digest"]
    skopeo(
        "copy", "-q", "--format", "v2s2", "--dest-tls-verify=false", reference, f"docker://{one.host}/sko:1"
    )
    docker = one.manifest("sko", "1")
    assert docker is not None

    pulled = machine.run("pull", f"{one.host}/sko:1", "-o", f"oci:{tmp_path / 'back'}")
    assert pulled.digest == digest_bytes(docker)
    # Docker's own media types stay, although skopeo itself takes only OCI's from a layout.
    back = machine.run("copy", f"oci:{tmp_path / 'back'}:{one.host}/sko:1", f"{one.host}/sko:2")
    assert back.digest == digest_bytes(docker)
    machine.run("copy", reference, f"oci:{tmp_path / 'back'}:mine:1")
    told = json.loads(skopeo("inspect", f"oci:{tmp_path / 'back'}:mine:1"))
    assert told["Digest"] == digest
    skopeo("copy", reference, f"docker-archive:{tmp_path / 'skopeo.tar'}:team/app:1")
    pushed = machine.run("push", f"docker-archive:{tmp_path / 'skopeo.tar'}", f"{one.host}/saved/app:1")
    document = json.loads(one.manifest("saved/app", "1") or b"")
    assert pushed.digest.startswith("sha256:")
    # The config is the image: layers are as they lay in the archive, uncompressed.
    assert document["config"]["digest"] == config
    assert {each["mediaType"] for each in document["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    skopeo("copy", "--src-tls-verify=false", f"docker://{one.host}/saved/app:1", f"dir:{tmp_path / 'dir'}")


def test_referrers_travel_with_the_image(
    one: RegistryServer, two: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    digest, reference = in_layout(source, tmp_path, 4)
    machine.run("push", reference, f"{one.host}/signed/app").reference  # noqa: B018
    empty, bill = source.add_blob(b"{}"), source.add_blob(b'{"bomFormat": "CycloneDX"}')
    where = tmp_path / "bill"
    (where / "blobs" / "sha256").mkdir(parents=True)
    content = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.cyclonedx+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": "application/vnd.cyclonedx+json", "digest": bill, "size": 26}],
            "subject": {
                "mediaType": OCI_MANIFEST,
                "digest": digest,
                "size": source.blob(digest).stat().st_size,
            },
        }
    ).encode()
    for each in (empty, bill, source.add_blob(content)):
        (where / "blobs" / "sha256" / each[7:]).write_bytes(source.blob(each).read_bytes())
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_bytes(content), "size": len(content)}
    (where / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    machine.run("push", f"oci:{where}", f"{one.host}/signed/app:bill").reference  # noqa: B018
    # This registry keeps no list of referrers, so a client does, under a tag.
    listing = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{**entry, "artifactType": "application/vnd.cyclonedx+json"}],
        }
    ).encode()
    (where / "blobs" / "sha256" / digest_bytes(listing)[7:]).write_bytes(listing)
    top = {"mediaType": OCI_INDEX, "digest": digest_bytes(listing), "size": len(listing)}
    (where / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    tag = digest.replace(":", "-")
    machine.run("push", f"oci:{where}", f"{one.host}/signed/app:{tag}").reference  # noqa: B018

    copied = answer(machine.run("copy", f"{one.host}/signed/app:1", f"{two.host}/signed/app", "--json"))
    alone = answer(
        machine.run("copy", f"{one.host}/signed/app:1", f"{two.host}/bare", "--no-referrers", "--json")
    )

    assert (copied["referrers"], alone["referrers"]) == (1, 0)
    assert two.manifest("signed/app", digest_bytes(content)) == content
    assert two.complete("signed/app", tag)
    assert two.manifest("bare", tag) is None


def test_errors_say_what_was_tried(
    one: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    _, reference = in_layout(source, tmp_path)

    machine.run("push", f"{one.host}/none/app:1", f"{one.host}/x:1").failed(6, "none/app:1", "HTTP 404")
    machine.run("push", "sha256:" + "0" * 64, f"{one.host}/x:1").failed(6, "the store lacks sha256:000")
    machine.run("push", reference, "app:1").failed(2, "names no registry to push to")
    machine.run("push", reference + "x", f"{one.host}/x:1").failed(6, "no image", "team/app:1")
    machine.run("push", "demo:1", f"{one.host}/x:1", "--offline").failed(2, "offline")
    machine.run("copy", "demo:1", "oci:out", "--offline").failed(
        6, "the store has no image of that name", "offline"
    )
    machine.run("copy", reference, "docker-daemon:x").failed(2, "envbuild pull --load")
    machine.run("copy", reference, "127.0.0.1:1/x:1").failed(7, "127.0.0.1:1")
    machine.run("pull", f"oci:{tmp_path / 'none'}").failed(6, "is no OCI layout")
    assert machine.leftovers() == []


def test_a_pulled_image_outlives_a_prune_and_goes_with_its_limit(
    one: RegistryServer, machine: Machine, source: Store, tmp_path: Path
) -> None:
    publication = two_platforms(source)
    where = layout(source, publication, tmp_path / "layout")
    for blob in source.root.glob("blobs/sha256/*"):
        (where / "blobs" / "sha256" / blob.name).write_bytes(blob.read_bytes())
    machine.run("push", f"oci:{where}", f"{one.host}/kept:1").reference  # noqa: B018
    machine.run("pull", f"{one.host}/kept:1").reference  # noqa: B018

    assert machine.run("cache", "prune").status == 0
    offline = machine.run("copy", f"{one.host}/kept:1", f"oci:{tmp_path / 'kept'}", "--offline")
    assert offline.status == 0, offline.stderr
    assert machine.run("cache", "prune", "--keep-last", "0").status == 0
    machine.run("copy", f"{one.host}/kept:1", "oci:gone", "--offline").failed(6, "offline")
    assert list(machine.cache.glob("blobs/sha256/*")) == []
    assert list(machine.cache.glob("names/*")) == []


def test_a_build_is_known_by_the_names_that_it_got(one: RegistryServer, tmp_path: Path) -> None:
    machine = a_world(tmp_path).machine
    machine.write("environment.yaml", demo())
    built = machine.run("build", "-t", "team/demo:1", "environment.yaml")
    identity = answer(machine.run("build", "environment.yaml", "--json"))["reference"]

    for name in ("team/demo:1", identity, identity.partition("@")[0], built.digest):
        copied = machine.run("copy", name, "oci:out", "--offline")
        assert copied.status == 0, copied.stderr
    pushed = machine.run("push", identity, f"{one.host}/team/demo", f"{one.host}/team/demo:latest")

    tag = identity.partition("@")[0].partition(":")[2]
    assert pushed.stdout.splitlines() == [
        f"{one.host}/team/demo:{tag}@{built.digest}",
        f"{one.host}/team/demo:latest@{built.digest}",
    ]
    assert one.complete("team/demo", tag)
    assert one.complete("team/demo", "latest")
    # The store knows it by these names, too.
    again = machine.run("copy", f"{one.host}/team/demo:latest", "oci:again", "--offline")
    assert again.status == 0, again.stderr
