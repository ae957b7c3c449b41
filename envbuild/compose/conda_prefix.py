"""Puts the prefix of an image in the place of the one that conda packages are built with.

As conda does it (``conda.core.portability``): in text every occurrence; in binaries each C string, padded
with NUL to its old length; shebang lines that a kernel would cut off go through ``/usr/bin/env``.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from envbuild.errors import BuildError

MAX_SHEBANG = 127
"""Bytes of a shebang line that Linux reads (BINPRM_BUF_SIZE less one)."""
_SHEBANG = re.compile(rb"\A(#!\s*)(/(?:\\ |[^ \n\r\t])*)([^\n]*)")


def replace_prefix(
    data: bytes | mmap.mmap, placeholder: str, prefix: str, mode: str, path: str
) -> Iterator[bytes]:
    """The content in pieces. ``mode`` is ``text`` or ``binary``.

    Raises ``BuildError`` where a binary has no room for ``prefix``, naming ``path``.
    """
    old, new = placeholder.encode(), prefix.encode()
    if mode == "text":
        pieces = _replace_text(data, old, new)
        first = next(pieces, b"")
        while b"\n" not in first[:4096] and len(first) < 4096:
            more = next(pieces, b"")
            if not more:
                break
            first += more
        yield short_shebang(first)
        yield from pieces
    else:
        yield from _replace_strings(data, old, new, path)


def short_shebang(data: bytes) -> bytes:
    """``data`` with a shebang line the kernel takes: one too long, or with a blank in its program, goes
    through ``/usr/bin/env``."""
    found = _SHEBANG.match(data)
    if found is None:
        return data
    line, program, options = found.group(0), found.group(2), found.group(3)
    if len(line) <= MAX_SHEBANG and b"\\ " not in program:
        return data
    name = program.rsplit(b"/", 1)[-1]
    return b"#!/usr/bin/env " + name + options + data[found.end() :]


def _replace_text(data: bytes | mmap.mmap, old: bytes, new: bytes) -> Iterator[bytes]:
    start = 0
    while (found := data.find(old, start)) != -1:
        yield data[start:found] + new
        start = found + len(old)
    yield data[start:]


def _replace_strings(data: bytes | mmap.mmap, old: bytes, new: bytes, path: str) -> Iterator[bytes]:
    if len(new) > len(old):
        raise BuildError(
            f"{path}: no room for the prefix: {new.decode()} is longer than the one it was built with",
            hint="the package can't be put there; choose another build of it",
        )
    start = 0
    while (found := data.find(old, start)) != -1:
        end = data.find(b"\0", found)
        if end == -1:  # not a C string, so conda leaves it as it is
            break
        yield data[start:found]
        text = data[found:end]
        count = text.count(old)
        yield text.replace(old, new) + b"\0" * ((len(old) - len(new)) * count)
        start = end
    yield data[start:]


def replace_in_file(
    source: Path, sink: Path, placeholder: str, prefix: str, mode: str, path: str
) -> tuple[int, str]:
    """Writes ``source`` with the prefix replaced to ``sink``: its size and SHA-256 (bare hex)."""
    digest, size = hashlib.sha256(), 0
    with (
        source.open("rb") as reader,
        mmap.mmap(reader.fileno(), 0, access=mmap.ACCESS_READ) as data,
        sink.open("wb") as writer,
    ):
        for piece in replace_prefix(data, placeholder, prefix, mode, path):
            digest.update(piece)
            size += len(piece)
            writer.write(piece)
    return size, digest.hexdigest()
