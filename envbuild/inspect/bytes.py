"""What a machine with one image pulls for another."""

from __future__ import annotations

from collections.abc import Mapping


def pulled_bytes(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Bytes that whoever has the layers ``before`` (size by digest) pulls for ``after``."""
    return sum(size for digest, size in after.items() if digest not in before)
