"""Whatever is written as tar is read back by the standard library, the same."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.compose.base import Entry, EntryKind
from envbuild.compose.tar import END, RECORD, check_path, entry_stream

_text = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=130
).filter(lambda part: part not in (".", "..") and not part.startswith(".wh."))
_paths = st.lists(_text, min_size=1, max_size=4).map("/".join)
_ids = st.integers(0, 1 << 31)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(EntryKind))
    return Entry(
        path=draw(_paths),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        content=draw(st.binary(max_size=1500)) if kind is EntryKind.FILE else b"",
        target=draw(_paths) if kind is EntryKind.SYMLINK else "",
        uid=draw(_ids),
        gid=draw(_ids),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(entries(), max_size=4))
def test_tarfile_reads_back_what_was_written(written: list[Entry]) -> None:
    for entry in written:
        check_path(entry.path)
    data = b"".join(chunk for entry in written for chunk in entry_stream(entry)) + END
    assert len(data) % RECORD == 0
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        found = tar.getmembers()
        assert [member.name for member in found] == [entry.path for entry in written]
        for member, entry in zip(found, written, strict=True):
            assert (member.uid, member.gid, member.mtime) == (entry.uid, entry.gid, 315532800)
            assert (member.uname, member.gname) == ("", "")
            if entry.kind is EntryKind.FILE:
                assert member.isreg()
                stream = tar.extractfile(member)
                assert stream is not None
                assert stream.read() == entry.content
            if entry.kind is EntryKind.SYMLINK:
                assert member.issym()
                assert (member.linkname, member.mode) == (entry.target, 0o777)
            else:
                assert member.mode == entry.mode
