"""The prefix in text, in binaries and in shebang lines."""

from __future__ import annotations

import pytest

from envbuild.compose.conda_prefix import replace_prefix, short_shebang
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
