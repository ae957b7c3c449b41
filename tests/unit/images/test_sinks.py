from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from envbuild.errors import PublishError, UsageError
from envbuild.images.sinks.choose import output_sink
from envbuild.oci.digest import digest_file
from envbuild.oci.image import ImageSet
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, put_image, put_index, put_layer


def _publication(store: Store, text: bytes = b"hello\n", *names: str) -> ImageSet:
    layers = [
        put_layer(store, [directory("opt"), Item(name="opt/hello", content=text)]),
        put_layer(store, [Item(name="run.sh", content=b"#!/bin/sh\n", mode=0o755)]),
    ]
    return ImageSet(images=(put_image(store, layers, platform=LINUX_AMD64),), names=names or ("demo:one",))


def _publish(store: Store, output: str, publication: ImageSet) -> str:
    return output_sink(output, store, Silent()).publish(publication)


def _several(store: Store) -> ImageSet:
    layer = put_layer(store, [Item(name="a", content=b"a")])
    images = [put_image(store, [layer], platform=each) for each in (LINUX_AMD64, LINUX_ARM64)]
    return put_index(store, images, ["demo:two"])


@pytest.mark.parametrize("output", ["", "oci", "oci:", "tar:x", "docker:x", "x.tar"])
def test_an_output_of_another_form_is_a_usage_error_that_lists_the_forms(store: Store, output: str) -> None:
    with pytest.raises(UsageError, match="not an output") as caught:
        output_sink(output, store, Silent())
    assert caught.value.hint == "known outputs: oci:DIR, oci-archive:FILE, docker-archive:FILE"


def test_an_archive_can_not_be_a_directory_nor_a_layout_a_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="an archive needs a file"):
        output_sink(f"oci-archive:{tmp_path}", store, Silent())
    with pytest.raises(UsageError, match="a layout needs a directory"):
        output_sink(f"oci:{tmp_path}/file", store, Silent())


def test_a_layout_names_the_image_and_holds_exactly_its_blobs(store: Store, tmp_path: Path) -> None:
    publication = _publication(store)
    image = publication.images[0]
    where = tmp_path / "layout"
    assert _publish(store, f"oci:{where}", publication) == f"oci:{where}"
    assert json.loads((where / "index.json").read_bytes()) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.digest,
                "size": image.size,
                "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {
                    "org.opencontainers.image.ref.name": "demo:one",
                    "io.containerd.image.name": "docker.io/library/demo:one",
                },
            }
        ],
    }
    assert (where / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    found = sorted("sha256:" + path.name for path in (where / "blobs/sha256").iterdir())
    assert found == sorted({image.digest, image.config_digest, *(layer.digest for layer in image.layers)})
    assert all(digest_file(where / "blobs/sha256" / each[7:]) == each for each in found)


def test_a_layout_keeps_what_others_put_there_and_moves_its_own_name(store: Store, tmp_path: Path) -> None:
    where = tmp_path / "layout"
    for text, name in ((b"1", "demo:one"), (b"2", "other:x"), (b"3", "demo:one")):
        _publish(store, f"oci:{where}", _publication(store, text, name))
    entries = json.loads((where / "index.json").read_bytes())["manifests"]
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries] == [
        "other:x",
        "demo:one",
    ]
    assert entries[1]["digest"] == _publication(store, b"3").digest


def test_a_layout_with_several_platforms_names_their_index(store: Store, tmp_path: Path) -> None:
    publication = _several(store)
    _publish(store, f"oci:{tmp_path}/layout", publication)
    entries = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in entries] == [publication.index_digest]


def test_a_directory_with_other_things_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(PublishError, match="neither empty nor an OCI layout"):
        _publish(store, f"oci:{tmp_path}/home", _publication(store))
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("text", ["[]", "{", '{"manifests": [1]}', '{"manifests": {}}'])
def test_a_damaged_index_is_named(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/index.json").write_text(text)
    with pytest.raises(PublishError, match=r"index\.json is not the index of an OCI layout"):
        _publish(store, f"oci:{tmp_path}/layout", _publication(store))
    assert (tmp_path / "layout/index.json").read_text() == text


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_an_archive_is_a_pure_function_of_the_image(store: Store, tmp_path: Path, scheme: str) -> None:
    publication = _publication(store)
    _publish(store, f"{scheme}:{tmp_path}/one.tar", publication)
    previous = os.umask(0o077)
    try:
        _publish(store, f"{scheme}:{tmp_path}/deep/two.tar", publication)
    finally:
        os.umask(previous)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "deep/two.tar").read_bytes()
    assert (tmp_path / "deep/two.tar").stat().st_mode & 0o777 == 0o644
    with tarfile.open(tmp_path / "one.tar") as archive:
        members = archive.getmembers()
    assert {(member.mode, member.uid, member.gid, member.mtime, member.uname) for member in members} == {
        (0o644, 0, 0, 0, "")
    }
    assert [member.name for member in members][-1] == (
        "oci-layout" if scheme == "oci-archive" else "manifest.json"
    )
    assert not [member.name for member in members if member.name.startswith(".")]


def test_a_docker_archive_points_at_the_blobs(store: Store, tmp_path: Path) -> None:
    publication = _publication(store)
    image = publication.images[0]
    _publish(store, f"docker-archive:{tmp_path}/one.tar", publication)
    with tarfile.open(tmp_path / "one.tar") as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        manifest = json.load(file)
        names = archive.getnames()
    assert manifest == [
        {
            "Config": f"blobs/sha256/{image.config_digest[7:]}",
            "RepoTags": ["demo:one"],
            "Layers": [f"blobs/sha256/{layer.digest[7:]}" for layer in image.layers],
        }
    ]
    assert {manifest[0]["Config"], *manifest[0]["Layers"]} <= set(names)


def test_a_docker_archive_refuses_several_platforms(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="holds one platform, not linux/amd64, linux/arm64"):
        _publish(store, f"docker-archive:{tmp_path}/x.tar", _several(store))
    assert not (tmp_path / "x.tar").exists()


def test_a_missing_blob_is_named_and_nothing_is_written(store: Store, tmp_path: Path) -> None:
    publication = _publication(store)
    gone = publication.images[0].layers[0].digest
    store.blob(gone).unlink()
    for scheme in ("oci", "oci-archive", "docker-archive"):
        with pytest.raises(PublishError, match=gone):
            _publish(store, f"{scheme}:{tmp_path}/out", publication)
    assert not (tmp_path / "out").exists()


def test_names_no_engine_would_take_are_all_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PublishError) as caught:
        _publish(store, f"oci-archive:{tmp_path}/x.tar", _publication(store, b"", "Demo:one", "demo:!"))
    assert "'Demo:one'" in caught.value.message
    assert "'demo:!'" in caught.value.message


def test_an_archive_that_fails_half_way_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    publication = _publication(store)
    target = tmp_path / "x.tar"
    target.write_bytes(b"old")
    blob = store.blob(publication.images[0].layers[0].digest)
    blob.unlink()
    blob.mkdir()
    with pytest.raises(PublishError):
        _publish(store, f"oci-archive:{target}", publication)
    assert [path.name for path in tmp_path.iterdir() if "x.tar" in path.name] == ["x.tar"]
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("scheme", ["oci", "oci-archive", "docker-archive"])
def test_skopeo_reads_every_output(store: Store, tmp_path: Path, scheme: str) -> None:
    publication = _publication(store)
    _publish(store, f"{scheme}:{tmp_path}/out", publication)
    source = f"{scheme}:{tmp_path}/out" + ("" if scheme == "docker-archive" else ":demo:one")
    command = [
        "skopeo",
        "--insecure-policy",
        "--override-arch",
        "amd64",
        "copy",
        source,
        f"dir:{tmp_path}/copy",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "copy/manifest.json").read_bytes())
    assert manifest["config"]["digest"] == publication.images[0].config_digest


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_unpacks_a_layout_to_the_planned_files(store: Store, tmp_path: Path) -> None:
    _publish(store, f"oci:{tmp_path}/layout", _publication(store, b"hello\n", "one"))
    command = ["umoci", "unpack", "--rootless", "--image", f"{tmp_path}/layout:one", str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle/rootfs/opt/hello").read_bytes() == b"hello\n"


@pytest.mark.parametrize(
    "output", ["oci:{}/image", "oci-archive:{}/image.tar", "docker-archive:{}/image.tar"]
)
def test_a_damaged_blob_is_removed_and_never_published(store: Store, tmp_path: Path, output: str) -> None:
    publication = _publication(store)
    blob = store.blob(publication.images[0].layers[0].digest)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(PublishError, match=f"the cached blob {blob} was damaged and is removed") as caught:
        _publish(store, output.format(tmp_path / "out"), publication)
    assert caught.value.hint == "run the build again: it makes it anew"
    assert not blob.exists()
    assert not (tmp_path / "out" / "image.tar").exists()
    assert not (tmp_path / "out" / "image" / "index.json").exists()
