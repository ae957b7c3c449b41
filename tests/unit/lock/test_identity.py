"""The lock digest: all that reaches the image counts, and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from envbuild.lock.identity import ComposerSettings, conda_identity, lock_digest
from envbuild.lock.model import CondaPin, GitCommit, Lock, PlatformLock
from tests.unit.lock.sample import AMD64, ARM64, BASE, IDNA, LIBC, LOCK, SIX, STANDALONE, TZDATA, ZLIB

COMPOSITION = ComposerSettings(composer="1 gzip")


def test_the_digest_of_a_known_lock() -> None:
    assert lock_digest(LOCK, AMD64, COMPOSITION) == (
        "sha256:edf3e967ab428e1b1e5c322a47431f667854ab7a92ae2463d9a0f5b0a4f47087"
    )


def test_the_digest_of_a_known_lock_with_conda_packages() -> None:
    assert lock_digest(LOCK, ARM64, COMPOSITION) == (
        "sha256:a90ba84cbdf6824f27035234912e52e6d69b21825c86417eac220b8daaba4e28"
    )


@pytest.mark.parametrize(
    "pin",
    [
        replace(ZLIB, name="zlib-ng"),
        replace(ZLIB, version="1.3.2"),
        replace(ZLIB, build="h0_1"),
        replace(ZLIB, build_number=1),
        replace(ZLIB, subdir="noarch"),
        replace(ZLIB, url="https://mirror.example/forge/linux-aarch64/zlib-1.3.1-h0_0.conda"),
        replace(ZLIB, channel="https://mirror.example/forge"),
        replace(ZLIB, size=90001),
        replace(ZLIB, sha256="4" * 64),
        replace(ZLIB, md5="1" * 32),
        replace(ZLIB, depends=()),
        replace(ZLIB, constrains=("zlib-ng >=2",)),
        replace(ZLIB, noarch="generic"),
        replace(ZLIB, timestamp=1),
        replace(ZLIB, python_site_packages_path="lib/python3.13t/site-packages"),
    ],
)
def test_every_field_of_a_conda_package_counts_because_conda_meta_has_it(pin: CondaPin) -> None:
    assert conda_identity(pin) != conda_identity(ZLIB)
    other = replace(ARM64, conda=(pin,))
    git = replace(AMD64, pip=(replace(AMD64.pip[0], git=GitCommit(commit="c" * 40, tree="7" * 40)),))
    assert lock_digest(LOCK, git, COMPOSITION) != lock_digest(
        LOCK, replace(AMD64, pip=AMD64.pip[:1]), COMPOSITION
    )
    assert lock_digest(LOCK, other, COMPOSITION) != lock_digest(LOCK, ARM64, COMPOSITION)


@pytest.mark.parametrize("field", ["url", "size", "sha256"])
def test_a_standalone_python_counts_with_its_archive(field: str) -> None:
    build = STANDALONE.build
    assert build is not None
    changed: Any = {"url": "https://other.example/x.tar.gz", "size": 1, "sha256": "7" * 64}
    pins = replace(AMD64, python=STANDALONE)
    other = replace(AMD64, python=replace(STANDALONE, build=replace(build, **{field: changed[field]})))
    assert lock_digest(LOCK, other, COMPOSITION) != lock_digest(LOCK, pins, COMPOSITION)


def test_no_field_of_a_conda_package_is_forgotten() -> None:
    every = replace(ZLIB, distributions=("zlib-python==1.0",))
    assert set(conda_identity(every)) == {field.name for field in fields(CondaPin)}
    # One that came later: a pin without it has the identity it had.
    assert "distributions" not in conda_identity(ZLIB)


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
def test_what_reaches_the_image_counts(lock: Lock, pins: PlatformLock, composition: ComposerSettings) -> None:
    assert lock_digest(lock, pins, composition) != lock_digest(LOCK, AMD64, COMPOSITION)
