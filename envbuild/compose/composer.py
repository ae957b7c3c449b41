"""What the composer's bytes depend on beside a plan."""

from __future__ import annotations

from envbuild.compose.bytecode import BYTECODE_FORMAT
from envbuild.compose.codec import FORMAT, codec


def composer_identity(compression: str) -> str:
    """The composer's formats and the codec with its version: part of every lock digest."""
    return f"{FORMAT} {codec(compression).identity} {BYTECODE_FORMAT}"
