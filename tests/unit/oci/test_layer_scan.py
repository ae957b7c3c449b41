"""A layer's entries by the fast scan: what ``tarfile`` says, and no more trust than it has."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.oci.layer import open_layer
from envbuild.oci.layer_scan import LayerScan, scan_layer
from envbuild.oci.manifest import OCI_LAYER

KINDS = [
    tarfile.REGTYPE,
    tarfile.CONTTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]

Row = tuple[str, int, bytes, str, bytes]


def made(rows: list[Row], form: int) -> bytes:
    """A tar of rows: name, bytes of content, type, link, content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for name, size, kind, link, content in rows:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, size
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def rows() -> st.SearchStrategy[list[Row]]:
    part = st.text(
        st.characters(min_codepoint=33, exclude_characters="/", exclude_categories=["Cs"]), max_size=9
    )
    name = st.lists(part.filter(lambda text: text not in ("", ".", "..")), min_size=1, max_size=40).map(
        "/".join
    )

    def row(name: str, kind: bytes, link: str, content: bytes) -> Row:
        data = content if kind in (tarfile.REGTYPE, tarfile.CONTTYPE) else b""
        linked = link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
        return (name, len(data), kind, linked, data)

    return st.lists(st.builds(row, name, st.sampled_from(KINDS), name, st.binary(max_size=1500)), max_size=6)


@given(rows=rows(), form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_entries_are_those_that_tarfile_finds(rows: list[Row], form: int) -> None:
    data = made(rows, form)
    scan = LayerScan(io.BytesIO(data))
    found = [(each.name, each.size, bytes([each.type]), each.link, scan.read(10_000)) for each in scan]
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        expected = [
            (
                each.name,
                each.size,
                each.type,
                each.linkname,
                file.read() if each.isreg() and (file := archive.extractfile(each)) else b"",
            )
            for each in archive
        ]
    assert [(name.rstrip("/"), *more) for name, *more in found] == expected


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_and_links_are_whole(form: int) -> None:
    name, link = "/".join(["directory"] * 14) + "/" + "n" * 90, "l" * 100
    data = made([(name, 3, tarfile.REGTYPE, "", b"abc"), ("s", 0, tarfile.SYMTYPE, link, b"")], form)
    assert [(each.name, each.link) for each in LayerScan(io.BytesIO(data))] == [(name, ""), ("s", link)]


def test_a_part_of_the_content_may_be_read_and_the_rest_is_passed_over() -> None:
    data = made(
        [("a", 3000, tarfile.REGTYPE, "", b"x" * 3000), ("b", 2, tarfile.REGTYPE, "", b"yz")], FORMATS[2]
    )
    scan = LayerScan(io.BytesIO(data))
    entries = iter(scan)
    assert next(entries).name == "a"
    assert (scan.read(10), scan.read(5)) == (b"x" * 10, b"x" * 5)
    assert next(entries).name == "b"
    assert (scan.read(100), scan.read(100)) == (b"yz", b"")
    assert list(entries) == []


def test_a_file_larger_than_what_is_read_at_once_is_passed_over(tmp_path: Path) -> None:
    size = (3 << 20) + 7
    blob = tmp_path / "layer"
    blob.write_bytes(
        made(
            [("big", size, tarfile.REGTYPE, "", bytes(size)), ("z", 1, tarfile.REGTYPE, "", b"!")], FORMATS[0]
        )
    )
    with scan_layer(blob, OCI_LAYER) as scan:
        assert [(each.name, each.size, scan.read(1)) for each in scan] == [
            ("big", size, b"\0"),
            ("z", 1, b"!"),
        ]


def test_a_sparse_file_of_gnu_is_passed_over_with_its_map() -> None:
    header = bytearray(tarfile.TarInfo("holes").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[124:136] = b"00000000004\0"
    header[482] = 1
    checked(header)
    data = bytes(header) + bytes(512) + b"data" + bytes(508)
    data += made([("after", 0, tarfile.REGTYPE, "", b"")], FORMATS[1])
    entries = list(LayerScan(io.BytesIO(data)))
    assert [(entry.name, entry.is_regular) for entry in entries] == [("holes", False), ("after", True)]


def test_a_directory_of_old_is_known_by_its_slash() -> None:
    header = bytearray(tarfile.TarInfo("old/").tobuf(tarfile.USTAR_FORMAT))
    header[156] = 0
    checked(header)
    (entry,) = LayerScan(io.BytesIO(bytes(header)))
    assert entry.is_directory


def test_a_size_of_gnus_own_form_is_read() -> None:
    header = bytearray(tarfile.TarInfo("large").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (9 << 30).to_bytes(11, "big")
    checked(header)
    assert next(iter(LayerScan(io.BytesIO(bytes(header))))).size == 9 << 30


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"x" * 512, ValueError, "no number|damaged"),
        (b"x" * 100, EOFError, "within an entry"),
        (made([("a", 600, tarfile.REGTYPE, "", b"x" * 600)], FORMATS[0])[:900], EOFError, "within an entry"),
    ],
)
def test_a_damaged_tar_is_no_tar(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(LayerScan(io.BytesIO(data)))


def extension(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """An extended header with this content, then an entry."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(data) if size is None else size
    padding = bytes(-len(data) % 512)
    return (
        info.tobuf(tarfile.USTAR_FORMAT)
        + data
        + padding
        + made([("a", 0, tarfile.REGTYPE, "", b"")], FORMATS[0])
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (extension(b"x", b"9 path=bc"), "extended header is damaged"),
        (extension(b"x", b"999 path=b\n"), "extended header is damaged"),
        (extension(b"x", b"path=b\n"), "extended header is damaged"),
        (extension(b"x", b"0 path=b\n"), "extended header is damaged"),
        (extension(b"x", b"12 size=-10\n"), "no number"),
        (extension(b"g", b"10 path=b\n"), "a header for all entries names one"),
        (extension(b"L", b"", 2 << 20), "longer than any"),
    ],
)
def test_what_readers_might_understand_in_two_ways_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(LayerScan(io.BytesIO(data)))


def test_a_header_for_all_entries_may_hold_a_comment() -> None:
    data = extension(b"g", b"13 comment=x\n")
    assert [each.name for each in LayerScan(io.BytesIO(data))] == ["a"]


def test_a_foreign_layer_is_scanned_as_tarfile_reads_it(tmp_path: Path) -> None:
    blob = tmp_path / "layer"
    with tarfile.open(blob, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(Path(__file__).parent, "unit")
    with open_layer(blob, OCI_LAYER) as archive, scan_layer(blob, OCI_LAYER) as scan:
        expected = [(each.name, each.size, each.isdir()) for each in archive]
        assert [(each.name.rstrip("/"), each.size, each.is_directory) for each in scan] == expected


def checked(header: bytearray) -> None:
    """Sets the check sum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
