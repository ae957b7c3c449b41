"""Compression that depends on its input alone."""

from __future__ import annotations

import gzip
import hashlib
import subprocess

import pytest

from envbuild.compose.codec import Codec, codec
from envbuild.errors import BuildError, UsageError

BLOCK = b"".join(b"%d: some text, some more\n" % number for number in range(4000))


@pytest.fixture(params=["gzip", "zstd"])
def each(request: pytest.FixtureRequest) -> Codec:
    return codec(str(request.param))


def test_blocks_come_back(each: Codec) -> None:
    for block in (b"", b"x", BLOCK):
        assert each.expand(each.compress(block), len(block)) == block


def test_damage_is_found(each: Codec) -> None:
    member = bytearray(each.compress(BLOCK))
    member[len(member) // 2] ^= 1
    with pytest.raises(BuildError, match="damaged"):
        each.expand(bytes(member), len(BLOCK))
    with pytest.raises(BuildError, match="damaged"):
        each.expand(each.compress(BLOCK), len(BLOCK) - 1)


def test_gzip_header_says_nothing_of_this_machine() -> None:
    assert codec("gzip").compress(b"x")[:10].hex() == "1f8b08000000000000ff"


def test_members_concatenate_to_a_stream_the_standard_tools_read() -> None:
    packing = codec("gzip")
    stream = packing.compress(BLOCK) + packing.compress(b"") + packing.compress(b"end")
    assert gzip.decompress(stream) == BLOCK + b"end"
    assert (
        subprocess.run(["gzip", "-dc"], input=stream, capture_output=True, check=True).stdout
        == BLOCK + b"end"
    )


def test_gzip_bytes_are_fixed_for_this_version_of_the_codec() -> None:
    packing = codec("gzip")
    if packing.identity != "gzip-3/deflate-0.9.0/4194304":
        pytest.skip("another version of the codec has its own bytes, and its own cache keys")
    assert (
        hashlib.sha256(packing.compress(BLOCK)).hexdigest()
        == "7e3369ae80bb7fc22551a15f1e18cb0967019442999e344a4df37ad1243a4fb8"
    )


def test_identity_names_library_level_and_block() -> None:
    import zstandard

    version = ".".join(map(str, zstandard.ZSTD_VERSION))
    assert codec("zstd").identity == f"zstd-3/{version}/4194304"


def test_unknown_names_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="unknown compression 'lzma'"):
        codec("lzma")
