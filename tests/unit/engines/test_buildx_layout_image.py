"""An image that a builder exported: taken whole and checked, or refused with the store untouched."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from envbuild.engines.buildx.layout_image import store_layout_image
from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from envbuild.store.content import Store
from envbuild.store.leases import Lease, in_use
from tests.fakes.image import Item, compress, tar
from tests.fakes.layout import LAYER, Export
from tests.fakes.source import plan

PLAN = plan()


def taken(export: Export, store: Store, tmp_path: Path) -> Image:
    return store_layout_image(export.write(tmp_path / "image.tar"), PLAN, store)


@pytest.mark.parametrize("wrap", [False, True])
def test_blobs_are_kept_under_a_manifest_of_ours(wrap: bool, store: Store, tmp_path: Path) -> None:
    export = Export(wrap=wrap)
    image = taken(export, store, tmp_path)
    manifest = json.loads(store.blob(image.digest).read_bytes())
    assert manifest["annotations"] == {
        "dev.envbuild.definition": PLAN.definition_digest,
        "dev.envbuild.level": PLAN.level,
        "dev.envbuild.lock": PLAN.lock_digest,
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
    }
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in image.layers]
    for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
        data = store.blob(digest).read_bytes()
        assert data == export.blobs[f"blobs/sha256/{digest.removeprefix('sha256:')}"]
    assert [layer.name for layer in image.layers] == ["ADD base.tar.gz /", "RUN echo hello"]
    assert (image.lock_digest, image.level) == (PLAN.lock_digest, PLAN.level)
    assert list(store.directory("scratch").iterdir()) == []


def test_types_of_docker_and_all_compressions_become_ocis(store: Store, tmp_path: Path) -> None:
    kinds = [DOCKER_LAYER_GZIP, OCI_LAYER, OCI_LAYER_ZSTD]
    export = Export(
        layers=[(tar([Item(name=kind)]), kind) for kind in kinds],
        config_type=DOCKER_CONFIG,
        manifest_type=DOCKER_MANIFEST,
        config={"architecture": "amd64", "os": "linux"},
    )
    image = taken(export, store, tmp_path)
    manifest = json.loads(store.blob(image.digest).read_bytes())
    assert [each["mediaType"] for each in manifest["layers"]] == [OCI_LAYER_GZIP, OCI_LAYER, OCI_LAYER_ZSTD]
    assert manifest["config"]["mediaType"] == OCI_CONFIG
    assert [layer.name for layer in image.layers] == ["", "", ""]


def test_what_is_used_is_named_before_it_is_there(store: Store, tmp_path: Path) -> None:
    archive = Export().write(tmp_path / "image.tar")
    with Lease(store) as lease:
        image = store_layout_image(archive, PLAN, store, lease=lease)
        with in_use(store) as used:
            names = used.names
    digests = [image.digest, image.config_digest, *(layer.digest for layer in image.layers)]
    assert names == {f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in digests}


def other_bytes(export: Export) -> None:
    """The first layer's blob is not what its name says."""
    kind = export.layers[0][1]
    good = compress(LAYER, kind)
    export.blobs[f"blobs/sha256/{digest_bytes(good).removeprefix('sha256:')}"] = b"x" * len(good)


def other_size(export: Export) -> None:
    good = compress(LAYER, export.layers[0][1])
    export.blobs[f"blobs/sha256/{digest_bytes(good).removeprefix('sha256:')}"] = good + b"x"


def other_diff_id(export: Export) -> None:
    export.config["rootfs"] = {"diff_ids": [digest_bytes(b"a"), digest_bytes(b"b")]}


def too_few_diff_ids(export: Export) -> None:
    export.config["rootfs"] = {"diff_ids": [digest_bytes(LAYER)]}


def other_platform(export: Export) -> None:
    export.config["architecture"] = "arm64"


def only_another_platform(export: Export) -> None:
    export.platform = {"os": "linux", "architecture": "arm64"}


def no_image(export: Export) -> None:
    export.config_type = "application/vnd.example.model.config"


def unknown_layer(export: Export) -> None:
    export.layers = [(LAYER, OCI_LAYER_GZIP)]
    export.files["index.json"] = json.dumps(
        {"manifests": [export.blob(json.dumps({
            "config": {"mediaType": OCI_CONFIG, "digest": digest_bytes(b""), "size": 0},
            "layers": [{"mediaType": "x/y", "digest": digest_bytes(b""), "size": 0}],
        }).encode(), OCI_MANIFEST)]}
    ).encode()  # fmt: skip


def two_images(export: Export) -> None:
    entries = [export.blob(text, OCI_MANIFEST) for text in (b"{}", b"{ }")]
    export.files["index.json"] = json.dumps({"manifests": entries}).encode()


def no_index(export: Export) -> None:
    export.files["index.json"] = b"[]"


def deep(export: Export) -> None:
    export.files["index.json"] = b"[" * 100_000


def endless(export: Export) -> None:
    index = b'{"manifests": []}'
    for _ in range(5):
        index = json.dumps({"manifests": [export.blob(index, OCI_INDEX)]}).encode()
    export.files["index.json"] = index


def missing(export: Export) -> None:
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_bytes(b"nowhere"), "size": 7}
    export.files["index.json"] = json.dumps({"manifests": [entry]}).encode()


def huge_index(export: Export) -> None:
    export.files["index.json"] = b" " * (5 << 20)


def many_files(export: Export) -> None:
    export.files.update({f"blobs/{number}": b"" for number in range(5000)})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_bytes, "is damaged"),
        (other_size, "has not the size"),
        (other_diff_id, "but its config says"),
        (too_few_diff_ids, "names 1 layers, the manifest has 2"),
        (other_platform, "is for linux/arm64, not linux/amd64"),
        (only_another_platform, "0 images of it are for linux/amd64 (there are: linux/arm64)"),
        (no_image, "not an image"),
        (unknown_layer, "which can't be used"),
        (two_images, "2 images of it are for linux/amd64"),
        (no_index, "not a JSON object"),
        (deep, "not valid JSON"),
        (endless, "indexes within indexes"),
        (missing, "lacks blobs/sha256/"),
        (huge_index, "index.json is larger than"),
        (many_files, "more than 4096 files"),
    ],
)
def test_a_spoilt_export_is_refused(
    spoil: Callable[[Export], None], words: str, store: Store, tmp_path: Path
) -> None:
    export = Export()
    spoil(export)
    with pytest.raises(BuildError) as caught:
        taken(export, store, tmp_path)
    assert words in caught.value.message
    assert list(store.directory("scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (Item(name="x", type=tarfile.SYMTYPE, link="/etc/passwd"), "'x', which is no plain file of an image"),
        (Item(name="x", type=tarfile.LNKTYPE, link="index.json"), "'x', which is no plain file of an image"),
        (Item(name="x", type=tarfile.CHRTYPE), "'x', which is no plain file of an image"),
        (Item(name="./oci-layout", content=b"twice"), "'oci-layout' twice"),
    ],
)
def test_what_is_no_plain_file_is_refused(member: Item, words: str, store: Store, tmp_path: Path) -> None:
    path = Export().write(tmp_path / "image.tar")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(member.name)
        info.type, info.linkname, info.size = member.type, member.link, len(member.content)
        archive.addfile(info, io.BytesIO(member.content))
    with pytest.raises(BuildError, match=words):
        store_layout_image(path, PLAN, store)


def test_a_negative_size_ends(store: Store, tmp_path: Path) -> None:
    """Such a header makes some versions of tarfile go round in circles."""
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("index.json")
        info.pax_headers = {"size": "-1024"}
        archive.addfile(info)
    with pytest.raises(BuildError):
        store_layout_image(path, PLAN, store)


@pytest.mark.parametrize("length", [0, 100, 600, 1500])
def test_a_cut_archive_is_refused(length: int, store: Store, tmp_path: Path) -> None:
    path = Export().write(tmp_path / "image.tar")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BuildError):
        store_layout_image(path, PLAN, store)
