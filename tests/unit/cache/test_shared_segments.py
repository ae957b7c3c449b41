"""The native engine with segments that machines share: fewer packages, the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from envbuild.cache.manifest import dump_manifest, tag_of
from envbuild.compose.base import Entry
from envbuild.compose.codec import codec
from envbuild.compose.engine import NativeEngine
from envbuild.compose.tar import entry_stream
from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.oci.manifest import OCI_MANIFEST
from envbuild.plan.model import Artifact, ArtifactKind, GeneratedFile, Plan, PlannedLayer
from envbuild.store.content import Store
from envbuild.store.segments import Segment, SegmentCache
from tests.fakes.progress import Notes
from tests.fakes.registry import Registry, serve
from tests.fakes.segments import shared_segments
from tests.fakes.source import (
    SITE,
    FakeCompiler,
    FakeCompilers,
    FakeSource,
    artifact,
    directory,
    file,
    plan,
    symlink,
)

NUMPY = artifact("numpy", size=5 << 20)
ATTRS = artifact("attrs")
TWIN = artifact("twin")
META = artifact("meta")
LIBC = artifact("libc6", kind=ArtifactKind.DEBIAN)
SYSTEM = Artifact(
    kind=ArtifactKind.GENERATED,
    name="system",
    version="1",
    sha256="3" * 64,
    size=0,
    files=(GeneratedFile(path="lib", target="usr/lib"),),
)
SHARED_FILE = file(f"{SITE}/attr/__init__.py", b"y = 2\n")
CONTENTS: Mapping[str, Sequence[Entry]] = {
    "numpy": [
        file(f"{SITE}/numpy/core.py", b"x = 1\n" * 1000),
        file(f"{SITE}/numpy/core.so", bytes(range(256)) * 40000, 0o755),
    ],
    "attrs": [SHARED_FILE, file(f"{SITE}/attrs.py", b"z = 3\n")],
    # Owns a path of attrs, and writes through a link that numpy brings: both are settled in a second round.
    "twin": [SHARED_FILE, file("opt/env/lib64/twin.so", b"elf")],
    "meta": [directory("srv/meta", 0o700)],
    "libc6": [file("usr/lib/libc.so.6", b"elf", 0o755), symlink("opt/env/lib64", "lib")],
}
GONE = BuildError("no package can be had")


@dataclass
class Machine:
    """A store and an engine. ``cut``: no package can be fetched."""

    root: Path
    cut: bool = False
    source: FakeSource = field(init=False)
    compiler: FakeCompiler = field(default_factory=FakeCompiler)
    progress: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.source = FakeSource(dict.fromkeys(CONTENTS, GONE) if self.cut else CONTENTS)

    @property
    def store(self) -> Store:
        return Store(self.root)

    def build(
        self, what: Plan, *readers: str, writer: str | None = None, reuse: bool = True, shared: bool = True
    ) -> Image:
        caches = shared_segments(self.root, self.progress, *readers, writer=writer)
        engine = NativeEngine(
            store=self.store,
            sources={kind: lambda plan: self.source for kind in (ArtifactKind.WHEEL, ArtifactKind.DEBIAN)},
            compiler_factory=FakeCompilers(self.compiler),
            progress=self.progress,
            workers=2,
            reuse=reuse,
            shared=caches if shared else None,
        )
        return engine.build(what)


@pytest.fixture
def one(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one")


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "two", cut=True)


def whole(*more: Artifact, compression: str = "gzip") -> Plan:
    layers = [(LIBC, SYSTEM), (NUMPY, META), (ATTRS, TWIN), *([more] if more else [])]
    return plan(
        *(PlannedLayer(name=str(number), artifacts=layer) for number, layer in enumerate(layers)),
        bytecode=True,
        compression=compression,
    )


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_second_machine_composes_without_packages(
    registry: Registry, one: Machine, two: Machine, compression: str, tmp_path: Path
) -> None:
    what = whole(compression=compression)
    cache = f"{registry.host}/cache"
    image = one.build(what, writer=cache)
    assert image == Machine(tmp_path / "alone").build(what, shared=False)
    assert two.build(what, cache) == image
    assert (two.source.fetched, two.source.opened, two.compiler.calls) == ([], [], [])
    assert not (two.root / "rootfs").exists()
    records = {path.name: path.read_bytes() for path in (two.root / "segments").glob("*.json")}
    assert records == {path.name: path.read_bytes() for path in (one.root / "segments").glob("*.json")}


def test_only_what_no_cache_has_is_fetched(registry: Registry, one: Machine, tmp_path: Path) -> None:
    cache = f"{registry.host}/cache"
    one.build(whole(), writer=cache)
    other = artifact("other")
    two = Machine(tmp_path / "two")
    two.source = FakeSource({"other": [file("opt/env/other", b"here")]})
    image = two.build(whole(other), cache, writer=cache)
    assert two.source.fetched == ["other"]
    three = Machine(tmp_path / "three", cut=True)
    assert three.build(whole(other), cache) == image


def test_no_cache_reads_none_but_writes_it(registry: Registry, one: Machine, tmp_path: Path) -> None:
    cache = f"{registry.host}/cache"
    image = one.build(whole(), cache, writer=cache)
    registry.requests.clear()
    registry.manifests.clear()
    two = Machine(tmp_path / "two")
    assert two.build(whole(), cache, writer=cache, reuse=False) == image
    assert {*two.source.fetched} == {*CONTENTS}
    assert len([repository for repository, name in registry.manifests if name.startswith("segment-")]) == 6
    assert Machine(tmp_path / "three", cut=True).build(whole(), cache) == image


def test_an_image_that_is_here_asks_and_writes_nothing(registry: Registry, one: Machine) -> None:
    one.build(whole())
    one.build(whole(), f"{registry.host}/cache", writer=f"{registry.host}/cache")
    assert registry.requests == []


def test_a_cache_that_is_away_changes_nothing_but_the_notes(tmp_path: Path) -> None:
    with serve() as registry:
        away = f"{registry.host}/cache"
    machine = Machine(tmp_path / "one")
    image = machine.build(whole(), away, writer=away)
    assert image == Machine(tmp_path / "two").build(whole(), shared=False)
    assert len([each for each in machine.progress.notes if each.startswith(f"segment cache {away}: ")]) == 1


def test_a_registry_that_answers_rubbish_changes_nothing(
    registry: Registry, one: Machine, tmp_path: Path
) -> None:
    cache = f"{registry.host}/cache"
    image = one.build(whole(), writer=cache)
    for (repository, name), (media_type, content) in list(registry.manifests.items()):
        registry.manifests[repository, name] = (media_type, content.replace(b"members", b"numbers"))
    two = Machine(tmp_path / "two")
    assert two.build(whole(), cache, writer=cache) == image
    assert len(two.progress.notes) == 2
    # What was rubbish is written over.
    assert Machine(tmp_path / "three", cut=True).build(whole(), cache) == image
    for digest, content in registry.blobs.items():
        registry.blobs[digest] = content[::-1]
    assert Machine(tmp_path / "four").build(whole(), cache) == image


def smuggled(one: Machine, extra: bytes, *, hidden: bool) -> tuple[Segment, bytes]:
    """The segment of attrs with another entry, in a member of its own or behind the last one's end."""
    packing = codec("gzip")
    (segment,) = [
        found
        for path in (one.root / "segments").glob("*.json")
        if (found := SegmentCache(one.store).get(path.stem)) and f"{SITE}/attrs.py" in found.offsets
    ]
    member = packing.compress(extra)
    content = SegmentCache(one.store).data(segment.key).read_bytes() + member
    *rest, last = segment.members
    members = (
        (*rest, (last[0] + len(member), last[1])) if hidden else (*rest, last, (len(member), len(extra)))
    )
    return (
        Segment(key=segment.key, members=members, paths=segment.paths, directories=segment.directories),
        content,
    )


@pytest.mark.parametrize("hidden", [True, False])
def test_a_path_behind_the_last_members_end_is_seen(
    registry: Registry, one: Machine, tmp_path: Path, hidden: bool
) -> None:
    """Either the segment isn't taken, or its record has the path, so that it is said where another
    package owns it."""
    cache = f"{registry.host}/cache"
    image = one.build(whole(), writer=cache)
    evil = b"".join(entry_stream(file(f"{SITE}/numpy/core.py", b"evil")))
    segment, content = smuggled(one, evil, hidden=hidden)
    manifest = dump_manifest(segment, digest_bytes(content))
    registry.put_blob(content)
    registry.put_manifest("cache", tag_of(segment.key), OCI_MANIFEST, manifest)
    two = Machine(tmp_path / "two")
    if hidden:
        assert two.build(whole(), cache) == image
        assert two.source.fetched == ["attrs"]
    else:
        two.build(whole(), cache)
        assert any("numpy/core.py" in note for note in two.progress.notes)


def test_a_link_is_seen_whatever_the_record_says(registry: Registry, one: Machine, tmp_path: Path) -> None:
    """A link that isn't known would be written through, in engines that follow it out of the layer."""
    cache = f"{registry.host}/cache"
    one.build(whole(), writer=cache)
    link = b"".join(entry_stream(symlink(f"{SITE}/numpy", "/etc")))
    segment, content = smuggled(one, link, hidden=False)
    registry.put_blob(content)
    registry.put_manifest(
        "cache", tag_of(segment.key), OCI_MANIFEST, dump_manifest(segment, digest_bytes(content))
    )
    image = Machine(tmp_path / "two").build(whole(), cache)
    names: list[str] = []
    for layer in image.layers:
        blob = Store(tmp_path / "two").blob(layer.digest).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as tar:
            names += tar.getnames()
    assert f"{SITE}/numpy" in names
    assert "etc/core.py" in names
    assert f"{SITE}/numpy/core.py" not in names


def test_what_is_shared_holds_package_bytes_only(registry: Registry, one: Machine) -> None:
    one.build(whole(), writer=f"{registry.host}/cache")
    said = b"".join(content for _, content in registry.manifests.values())
    assert str(one.root).encode() not in said
    for name, (_, content) in registry.manifests.items():
        assert set(json.loads(content)) == {
            "schemaVersion", "mediaType", "artifactType", "config", "layers", "annotations",
        }, name  # fmt: skip
