"""The cache of segments."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.store.content import Store
from envbuild.store.segments import DamagedSegment, Segment, SegmentCache

SEGMENT = Segment(
    key="f" * 64,
    members=((3, 1024), (4, 512)),
    paths=(("a", 0), ("ü/b", 1024)),
    links=(("ü/b", "a"),),
    directories=(("tmp", 0o1777, 0, 0),),
)


@pytest.fixture
def cache(tmp_path: Path) -> SegmentCache:
    cache = SegmentCache(Store(tmp_path / "store"))
    part = tmp_path / "part"
    part.write_bytes(b"abcdefg")
    cache.store.root.mkdir()
    cache.put(SEGMENT, part)
    return cache


def test_a_segment_comes_back_with_its_members(cache: SegmentCache) -> None:
    assert cache.get(SEGMENT.key) == SEGMENT
    assert list(cache.members(SEGMENT)) == [(b"abc", 1024), (b"defg", 512)]
    assert (SEGMENT.size, SEGMENT.unpacked) == (7, 1536)
    assert SEGMENT.offsets == {"a": (0, 1024), "ü/b": (1024, 1536)}


def test_a_segment_of_another_size_is_not_there(cache: SegmentCache) -> None:
    cache.data(SEGMENT.key).write_bytes(b"abc")
    assert cache.get(SEGMENT.key) is None


def test_a_segment_cut_while_it_is_used_is_damaged(cache: SegmentCache) -> None:
    cache.data(SEGMENT.key).write_bytes(b"abcd")
    with pytest.raises(DamagedSegment):
        list(cache.members(SEGMENT))
    cache.drop(SEGMENT.key)
    with pytest.raises(DamagedSegment):
        list(cache.members(SEGMENT))


def test_a_record_that_was_changed_is_not_believed(cache: SegmentCache) -> None:
    record = cache.data(SEGMENT.key).with_suffix(".json")
    record.write_bytes(record.read_bytes().replace(b'"tmp"', b'"etc"'))
    assert cache.get(SEGMENT.key) is None


def test_a_member_with_other_bytes_is_damaged(cache: SegmentCache, tmp_path: Path) -> None:
    """A flipped bit can lie where no checksum of gzip's looks: in a header, or in the bits that fill up."""
    checked = replace(SEGMENT, checksums=(zlib.crc32(b"abc"), zlib.crc32(b"defg")))
    part = tmp_path / "part"
    part.write_bytes(b"abcdefg")
    cache.put(checked, part)
    assert cache.get(SEGMENT.key) == checked
    assert len(list(cache.members(checked))) == 2
    cache.data(SEGMENT.key).write_bytes(b"abcdefG")
    with pytest.raises(DamagedSegment):
        list(cache.members(checked))
