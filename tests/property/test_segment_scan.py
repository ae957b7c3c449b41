"""Whatever is done to a segment's bytes: it is refused, or its record is what other readers see."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.compose.codec import codec
from envbuild.compose.segment_scan import scan_segment
from envbuild.compose.tar import END, entry_stream
from envbuild.errors import BuildError
from tests.fakes.source import SITE, file, symlink

STREAM = b"".join(
    data
    for entry in (
        file(f"{SITE}/a.py", b"x = 1\n"),
        file(f"{SITE}/{'d' * 90}/{'naïve' * 20}.py", b"y" * 600),
        symlink("opt/env/bin/python", "python3"),
        file("opt/env/empty"),
    )
    for data in entry_stream(entry)
)
# Most of a header is zeros: what is said there is in these places.
PLACES = st.integers(0, len(STREAM) - 1) | st.sampled_from(
    [at for at, byte in enumerate(STREAM) if byte not in b"\0y"]
)
BYTES = st.integers(0, 255) | st.sampled_from(b"\x00 /.0178x25gLK=\n-")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PLACES, BYTES), max_size=4), st.booleans())
def test_a_changed_segment_is_refused_or_read_as_others_read_it(
    changes: list[tuple[int, int]], mend: bool
) -> None:
    stream = bytearray(STREAM)
    for at, byte in changes:
        stream[at] = byte
    if mend:
        for start in range(0, len(stream), 512):
            _mend(stream, start)
    with TemporaryDirectory() as directory:
        part = Path(directory) / "part"
        member = codec("gzip").compress(bytes(stream))
        part.write_bytes(member)
        try:
            segment = scan_segment("k", part, ((len(member), len(stream)),), (), codec("gzip"))
        except BuildError:
            assert stream != STREAM
            return
    with tarfile.open(fileobj=io.BytesIO(bytes(stream) + END), mode="r:") as tar:
        seen = tar.getmembers()
    assert [(each.name, each.offset) for each in seen] == list(segment.paths)
    assert [(each.name, each.linkname) for each in seen if each.issym()] == list(segment.links)
    assert all(each.isreg() or each.issym() for each in seen)


def _mend(stream: bytearray, start: int) -> None:
    """Makes the checksum of what looks like a header the right one, as whoever changes it would."""
    if stream[start + 257 : start + 262] == b"ustar":
        stream[start + 148 : start + 156] = b"        "
        stream[start + 148 : start + 156] = b"%06o\0 " % sum(stream[start : start + 512])
