"""Segments in registry repositories: what is written, what is believed, and that none of it fails a build."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from envbuild.cache.manifest import dump_manifest, parse_manifest
from envbuild.cache.segments import Found, SharedSegments, WantedSegment, cache_repository
from envbuild.errors import BuildError, FetchError, UsageError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_MANIFEST
from envbuild.oci.reference import Reference
from envbuild.store.content import Store
from envbuild.store.segments import Segment, SegmentCache
from tests.fakes.progress import Notes
from tests.fakes.registry import Registry
from tests.fakes.segments import shared_segments

KEY, OTHER = "a" * 64, "b" * 64
BYTES = b"compressed members"
SEGMENT = Segment(
    key=KEY,
    members=((10, 1024), (8, 512)),
    paths=(("opt/env/x", 0),),
    directories=(("var/mail", 0o2775, 0, 8),),
)
EMPTY = Segment(key=OTHER, members=(), paths=(), directories=(("srv", 0o700, 0, 0),))


@dataclass(kw_only=True)
class Machine:
    """A store, and what it was brought."""

    root: Path
    progress: Notes = field(default_factory=Notes)
    found: dict[str, tuple[Found, bytes]] = field(default_factory=dict)

    def shared(self, *readers: str, writer: str | None = None, patience: float = 20.0) -> SharedSegments:
        return shared_segments(self.root, self.progress, *readers, writer=writer, patience=patience)

    def cache(self, *segments: Segment) -> SegmentCache:
        """The store's segments, which are these."""
        cache = SegmentCache(Store(self.root))
        self.root.mkdir(parents=True, exist_ok=True)
        for segment in segments:
            part = self.root / "part"
            part.write_bytes(BYTES[: segment.size])
            cache.put(segment, part)
        return cache

    def share(self, shared: SharedSegments, *segments: Segment) -> None:
        cache = self.cache(*segments)
        with Store(self.root).scratch() as scratch:
            shared.share({segment.key: segment for segment in segments}, cache, scratch)

    def bring(self, shared: SharedSegments, *keys: str, size: int = 0) -> dict[str, bytes]:
        def take(found: Found) -> None:
            self.found[found.key] = (found, found.part.read_bytes())

        return self.bring_to(shared, take, *keys, size=size)

    def bring_to(
        self, shared: SharedSegments, take: Callable[[Found], None], *keys: str, size: int = 0
    ) -> dict[str, bytes]:
        with Store(self.root).scratch() as scratch:
            shared.bring([WantedSegment(key=key, size=size) for key in keys], scratch, take)
        return {key: content for key, (_, content) in self.found.items()}


@pytest.fixture
def one(tmp_path: Path) -> Machine:
    return Machine(root=tmp_path / "one")


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return Machine(root=tmp_path / "two")


def test_a_manifest_is_these_bytes() -> None:
    """A registry keeps it for years: another envbuild must read and write the same."""
    content = dump_manifest(SEGMENT, digest_bytes(BYTES))
    assert json.loads(content) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.envbuild.segment.v1",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
            "data": "e30=",
        },
        "layers": [
            {
                "mediaType": "application/vnd.envbuild.segment.v1.members",
                "digest": digest_bytes(BYTES),
                "size": 18,
            }
        ],
        "annotations": {
            "dev.envbuild.segment": '{"directories":[["var/mail",1533,0,8]],'
            f'"key":"{KEY}","members":[[10,1024],[8,512]]}}'
        },
    }
    shared = parse_manifest(content, KEY)
    assert (shared.members, shared.directories) == (SEGMENT.members, SEGMENT.directories)
    assert shared.blob is not None
    assert shared.blob.digest == digest_bytes(BYTES)


def test_what_one_machine_shares_another_is_brought(registry: Registry, one: Machine, two: Machine) -> None:
    repository = f"{registry.host}/team/cache"
    one.share(one.shared(writer=repository), SEGMENT, EMPTY)
    assert one.progress.notes == [f"2 segments, 0.0 MB, went to {repository}"]
    assert two.bring(two.shared(repository), KEY, OTHER, "c" * 64) == {KEY: BYTES, OTHER: b""}
    assert two.progress.notes == ["2 of 3 segments came from the cache"]
    found, _ = two.found[KEY]
    assert (found.members, found.directories) == (SEGMENT.members, SEGMENT.directories)
    for machine in (one, two):
        assert list((machine.root / "scratch").iterdir()) == []
        assert not (machine.root / "blobs").exists()


def test_what_is_there_is_not_sent_again(registry: Registry, one: Machine, two: Machine) -> None:
    repository = f"{registry.host}/cache"
    one.share(one.shared(writer=repository), SEGMENT)
    registry.requests.clear()
    two.share(two.shared(writer=repository), SEGMENT)
    assert [(method, path) for method, path, _ in registry.requests] == [
        ("GET", f"/v2/cache/manifests/segment-{KEY}")
    ]
    registry.requests.clear()
    shared = two.shared(repository, writer=repository)
    two.bring(shared, KEY)
    registry.requests.clear()
    two.share(shared, SEGMENT)
    assert registry.requests == []


def test_two_machines_write_at_once(registry: Registry, one: Machine, two: Machine) -> None:
    repository = f"{registry.host}/cache"
    segments = [
        Segment(key=f"{number:064x}", members=((18, 512),), paths=(("opt/env/x", 0),)) for number in range(30)
    ]
    threads = [
        threading.Thread(target=each.share, args=(each.shared(writer=repository), *segments))
        for each in (one, two)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = Machine(root=one.root.parent / "three")
    assert len(third.bring(third.shared(repository), *(segment.key for segment in segments))) == 30


def test_repositories_are_asked_in_their_order(registry: Registry, one: Machine, two: Machine) -> None:
    first, second = f"{registry.host}/first", f"{registry.host}/second"
    one.share(one.shared(writer=first), SEGMENT)
    one.share(one.shared(writer=second), SEGMENT, EMPTY)
    registry.requests.clear()
    assert two.bring(two.shared(first, second), KEY, OTHER) == {KEY: BYTES, OTHER: b""}
    manifests = sorted(path for path in registry.paths() if "/manifests/" in path)
    assert manifests == [
        f"/v2/first/manifests/segment-{KEY}",
        f"/v2/first/manifests/segment-{OTHER}",
        f"/v2/second/manifests/segment-{OTHER}",
    ]


def put(registry: Registry, content: bytes, *, blob: bytes = BYTES) -> None:
    registry.put_manifest("bad", f"segment-{KEY}", OCI_MANIFEST, content)
    registry.put_blob(blob)


def good(registry: Registry) -> None:
    registry.put_manifest("good", f"segment-{KEY}", OCI_MANIFEST, dump_manifest(SEGMENT, digest_bytes(BYTES)))
    registry.put_blob(BYTES)


def changed(layer: Mapping[str, Any] | None = None, record: Any = None, **changes: Any) -> bytes:
    document = json.loads(dump_manifest(SEGMENT, digest_bytes(BYTES)))
    document["layers"][0].update(layer or {})
    if record is not None:
        said = json.loads(document["annotations"]["dev.envbuild.segment"])
        document["annotations"]["dev.envbuild.segment"] = json.dumps({**said, **record})
    return json.dumps({**document, **changes}).encode()


HOSTILE = {
    "another artifact": changed(artifactType="application/vnd.example"),
    "no layers": changed(layers=[]),
    "two layers": changed(layers=[{}, {}]),
    "layers of another form": changed(layers={"a": 1}),
    "a layer that is a number": changed(layers=[3]),
    "another layer": changed(layer={"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}),
    "a digest that leaves the store": changed(layer={"digest": "sha256:../../../etc/passwd"}),
    "a digest of another kind": changed(layer={"digest": ["sha256"]}),
    "a size that isn't the members'": changed(layer={"size": 19}),
    "a size that is no number": changed(layer={"size": True}),
    "no record": changed(annotations={}),
    "a record that is no JSON": changed(annotations={"dev.envbuild.segment": "{"}),
    "a record that is deep": changed(annotations={"dev.envbuild.segment": "[" * 100_000}),
    "a record of another segment": changed(record={"key": OTHER}),
    "members without a size": changed(record={"members": [[18]]}),
    "members that are fractions": changed(record={"members": [[10.0, 1024], [8.0, 512]]}),
    "members that take away": changed(record={"members": [[20, 512], [-2, 512]]}),
    "members past all bounds": changed(record={"members": [[18, 1 << 50]]}),
    "members that expand too far": changed(record={"members": [[18, 1 << 40]]}),
    "directories that are no paths": changed(record={"directories": [[5, 493, 0, 0]]}),
    "directories of another form": changed(record={"directories": {"etc": 493}}),
    "a manifest that is a list": b"[]",
    "a manifest that is no JSON": b"\x00\xff",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_manifest_of_another_form_is_left_out(registry: Registry, one: Machine, what: str) -> None:
    """The next repository is asked, and what was wrong is said once."""
    put(registry, HOSTILE[what])
    good(registry)
    assert one.bring(one.shared(f"{registry.host}/bad", f"{registry.host}/good"), KEY) == {KEY: BYTES}
    first, second = one.progress.notes
    assert first.startswith(f"segment cache {registry.host}/bad: ")
    assert second == "1 of 1 segments came from the cache"
    blobs = [path for path in registry.paths() if "/blobs/" in path]
    assert blobs == [f"/v2/good/blobs/{digest_bytes(BYTES)}"]


def test_more_than_a_package_could_become_is_not_fetched(registry: Registry, one: Machine) -> None:
    size = (256 << 20) + 64 * 1000
    for length, fits in ((size, True), (size + 1, False)):
        registry.requests.clear()
        put(registry, changed(layer={"size": length}, record={"members": [[length, 512]]}))
        assert one.bring(one.shared(f"{registry.host}/bad"), KEY, size=1000) == {}
        assert len([path for path in registry.paths() if "/blobs/" in path]) == fits


def test_bytes_with_another_digest_are_left_out(registry: Registry, one: Machine) -> None:
    put(registry, changed(), blob=BYTES)
    registry.blobs[digest_bytes(BYTES)] = BYTES[::-1]
    assert one.bring(one.shared(f"{registry.host}/bad"), KEY) == {}
    (said,) = one.progress.notes
    assert "have the digest" in said


def test_a_blob_that_is_gone_is_left_out_and_then_written_again(registry: Registry, one: Machine) -> None:
    repository = f"{registry.host}/cache"
    one.share(one.shared(writer=repository), SEGMENT)
    registry.blobs.clear()
    shared = one.shared(repository, writer=repository)
    assert one.bring(shared, KEY) == {}
    one.share(shared, SEGMENT)
    assert registry.blobs[digest_bytes(BYTES)] == BYTES


def test_what_the_receiver_refuses_is_asked_elsewhere_and_replaced(registry: Registry, one: Machine) -> None:
    """Also where the manifest is just right: a segment that isn't sound is pushed over."""
    bad, good_one = f"{registry.host}/bad", f"{registry.host}/good"
    other = b"other bytes, evil!"
    put(registry, dump_manifest(SEGMENT, digest_bytes(other)), blob=other)
    good(registry)
    refused = []

    def take(found: Found) -> None:
        content = found.part.read_bytes()
        if content == other:
            refused.append(found.key)
            raise BuildError("it isn't sound")
        one.found[found.key] = (found, content)

    shared = one.shared(bad, good_one, writer=bad)
    assert one.bring_to(shared, take, KEY) == {KEY: BYTES}
    assert refused == [KEY]
    assert one.progress.notes[0] == f"segment cache {bad}: it isn't sound"
    one.share(shared, SEGMENT)
    assert registry.manifests["bad", f"segment-{KEY}"][1] == dump_manifest(SEGMENT, digest_bytes(BYTES))


def test_a_registry_that_refuses_is_asked_no_more(registry: Registry, one: Machine) -> None:
    registry.auth, registry.user = "basic", ("me", "password-of-mine")
    keys = [f"{number:064x}" for number in range(40)]
    shared = one.shared(f"{registry.host}/cache")
    assert one.bring(shared, *keys) == {}
    asked = len(registry.requests)
    assert asked <= 3 + 8
    (said,) = one.progress.notes
    assert said.startswith(f"segment cache {registry.host}/cache: ")
    assert one.bring(shared, *keys) == {}
    assert len(registry.requests) == asked
    assert len(one.progress.notes) == 1


def test_a_registry_that_is_away_is_a_note_and_a_warning(
    registry: Registry, one: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{free.getsockname()[1]}/cache"
        shared = one.shared(away, writer=away)
        assert one.bring(shared, KEY, OTHER) == {}
        (said,) = one.progress.notes
        assert said.startswith(f"segment cache {away}: ")
        with caplog.at_level(logging.WARNING):
            one.share(shared, SEGMENT, EMPTY)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"not all segments went to the cache {away}: ")


def test_a_registry_that_falls_silent_is_left_to_itself(
    one: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with silent() as host:
        shared = one.shared(f"{host}/cache", writer=f"{host}/cache", patience=0.1)
        assert one.bring(shared, KEY, OTHER) == {}
        assert one.progress.notes == [f"segment cache {host}/cache: no answer for 0.1 seconds"]
        with caplog.at_level(logging.WARNING):
            one.share(shared, SEGMENT)
    (record,) = caplog.records
    assert record.getMessage() == f"not all segments went to the cache {host}/cache: it fell silent"


@contextmanager
def silent() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_damaged_segment_is_not_shared(
    registry: Registry, one: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    cache = one.cache(Segment(key=KEY, members=((18, 512),), paths=(), checksums=(1,)))
    segment = cache.get(KEY)
    assert segment is not None
    with Store(one.root).scratch() as scratch, caplog.at_level(logging.WARNING):
        one.shared(writer=f"{registry.host}/cache").share({KEY: segment}, cache, scratch)
    assert registry.blobs == {}
    assert registry.manifests == {}
    assert "is damaged" in caplog.records[0].getMessage()


@pytest.mark.parametrize("text", ["host.example/a:1", "host.example/a@sha256:" + "0" * 64, "cache:latest"])
def test_a_cache_has_no_tag(text: str) -> None:
    with pytest.raises(UsageError, match="names an image, and a cache of segments is a repository"):
        cache_repository(text)


def test_a_cache_may_have_a_port() -> None:
    assert cache_repository("127.0.0.1:5000/team/cache") == Reference(
        registry="127.0.0.1:5000", repository="team/cache", tag="latest"
    )


def test_a_manifest_of_another_segment_is_refused() -> None:
    with pytest.raises(FetchError):
        parse_manifest(dump_manifest(SEGMENT, digest_bytes(BYTES)), OTHER)
