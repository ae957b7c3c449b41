"""The lock digest: all that reaches the image counts, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.lock.identity import Composition, lock_digest
from envbuild.lock.model import Lock, PlatformLock
from tests.unit.lock.sample import AMD64, BASE, IDNA, LIBC, LOCK, SIX, TZDATA

COMPOSITION = Composition(composer="1 gzip")


def test_the_digest_of_a_known_lock() -> None:
    assert lock_digest(LOCK, AMD64, COMPOSITION) == (
        "sha256:df1f171986855793fd5fc655d5587baca51f40210a98e1b33b6d64471f82f947"
    )


@pytest.mark.parametrize(
    ("lock", "pins"),
    [
        (LOCK, replace(AMD64, pip=(SIX, IDNA), base=replace(BASE, packages=(TZDATA, LIBC)))),
        (LOCK, replace(AMD64, pip=(replace(IDNA, via=()), SIX))),
        (replace(LOCK, engines=()), AMD64),
        (replace(LOCK, platforms=(AMD64,)), AMD64),
    ],
    ids=["order", "who asked", "resolvers", "other platforms"],
)
def test_what_does_not_reach_the_image_does_not_count(lock: Lock, pins: PlatformLock) -> None:
    assert lock_digest(lock, pins, COMPOSITION) == lock_digest(LOCK, AMD64, COMPOSITION)


@pytest.mark.parametrize(
    ("lock", "pins", "composition"),
    [
        (replace(LOCK, definition="sha256:" + "4" * 64), AMD64, COMPOSITION),
        (replace(LOCK, bytecode=False), AMD64, COMPOSITION),
        (replace(LOCK, runtime=replace(LOCK.runtime, user="0:0")), AMD64, COMPOSITION),
        (replace(LOCK, runtime=replace(LOCK.runtime, environment_variables=())), AMD64, COMPOSITION),
        (LOCK, replace(AMD64, pip=(IDNA,)), COMPOSITION),
        (LOCK, replace(AMD64, pip=(IDNA, replace(SIX, sha256="4" * 64))), COMPOSITION),
        (LOCK, replace(AMD64, base=replace(BASE, packages=(LIBC,))), COMPOSITION),
        (LOCK, AMD64, replace(COMPOSITION, compression="zstd")),
        (LOCK, AMD64, replace(COMPOSITION, composer="2 gzip")),
        (LOCK, AMD64, replace(COMPOSITION, layer_budget=10)),
        (LOCK, AMD64, replace(COMPOSITION, created=1)),
    ],
)
def test_what_reaches_the_image_counts(lock: Lock, pins: PlatformLock, composition: Composition) -> None:
    assert lock_digest(lock, pins, composition) != lock_digest(LOCK, AMD64, COMPOSITION)
