"""Records: their bytes, which stores of earlier versions have too, and that a damaged one is none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from envbuild.errors import BuildError
from envbuild.oci.image import Image, Layer
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from envbuild.store.layers import LayerCache, LayerFile
from envbuild.store.names import Names
from envbuild.store.records import Records
from envbuild.store.segments import Segment, SegmentCache

A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, body: str, used: float | None = None) -> Records:
    records = Records(store, "things")
    with store.scratch() as scratch:
        records.put("one", body, scratch / "part", used=used)
    return records


def test_a_record_is_json_behind_its_digest(store: Store) -> None:
    records = put(store, '{"a": 1}', used=1000.0)
    checksum = "f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310"
    assert records.path("one").read_text() == f'sha256:{checksum}\n{{"a": 1}}'
    assert records.path("one").stat().st_mtime == 1000.0
    assert records.get("one", dict) == {"a": 1}
    assert list(records) == ["one"]
    records.note_use("one", 2000.0)
    assert records.path("one").stat().st_mtime == 2000.0
    records.drop("one")
    assert (list(records), records.get("one", dict)) == ([], None)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"sha256:" + b"0" * 64 + b"\n{}", b"\xff\n{}", b"nothing\n"], ids=range(5)
)
def test_a_damaged_record_is_none(store: Store, content: bytes) -> None:
    records = put(store, "{}")
    records.path("one").write_bytes(content)
    assert records.get("one", dict) is None


@pytest.mark.parametrize("body", ["[", "[1]", "7", '"text"', "null", "{}"])
def test_a_sound_record_of_another_shape_is_none(store: Store, body: str) -> None:
    assert put(store, body).get("one", lambda value: int(value["a"])) is None


def test_a_record_that_can_not_be_written_is_told(store: Store) -> None:
    records = Records(store, "things")
    with pytest.raises(BuildError, match="can't write to ") as caught:
        records.put("one", "{}", store.root / "no" / "part")
    assert caught.value.hint == "free some space, or set ENVBUILD_CACHE_DIR to another disk"


def test_what_stands_beside_comes_first(store: Store) -> None:
    records = put(store, "{}")
    data = store.root / "things" / "one.tar"
    with store.scratch() as scratch, pytest.raises(BuildError):
        records.put("one", "[]", scratch / "part", beside=(scratch / "nothing", data))
    assert records.get("one", dict) == {}
    with store.scratch() as scratch:
        (scratch / "data").write_bytes(b"x")
        records.put("one", "[]", scratch / "part", beside=(scratch / "data", data))
    assert (records.get("one", list), data.read_bytes()) == ([], b"x")


def test_stores_have_the_bytes_that_earlier_versions_wrote(store: Store) -> None:
    layer = Layer(digest=C, diff_id=D, size=4, media_type="l", name="pip", artifacts=("x 1",))
    image = Image(
        platform=LINUX_AMD64,
        digest=A,
        media_type="m",
        size=3,
        config_digest=B,
        layers=(layer,),
        lock_digest=f"sha256:{'e' * 64}",
        definition_digest=f"sha256:{'f' * 64}",
        level="L3",
    )
    segment = Segment(
        key="k",
        members=((3, 512),),
        paths=(("\u00e9", 0),),
        links=(("a", "b"),),
        directories=(("d", 0o755, 0, 0),),
        checksums=(7,),
    )
    ImageIndex(store, lambda: 1000.0).put("k", image, ("segments/2", "segments/1", "segments/1"))
    Names(store, lambda: 1000.0).put("r/x:1", A, [A], [B])
    with store.scratch() as scratch:
        LayerCache(store).put("k", LayerFile(digest=C, diff_id=D, size=4), scratch)
        (scratch / "part").write_bytes(b"abc")
        SegmentCache(store).put(segment, scratch / "part")
    name = hashlib.sha256(b"r/x:1").hexdigest()
    checksums = {
        path.relative_to(store.root).as_posix(): path.read_bytes().partition(b"\n")[0].decode()
        for path in store.root.rglob("*.json")
    }
    assert checksums == {
        "images/k.json": "sha256:8967e8af11c7fdc99415f38a21338cb89c198be2a7dd7ca2370cc08810bee16d",
        "layers/k.json": "sha256:ba7bbf80765f2ab719a80585264587783152208866a2fc8217cf4680137ef321",
        f"names/{name}.json": "sha256:c8951f879634c4ac1646343f58a16d17c8497fb0ad929273579fdb942b7eb7a9",
        "segments/k.json": "sha256:31c41c308afec8658d1701a252dc8e4371e7103a9541f197a1744caf07f434c6",
    }
    assert SegmentCache(store).get("k") == segment
    assert json.loads((store.root / "segments" / "k.json").read_bytes().partition(b"\n")[2])["key"] == "k"
    assert [stored.image for stored in ImageIndex(store, lambda: 0.0).entries()] == [image]
    assert [named.name for named in Names(store, lambda: 0.0).entries()] == ["r/x:1"]
