"""Images in archives: of every tool and age, and those that somebody made to do harm."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from envbuild.errors import FetchError
from envbuild.images.describe import images_of
from envbuild.images.sinks.archive import DockerArchiveSink, OciArchiveSink
from envbuild.images.sources import tar_files as tarfiles
from envbuild.images.sources.archive import archive_source
from envbuild.images.sources.base import ImageSource
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import Descriptor
from envbuild.progress import Silent
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer, symlink, tar

LAYERS = [tar([Item(name="one", content=b"1" * 3000)]), tar([Item(name="two")])]
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_bytes(each) for each in LAYERS]},
    }
).encode()


@pytest.fixture
def opened(store: Store, tmp_path: Path) -> Callable[..., ImageSource]:
    def run(file: Path, name: str | None = None) -> ImageSource:
        (tmp_path / "scratch").mkdir(exist_ok=True)
        return archive_source(file, name, f"archive {file.name}", store, tmp_path / "scratch")

    return run


def entry(tags: Sequence[str] = ("app:1",), **changes: Any) -> dict[str, Any]:
    return {
        "Config": "config.json",
        "RepoTags": list(tags),
        "Layers": ["one/layer.tar", "two/layer.tar"],
        **changes,
    }


def saved(
    path: Path,
    entries: Sequence[Mapping[str, Any]] | None = None,
    files: Mapping[str, bytes] | None = None,
    more: Sequence[Item] = (),
) -> Path:
    """As ``docker save`` wrote it before Docker 25."""
    found = {
        "config.json": CONFIG,
        "one/layer.tar": LAYERS[0],
        "two/layer.tar": LAYERS[1],
        "manifest.json": json.dumps(entries if entries is not None else [entry()]).encode(),
        **(files or {}),
    }
    items = [Item(name=name, content=content) for name, content in found.items()]
    path.write_bytes(tar([*items, *more]))
    return path


def whole(source: ImageSource) -> Image:
    """The one image, after all its layers were brought into the store."""
    (image,) = images_of(source, source.manifest())
    source.pull(
        [
            Descriptor(digest=layer.digest, size=layer.size, media_type=layer.media_type)
            for layer in image.layers
        ]
    )
    return image


def test_an_old_archive_is_an_image_of_its_layers_as_they_lie(
    opened: Callable[..., ImageSource], store: Store, tmp_path: Path
) -> None:
    image = whole(opened(saved(tmp_path / "a.tar")))

    assert image.config_digest == digest_bytes(CONFIG)
    assert [layer.digest for layer in image.layers] == [digest_bytes(each) for each in LAYERS]
    assert [store.blob(layer.digest).read_bytes() for layer in image.layers] == LAYERS
    assert {layer.media_type for layer in image.layers} == {"application/vnd.oci.image.layer.v1.tar"}
    again = whole(opened(saved(tmp_path / "b.tar", [entry(["other:2"])])))
    assert again.digest == image.digest


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 1), zstandard.compress])
def test_a_compressed_archive_is_the_same_image(
    pack: Callable[[bytes], bytes], opened: Callable[..., ImageSource], tmp_path: Path
) -> None:
    plain = saved(tmp_path / "a.tar")
    (tmp_path / "packed").write_bytes(pack(plain.read_bytes()))

    assert whole(opened(tmp_path / "packed")) == whole(opened(plain))


def test_layers_may_be_compressed(opened: Callable[..., ImageSource], store: Store, tmp_path: Path) -> None:
    packed = gzip.compress(LAYERS[0], mtime=0)
    image = whole(opened(saved(tmp_path / "a.tar", files={"one/layer.tar": packed})))

    assert image.layers[0].digest == digest_bytes(packed)
    assert image.layers[0].diff_id == digest_bytes(LAYERS[0])
    assert image.layers[0].media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert store.blob(digest_bytes(packed)).read_bytes() == packed


def test_a_link_names_another_file_of_the_archive(opened: Callable[..., ImageSource], tmp_path: Path) -> None:
    layers = ["one/layer.tar", "three/layer.tar"]
    path = saved(
        tmp_path / "a.tar", [entry(Layers=layers)], more=[symlink("three/layer.tar", "../two/layer.tar")]
    )

    assert [layer.digest for layer in whole(opened(path)).layers] == [digest_bytes(each) for each in LAYERS]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "../nothing", "layer.tar"])
def test_a_link_leads_nowhere_else(target: str, opened: Callable[..., ImageSource], tmp_path: Path) -> None:
    layers = ["one/layer.tar", "three/layer.tar"]
    path = saved(tmp_path / "a.tar", [entry(Layers=layers)], more=[symlink("three/layer.tar", target)])

    with pytest.raises(FetchError, match=r"lacks the layer 'three/layer\.tar'"):
        opened(path)


@pytest.mark.parametrize("publisher", [OciArchiveSink, DockerArchiveSink])
def test_our_own_archives_keep_their_digest(
    publisher: type[OciArchiveSink], opened: Callable[..., ImageSource], tmp_path: Path
) -> None:
    source = Store(tmp_path / "source")
    image = put_image(source, [put_layer(source, [Item(name="a")])])
    publication = ImageSet(images=(image,), names=("train:1", "train:2"))
    publisher(tmp_path / "out.tar", source, Silent()).publish(publication)

    for name in (None, "train:2", "docker.io/library/train:1"):
        assert whole(opened(tmp_path / "out.tar", name)).digest == image.digest
    with pytest.raises(FetchError, match="no image of that name") as caught:
        opened(tmp_path / "out.tar", "train:3").manifest()
    assert "train:1, train:2" in str(caught.value.hint)


def test_one_of_several_images_is_chosen_by_name(opened: Callable[..., ImageSource], tmp_path: Path) -> None:
    other = CONFIG.replace(b"{}", b'{"User": "1"}')
    entries = [entry(["app:1", "app:2"]), entry(["app:3"], Config="other.json")]
    path = saved(tmp_path / "a.tar", entries, files={"other.json": other})

    assert whole(opened(path, "app:2")).config_digest == digest_bytes(CONFIG)
    assert whole(opened(path, "docker.io/library/app:3")).config_digest == digest_bytes(other)
    with pytest.raises(FetchError, match="has 2 images") as caught:
        opened(path)
    assert "app:1, app:2, app:3" in str(caught.value.hint)
    with pytest.raises(FetchError, match="no image of that name"):
        opened(path, "app:4")


def test_an_image_that_is_listed_twice_is_one(opened: Callable[..., ImageSource], tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tar", [entry(["app:1"]), entry(["app:2"])])

    assert whole(opened(path)).config_digest == digest_bytes(CONFIG)


@pytest.mark.parametrize(
    ("entries", "files", "words"),
    [
        ([], {}, "no image"),
        ([entry(Config="../../etc/passwd")], {}, r"lacks \.\./\.\./etc/passwd"),
        ([entry(Config=1)], {}, "manifest.json can't be used"),
        ([entry(Layers=["one/layer.tar"])], {}, "the config names 2 layers, the manifest has 1"),
        ([entry(Layers=["x"] * 128)], {}, "layers beyond number"),
        ([entry(RepoTags=[["x"]])], {}, "manifest.json can't be used"),
        ({"Config": "config.json"}, {}, "manifest.json can't be used"),
        ([entry()], {"config.json": b"[]"}, "not a JSON object"),
        ([entry()], {"config.json": b" " * (9 << 20)}, "config.json is larger than"),
        ([entry()], {"manifest.json": b"[" * 100_000}, "manifest.json can't be used"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    entries: Any,
    files: Mapping[str, bytes],
    words: str,
    opened: Callable[..., ImageSource],
    tmp_path: Path,
) -> None:
    with pytest.raises(FetchError, match=words):
        opened(saved(tmp_path / "a.tar", entries, files=files))


def test_a_layer_that_is_not_the_configs_is_refused_when_it_is_read(
    opened: Callable[..., ImageSource], store: Store, tmp_path: Path
) -> None:
    source = opened(saved(tmp_path / "a.tar", files={"one/layer.tar": LAYERS[0][:-1] + b"x"}))

    with pytest.raises(FetchError, match=f"the blob {digest_bytes(LAYERS[0])} is damaged"):
        whole(source)
    assert not store.has_blob(digest_bytes(LAYERS[0]))
    assert list(store.directory("scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Item(name="x", type=tarfile.LNKTYPE, link="config.json"), "'x', which is no plain file"),
        (Item(name="x", type=tarfile.CHRTYPE), "'x', which is no plain file"),
        (Item(name="./config.json", content=b"{}"), "'config.json' twice"),
        (symlink("config.json", "other.json"), "'config.json' twice"),
    ],
)
def test_what_could_mean_two_things_is_refused(
    item: Item, words: str, opened: Callable[..., ImageSource], tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match=words):
        opened(saved(tmp_path / "a.tar", more=[item]))


@pytest.mark.parametrize("length", [0, 100, 512, 2000, 5000])
def test_a_cut_archive_is_refused(length: int, opened: Callable[..., ImageSource], tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(FetchError, match=r"archive a\.tar"):
        whole(opened(path))


def test_what_is_no_archive_is_refused(opened: Callable[..., ImageSource], tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello\n" * 1000)
    (tmp_path / "empty.tar").write_bytes(tar([Item(name="file")]))
    packed = gzip.compress(saved(tmp_path / "a.tar").read_bytes())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])

    for name, words in (
        ("none", "there is no file"),
        ("text", "can't be read"),
        ("empty.tar", "neither index.json nor manifest.json"),
        ("cut.gz", "can't be uncompressed"),
    ):
        with pytest.raises(FetchError, match=words):
            opened(tmp_path / name)


def test_an_archive_that_swells_without_end_is_refused(
    opened: Callable[..., ImageSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfiles, "_EXPANDED", 1 << 20)
    zeros = io.BytesIO()
    with gzip.GzipFile(fileobj=zeros, mode="wb") as file:
        file.write(bytes(4 << 20))
    (tmp_path / "bomb").write_bytes(zeros.getvalue())

    with pytest.raises(FetchError, match="more than any archive of its size may"):
        opened(tmp_path / "bomb")
