"""A segment from elsewhere: its record is read from its bytes, and nothing hides in them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.base import Entry
from envbuild.compose.codec import BLOCK, Codec, codec
from envbuild.compose.segment import SegmentInputs, SegmentMaker, WorkerPools
from envbuild.compose.segment_scan import scan_segment
from envbuild.compose.tar import END, entry_header, entry_stream
from envbuild.errors import BuildError
from envbuild.store.segments import DirectoryRow, Segment
from tests.fakes.source import PYTHON, SITE, FakeCompiler, artifact, directory, file, symlink

LONG = f"{SITE}/{'d' * 90}/{'e' * 120}.py"
ENTRIES = [
    directory("var/mail", 0o2775),
    file(f"{SITE}/pack/__init__.py", b"import os\n"),
    file(f"{SITE}/pack/big.so", bytes(range(256)) * (BLOCK // 200), 0o755),
    file(f"{SITE}/pack/empty"),
    file(LONG, b"x = 1\n"),
    # The PAX header of this one lies across the end of the first block.
    file(f"{SITE}/pack/fill", bytes(BLOCK - 7 * 512 - 512)),
    file(f"{SITE}/pack/naïve.py", b"y = 2\n"),
    symlink("opt/env/bin/tool", f"../{'t' * 150}"),
    symlink("opt/env/bin/python", "python3"),
    replace(file("opt/env/owned", b"z"), uid=0o17777777, gid=1000),
]


def made(tmp_path: Path, packing: Codec, entries: Sequence[Entry] = ENTRIES) -> tuple[Segment, Path]:
    with WorkerPools(1) as pools:
        maker = SegmentMaker(codec=packing, pools=pools, scratch=tmp_path, compiler=FakeCompiler())
        recipe = SegmentInputs(artifact=artifact("pack"), python=PYTHON, compiler="fake")
        return maker.make(recipe, iter(entries))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_the_record_is_the_one_that_the_maker_wrote(tmp_path: Path, name: str) -> None:
    segment, part = made(tmp_path, codec(name))
    assert len(segment.members) > 3
    beats: list[None] = []
    found = scan_segment(
        segment.key,
        part,
        segment.members,
        segment.directories,
        codec(name),
        beat=lambda: beats.append(None),
    )
    assert found == segment
    assert len(beats) == len(segment.members)


def test_a_header_may_lie_across_two_members(tmp_path: Path) -> None:
    """Wherever the blocks are cut, the record is the same."""
    stream = b"".join(data for entry in ENTRIES[4:] for data in entry_stream(entry))
    records = set()
    for step in (512, 1024, 1536, BLOCK):
        part, members = packed(tmp_path, [stream[at : at + step] for at in range(0, len(stream), step)])
        found = scan_segment("k", part, members, (), codec("gzip"))
        records.add((found.paths, found.links))
    assert len(records) == 1


def packed(
    tmp_path: Path, blocks: Sequence[bytes], packing: Codec | None = None
) -> tuple[Path, tuple[tuple[int, int], ...]]:
    members = [(packing or codec("gzip")).compress(block) for block in blocks]
    part = tmp_path / "part"
    part.write_bytes(b"".join(members))
    return part, tuple((len(member), len(block)) for member, block in zip(members, blocks, strict=True))


def refused(
    tmp_path: Path, stream: bytes, directories: Sequence[DirectoryRow] = (), step: int = BLOCK
) -> str:
    part, members = packed(tmp_path, [stream[at : at + step] for at in range(0, len(stream), step)])
    with pytest.raises(BuildError) as raised:
        scan_segment("k", part, members, directories, codec("gzip"))
    return raised.value.message


def plain(path: str = "opt/env/x", content: bytes = b"good") -> bytes:
    return b"".join(entry_stream(file(path, content)))


def by_tarfile(kind: int, **changes: object) -> bytes:
    """One entry as Python's own writer makes it."""
    info = tarfile.TarInfo("opt/env/y")
    info.mode = 0o644
    for key, value in changes.items():
        setattr(info, key, value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        tar.addfile(info)
    return buffer.getvalue()[: tar.offset]


def pax(body: bytes, path: str = "opt/env/x") -> bytes:
    """A file behind a PAX header with ``body``."""
    head = bytearray(entry_header(file("p"), len(body), 0))
    head[0:100] = b"././@PaxHeader".ljust(100, b"\0")
    head[156:157] = b"x"
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + body + bytes(-len(body) % 512) + plain(path)


HOSTILE = {
    "a hard link": by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.LNKTYPE, linkname="etc/shadow"),
    "a directory": by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.DIRTYPE),
    "a device": by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a named owner": by_tarfile(tarfile.USTAR_FORMAT, uname="root"),
    "a time": by_tarfile(tarfile.USTAR_FORMAT, mtime=1),
    "GNU's magic": by_tarfile(tarfile.GNU_FORMAT),
    "GNU's long name": by_tarfile(tarfile.GNU_FORMAT, name="n" * 120),
    "an extended attribute": by_tarfile(tarfile.PAX_FORMAT, pax_headers={"SCHILY.xattr.user.a": "b"}),
    "a needless PAX header": pax(b"18 path=opt/env/x\n"),
    "a PAX header for all": pax(b"13 path=opt/\n").replace(b"x\0\0", b"g\0\0", 1),
    "a PAX header without an end": pax(b"99 path=opt/env/x\n"),
    "a PAX header without a length": pax(b"path=opt/env/x\n"),
    "an absolute path": plain().replace(b"opt/env/x", b"/opt/envx"),
    "a path that climbs": plain().replace(b"opt/env/x", b"opt/../xx"),
    "a whiteout": plain().replace(b"opt/env/x", b"opt/.wh.x"),
    "a wrong checksum": plain()[:150] + b"7" + plain()[151:],
    "a negative size": plain().replace(b"00000000004\0", b"-0000000512\0"),
    "a size in base 256": plain().replace(b"00000000004\0", b"\x80" + bytes(10) + b"\x04"),
    "an end of archive": END + plain(),
    "half an end of archive": bytes(512) + plain(),
    "a path twice": plain() + plain(content=b"evil"),
    "a file that breaks off": plain(content=b"x" * 600)[:-512],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_never_written_here_is_refused(tmp_path: Path, what: str) -> None:
    for step in (BLOCK, 512):
        message = refused(tmp_path, plain("opt/env/a") + HOSTILE[what], step=step)
        assert message.startswith(("a segment isn't sound: ", "'", "opt/env"))


def test_a_path_that_readers_would_see_otherwise_is_refused(tmp_path: Path) -> None:
    """The short name and that of the PAX header differ: who ignores the latter sees the former."""
    entry = file("n" * 200, b"good")
    header = entry_header(entry, 4, 0)
    assert b"n" * 100 in header[1024:]
    message = refused(tmp_path, header[:1024] + b"etc/ld.so".ljust(100, b"n") + header[1124:] + bytes(512))
    assert "isn't the one that belongs there" in message


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_nothing_hides_behind_a_member(tmp_path: Path, name: str) -> None:
    packing = codec(name)
    good, hidden = packing.compress(plain()), packing.compress(plain("etc/passwd"))
    part = tmp_path / "part"
    part.write_bytes(good + hidden)
    with pytest.raises(BuildError):
        scan_segment("k", part, ((len(good) + len(hidden), 1024),), (), packing)
    with pytest.raises(BuildError, match="bytes follow its last member"):
        scan_segment("k", part, ((len(good), 1024),), (), packing)


@pytest.mark.parametrize("members", [((0, 512),), ((5, 0),), ((5, -512),), ((5, 100),), ((5, BLOCK + 512),)])
def test_members_of_impossible_sizes_are_refused(
    tmp_path: Path, members: tuple[tuple[int, int], ...]
) -> None:
    (tmp_path / "part").write_bytes(b"12345")
    with pytest.raises(BuildError, match="a member has an impossible size"):
        scan_segment("k", tmp_path / "part", members, (), codec("gzip"))


def test_a_member_that_expands_to_more_or_less_is_refused(tmp_path: Path) -> None:
    for name in ("gzip", "zstd"):
        part, ((size, block),) = packed(tmp_path, [plain()], codec(name))
        for stated in (block - 512, block + 512, BLOCK):
            with pytest.raises(BuildError):
                scan_segment("k", part, ((size, stated),), (), codec(name))


@pytest.mark.parametrize(
    "rows",
    [
        [("/etc", 0o755, 0, 0)],
        [("../etc", 0o755, 0, 0)],
        [("etc/.wh.x", 0o755, 0, 0)],
        [("", 0o755, 0, 0)],
        [("etc", 0o10000, 0, 0)],
        [("etc", -1, 0, 0)],
        [("etc", 0o755, -1, 0)],
        [("etc", 0o755, 0, 1 << 32)],
        [("etc", 0o755, 0, 0), ("etc", 0o700, 0, 0)],
    ],
)
def test_directories_are_checked_as_paths_are(tmp_path: Path, rows: list[DirectoryRow]) -> None:
    refused(tmp_path, plain(), rows)
