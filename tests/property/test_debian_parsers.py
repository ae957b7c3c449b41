"""Debian's formats from hostile hands: an answer or a refusal, never anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.compose.artifacts.deb.archive import UnsafeArchive, control_files, data_entries
from envbuild.lock.debian.control import relations
from envbuild.lock.debian.version import DebianVersion
from tests.fakes.archive import deb_bytes, link

_DEB = deb_bytes("tool", files=[("./usr/a", b"x" * 300), link("./usr/b", "a")], suffix=".gz")
_VERSIONS = st.text("0123456789.+~ab-", min_size=1, max_size=8).map(lambda text: f"1{text}")


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(_DEB) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_package_is_refused_or_read(position: int, byte: int, cut: bool) -> None:
    data = _DEB[:position] if cut else _DEB[:position] + bytes([byte]) + _DEB[position + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deb"
        path.write_bytes(data)
        try:
            control_files(path)
            paths = set(data_entries(path, Path(folder)))
        except UnsafeArchive:
            return
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in paths)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_a_dependency_field_is_read_or_refused(text: str) -> None:
    try:
        groups = relations(text)
    except ValueError:
        return
    assert all(group for group in groups)


@settings(max_examples=200, deadline=None)
@given(_VERSIONS, _VERSIONS, _VERSIONS)
def test_versions_are_totally_ordered(one: str, two: str, three: str) -> None:
    a, b, c = sorted((DebianVersion(one), DebianVersion(two), DebianVersion(three)))
    assert a <= b <= c
    assert a <= c
    assert (a < b) + (a == b) + (a > b) == 1
