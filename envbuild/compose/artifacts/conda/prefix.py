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
from envbuild.oci.digest import CHUNK

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
    match = _SHEBANG.match(data)
    if match is None:
        return data
    line, program, options = match.group(0), match.group(2), match.group(3)
    if len(line) <= MAX_SHEBANG and b"\\ " not in program:
        return data
    name = program.rsplit(b"/", 1)[-1]
    return b"#!/usr/bin/env " + name + options + data[match.end() :]


def _replace_text(data: bytes | mmap.mmap, old: bytes, new: bytes) -> Iterator[bytes]:
    start = 0
    while (at := _find(data, old, start)) != -1:
        yield from _copy(data, start, at)
        yield new
        start = at + len(old)
    yield from _copy(data, start, len(data))


def _replace_strings(data: bytes | mmap.mmap, old: bytes, new: bytes, path: str) -> Iterator[bytes]:
    if len(new) > len(old):
        raise BuildError(
            f"{path}: no room for the prefix: {new.decode()} is longer than the one it was built with",
            hint="the package can't be put there; choose another build of it",
        )
    start = 0
    at = _find(data, old, start)
    while at != -1:
        end = _find(data, b"\0", at)
        if end == -1:  # not a C string, so conda leaves it as it is
            break
        count = 0
        while at != -1 and at < end:
            yield from _copy(data, start, at)
            yield new
            count += 1
            start = at + len(old)
            at = _find(data, old, start)
        yield from _copy(data, start, end)
        yield b"\0" * ((len(old) - len(new)) * count)
        start = end
    yield from _copy(data, start, len(data))


def _find(data: bytes | mmap.mmap, wanted: bytes, start: int) -> int:
    """``data.find``, in windows, so that the pages of a large file needn't be in memory all at once."""
    for window in range(start, len(data), CHUNK):
        at = data.find(wanted, window, window + CHUNK + len(wanted) - 1)
        if at != -1:
            return at
        _release(data)
    return -1


def _copy(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, CHUNK):
        yield data[at : min(at + CHUNK, end)]
        _release(data)


def _release(data: bytes | mmap.mmap) -> None:
    """Lets go of a mapped file's pages; what is needed again comes back from the page cache."""
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)


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
