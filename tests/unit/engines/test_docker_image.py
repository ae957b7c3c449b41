"""Archives of ``docker save`` read into a store: both forms, whole, damaged and hostile."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.codec import BLOCK, codec
from envbuild.engines.docker.image import ArchiveReader
from envbuild.errors import BuildError
from envbuild.lock.model import DebianBase, ImageBase
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.oci.manifest import OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from envbuild.plan.model import ImageConfig, Plan
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.store.content import Store
from envbuild.store.leases import Lease
from tests.fakes.image import Item, put_image, put_layer, tar

PLAN = Plan(
    platform=LINUX_AMD64,
    lock_digest=digest_bytes(b"lock"),
    definition_digest=digest_bytes(b"definition"),
    level="L1",
    base=DebianBase(suite="trixie", packages=(), glibc="2.41"),
    python=None,
    layers=(),
    config=ImageConfig(env=(), user="", cmd=()),
    bytecode=False,
    interpreter=None,
)
BIG = tar([Item(name="big", content=bytes(range(256)) * (BLOCK // 200))])
SMALL = tar([Item(name="{small", content=b"x")])
EMPTY = bytes(1024)
LAYERS = (BIG, EMPTY, SMALL, EMPTY)
HISTORY = [
    {"created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
    {"created_by": "/bin/sh -c #(nop)  ENV A=b", "empty_layer": True},
    {"created_by": "/bin/sh -c true   &&\ttrue"},
    {"created_by": "COPY \x1b[1m" + "x" * 100},
    {"created_by": "RUN /bin/true # buildkit"},
]


def config(layers: Sequence[bytes] = LAYERS, **more: object) -> bytes:
    """As an engine writes it: not in our own form of JSON."""
    return json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [digest_bytes(layer) for layer in layers]},
            "history": HISTORY,
            **more,
        },
        indent=1,
    ).encode()


def pack(items: Sequence[Item]) -> bytes:
    return tar(items)


def classic(body: bytes, layers: Sequence[bytes] = LAYERS) -> list[Item]:
    """The form before Docker 25: a layer that was there already is a link."""
    items: list[Item] = []
    names: dict[bytes, str] = {}
    paths = []
    for number, layer in enumerate(layers):
        folder = f"{number:064x}"
        items += [
            Item(name=f"{folder}/", type=tarfile.DIRTYPE),
            Item(name=f"{folder}/VERSION", content=b"1.0"),
            Item(name=f"{folder}/json", content=b"{}"),
        ]
        if layer in names:
            link = f"../{names[layer]}/layer.tar"
            items.append(Item(name=f"{folder}/layer.tar", type=tarfile.SYMTYPE, link=link))
        else:
            items.append(Item(name=f"{folder}/layer.tar", content=layer))
            names[layer] = folder
        paths.append(f"{folder}/layer.tar")
    name = f"{digest_bytes(body)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": None, "Layers": paths}]
    return [
        *reversed(items),
        Item(name=name, content=body),
        Item(name="manifest.json", content=json.dumps(manifest).encode()),
    ]


def layout(body: bytes, blobs: Sequence[bytes] = LAYERS, extra: Sequence[bytes] = ()) -> list[Item]:
    """The form since Docker 25."""
    name = f"blobs/sha256/{digest_bytes(body)[7:]}"
    manifest = [{"Config": name, "Layers": [f"blobs/sha256/{digest_bytes(blob)[7:]}" for blob in blobs]}]
    every = {digest_bytes(each)[7:]: each for each in (*blobs, body, *extra)}
    return [
        *(Item(name=f"blobs/sha256/{key}", content=every[key]) for key in sorted(every)),
        Item(name="index.json", content=b"{}"),
        Item(name="manifest.json", content=json.dumps(manifest).encode()),
        Item(name="oci-layout", content=b"{}"),
    ]


def read(store: Store, archive: bytes, image: str, plan: Plan = PLAN) -> Image:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(archive), 100_001):
            yield archive[start : start + 100_001]

    with Lease(store) as lease:
        return ArchiveReader(store=store, packing=codec(plan.compression), lease=lease).read(
            pieces(), image, plan
        )


@pytest.mark.parametrize("form", [classic, layout])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_an_archive_becomes_an_image(form: object, compression: str, tmp_path: Path) -> None:
    assert callable(form)
    store = Store(tmp_path)
    body = config()
    plan = replace(PLAN, compression=compression)
    image = read(store, pack(form(body)), digest_bytes(body), plan)
    assert image.config_digest == digest_bytes(body)
    assert store.blob(image.config_digest).read_bytes() == body
    assert [layer.diff_id for layer in image.layers] == [digest_bytes(each) for each in LAYERS]
    packing = codec(compression)
    for layer, data in zip(image.layers, LAYERS, strict=True):
        blob = b"".join(packing.compress(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))
        assert store.blob(layer.digest).read_bytes() == blob
        assert (layer.digest, layer.size) == (digest_bytes(blob), len(blob))
        assert layer.media_type == {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}[compression]
    assert [layer.name for layer in image.layers] == [
        "ADD file:1 in /",
        "RUN true && true",
        "COPY ?[1m" + "x" * 50 + "…",
        "RUN /bin/true",
    ]
    manifest = json.loads(store.blob(image.digest).read_bytes())
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest_bytes(body),
        "size": len(body),
    }
    assert manifest["annotations"] == {
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
        "dev.envbuild.definition": PLAN.definition_digest,
        "dev.envbuild.lock": PLAN.lock_digest,
        "dev.envbuild.level": "L1",
    }
    assert (image.lock_digest, image.level, image.platform) == (PLAN.lock_digest, "L1", LINUX_AMD64)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_both_forms_give_the_same_image(tmp_path: Path) -> None:
    body = config()
    first = read(Store(tmp_path / "a"), pack(classic(body)), digest_bytes(body))
    assert read(Store(tmp_path / "b"), pack(layout(body)), digest_bytes(body)) == first


def test_layers_that_were_imported_before_are_not_compressed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    body = config()
    image = read(store, pack(layout(body)), digest_bytes(body))

    def never(self: object, block: bytes) -> bytes:
        assert block in (b"", body), "only what may be a config as well"
        return block

    monkeypatch.setattr("envbuild.compose.codec.GzipCodec.compress", never)
    assert read(store, pack(layout(body)), digest_bytes(body)) == image


def test_layers_of_the_base_stay_the_registrys(tmp_path: Path) -> None:
    store = Store(tmp_path)
    below = put_layer(store, [Item(name="base")])
    base = put_image(store, [below])
    plan = replace(
        PLAN,
        base=ImageBase(reference="r.example/base", digest=base.digest, layers=1, diff_ids=(below.diff_id,)),
    )
    layers = (tar([Item(name="base")]), SMALL)
    body = config(layers, history=[])
    image = read(store, pack(classic(body, layers)), digest_bytes(body), plan)
    assert image.layers[0] == replace(below, name="base")
    assert image.layers[1].diff_id == digest_bytes(SMALL)
    assert image.layers[1].name == ""


def test_containerds_form_has_compressed_layers_and_other_ids(tmp_path: Path) -> None:
    import zstandard

    store = Store(tmp_path)
    body = config((BIG, SMALL), history=[])
    half = len(BIG) // 2
    blobs = (
        gzip.compress(BIG[:half], mtime=0) + gzip.compress(BIG[half:], mtime=0),
        zstandard.ZstdCompressor().compress(SMALL),
    )
    manifest = json.dumps({"config": {"digest": digest_bytes(body)}}).encode()
    index = json.dumps({"manifests": [{"digest": digest_bytes(manifest)}]}).encode()
    archive = pack(layout(body, blobs, (manifest, index)))
    for image in (manifest, index):
        found = read(store, archive, digest_bytes(image))
        assert [layer.diff_id for layer in found.layers] == [digest_bytes(BIG), digest_bytes(SMALL)]
        assert found.config_digest == digest_bytes(body)
    with pytest.raises(BuildError, match=f"holds the image {digest_bytes(body)}, not sha256:0000"):
        read(store, archive, f"sha256:{'0' * 64}")


def test_a_cut_archive_is_damaged_wherever_it_is_cut(tmp_path: Path) -> None:
    store = Store(tmp_path)
    layers = (SMALL, EMPTY)
    body = config(layers, history=[])
    for form in (classic, layout):
        archive = pack(form(body, layers))
        end = archive.rindex(b"manifest.json")
        for length in range(0, end, 512 - 7):
            with pytest.raises(BuildError, match="the Docker engine's archive"):
                read(store, archive[:length], digest_bytes(body))
    assert not (tmp_path / "blobs").exists() or list((tmp_path / "blobs/sha256").iterdir()) == []


def with_manifest(document: object) -> list[Item]:
    return [*layout(config())[:-2], Item(name="manifest.json", content=json.dumps(document).encode())]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "ends too early: it has no manifest.json"),
        (with_manifest([]), "is damaged: its manifest.json can't be used"),
        (with_manifest({}), "is damaged: its manifest.json can't be used"),
        (with_manifest([{"Config": "../../etc/passwd"}]), "is damaged: its manifest.json can't be used"),
        (with_manifest([{"Config": ["x"]}]), "is damaged: its manifest.json can't be used"),
        (with_manifest([{"Config": "index.json"}, {}]), "is damaged: its manifest.json can't be used"),
        (with_manifest([{"Config": "index.json"}]), "the config has no layers"),
        (layout(config(rootfs={"diff_ids": ["x"]})), "the config has no layers"),
        (layout(config((BIG, b"changed"))), f"it has no layer {digest_bytes(b'changed')}"),
        (layout(config(), (BIG, SMALL)), f"it has no layer {digest_bytes(EMPTY)}"),
        (
            [Item(name="x.json", content=b" " * (9 << 20))],
            "'x.json' of the Docker engine's archive is too large",
        ),
        (layout(b'{"a":' * 100_000), "is no JSON"),
        (layout(b"{"), "is no JSON"),
        ([Item(name=f"{n}/VERSION") for n in range(20_001)], "has too many files"),
        (
            [Item(name=f"{n}/json", content=b" " * (8 << 20)) for n in range(9)],
            "'8/json' of the Docker engine's archive is too large",
        ),
    ],
)
def test_a_hostile_archive_is_refused(items: list[Item], message: str, tmp_path: Path) -> None:
    body = config()
    names = [item for item in items if item.name == "manifest.json"]
    if names:
        entry = json.loads(names[0].content)
        wanted = entry[0].get("Config") if isinstance(entry, list) and entry else None
        body = next((item.content for item in items if item.name == wanted), body)
    with pytest.raises(BuildError) as raised:
        read(Store(tmp_path), pack(items), digest_bytes(body))
    assert message in raised.value.message


def test_paths_of_the_archive_are_never_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    body = config((SMALL,), history=[])
    hostile = [
        Item(name="../../escaped", content=SMALL),
        Item(name="/tmp/escaped", content=b"not a tar, and not asked for"),
        Item(name="link", type=tarfile.SYMTYPE, link="/etc"),
        Item(name="link/passwd", content=b"x"),
        Item(name="fifo", type=tarfile.FIFOTYPE),
    ]
    # The layer is found by what it is, wherever it lies.
    items = [each for each in layout(body, (SMALL,)) if each.content != SMALL]
    image = read(store, pack([*hostile, *items]), digest_bytes(body))
    assert image.layers[0].diff_id == digest_bytes(SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not Path("/tmp/escaped").exists()
    blobs = {path.name for path in (tmp_path / "store/blobs/sha256").iterdir()}
    assert blobs == {
        each.removeprefix("sha256:") for each in (image.digest, image.config_digest, image.layers[0].digest)
    }


def test_damaged_compressed_layers_are_refused(tmp_path: Path) -> None:
    body = config((SMALL,), history=[])
    whole = gzip.compress(SMALL, mtime=0)
    for blob in (whole[:-20], whole[:-8] + bytes(8), whole[:15], b"\x28\xb5\x2f\xfd" + bytes(100)):
        with pytest.raises(BuildError, match="the Docker engine's archive is damaged"):
            read(Store(tmp_path), pack(layout(body, (blob,))), digest_bytes(body))


def test_an_image_of_another_platform_is_refused(tmp_path: Path) -> None:
    body = config(architecture="arm64")
    with pytest.raises(BuildError, match="was built is for linux/arm64, not for linux/amd64"):
        read(Store(tmp_path), pack(layout(body)), digest_bytes(body))
    plan = replace(PLAN, platform=LINUX_ARM64)
    assert read(Store(tmp_path), pack(layout(body)), digest_bytes(body), plan).platform == LINUX_ARM64


def test_bytes_are_counted(tmp_path: Path) -> None:
    body = config((SMALL,), history=[])
    archive = pack(layout(body, (SMALL,)))
    told: list[int] = []
    store = Store(tmp_path)
    with Lease(store) as lease:
        reader = ArchiveReader(store=store, packing=codec("gzip"), lease=lease)
        reader.read(iter([archive]), digest_bytes(body), PLAN, told.append)
    assert told == [len(archive)]
