"""The prefix in text, in binaries and in shebang lines."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from envbuild.compose.artifacts.conda.prefix import replace_in_file, replace_prefix, short_shebang
from envbuild.errors import BuildError


def replaced(data: bytes, old: str, new: str, mode: str) -> bytes:
    return b"".join(replace_prefix(data, old, new, mode, "lib/x"))


def test_text_is_replaced_everywhere() -> None:
    assert replaced(b"a=/old/x:/old/y", "/old", "/much/longer", "text") == b"a=/much/longer/x:/much/longer/y"


def test_a_c_string_with_two_prefixes_keeps_its_length() -> None:
    data = b"\1/older/a:/older/b\0\2"
    assert replaced(data, "/older", "/new", "binary") == b"\1/new/a:/new/b\0\0\0\0\0\2"


def test_a_prefix_without_an_end_stays() -> None:
    assert replaced(b"x/older/a", "/older", "/new", "binary") == b"x/older/a"


def test_a_longer_prefix_has_no_room_in_a_binary() -> None:
    with pytest.raises(BuildError) as caught:
        replaced(b"/a\0", "/a", "/bb", "binary")
    assert caught.value.message.startswith("lib/x: no room for the prefix")


def test_a_shebang_that_a_kernel_would_cut_goes_through_env() -> None:
    long = b"#!/" + b"p" * 130 + b"/bin/python3 -E\nrest\n"
    assert short_shebang(long) == b"#!/usr/bin/env python3 -E\nrest\n"
    assert short_shebang(b"#!/opt/env/bin/python -E\n") == b"#!/opt/env/bin/python -E\n"
    assert replaced(b"#!/o/bin/sh\nx", "/o", "/" + "p" * 130, "text") == b"#!/usr/bin/env sh\nx"


@pytest.mark.parametrize("window", [1, 7, 1 << 20])
@pytest.mark.parametrize("mode", ["text", "binary"])
def test_windows_of_a_large_file_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, mode: str
) -> None:
    monkeypatch.setattr("envbuild.compose.artifacts.conda.prefix.CHUNK", window)
    strings = [b"", b"/older", b"x/older/a:/older/b", b"/olde/older", b"y" * 20, b"/older/older", b"/older/c"]
    data = b"\0".join(strings)
    if mode == "text":
        expected = data.replace(b"/older", b"/new")
    else:
        parts = [string.replace(b"/older", b"/new").ljust(len(string), b"\0") for string in strings[:-1]]
        expected = b"\0".join([*parts, strings[-1]])
    assert replaced(data, "/older", "/new", mode) == expected
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(data)
    size, sha256 = replace_in_file(source, sink, "/older", "/new", mode, "lib/x")
    assert (sink.read_bytes(), size) == (expected, len(expected))
    assert sha256 == hashlib.sha256(expected).hexdigest()


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.seek(64 << 20)
        file.write(b"/older/lib\0")
        file.truncate(128 << 20)
    tracemalloc.start()
    try:
        size, _ = replace_in_file(source, tmp_path / "sink", "/older", "/new", "binary", "lib/x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 128 << 20
    assert peak < 8 << 20
