"""The key of a segment: all that its bytes depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.compose.codec import codec
from envbuild.compose.segment import Recipe
from envbuild.lock.model import CondaPin
from envbuild.plan.model import Artifact, ArtifactKind

PIN = CondaPin(
    name="zlib",
    version="1.3.1",
    build="h0_0",
    subdir="linux-64",
    url="https://conda.example/forge/linux-64/zlib-1.3.1-h0_0.conda",
    size=90000,
    sha256="3" * 64,
    md5="0" * 32,
    depends=("__glibc >=2.17",),
    channel="https://conda.example/forge",
)


def key(pin: CondaPin) -> str:
    artifact = Artifact(
        kind=ArtifactKind.CONDA, name="zlib", version="1.3.1", sha256="3" * 64, size=90000, pin=pin
    )
    return Recipe(artifact=artifact).key(codec("gzip"))


@pytest.mark.parametrize(
    "pin",
    [
        replace(PIN, url="https://mirror.example/forge/linux-64/zlib-1.3.1-h0_0.conda"),
        replace(PIN, channel="https://mirror.example/forge"),
        replace(PIN, depends=()),
        replace(PIN, constrains=("zlib-ng >=2",)),
        replace(PIN, timestamp=1),
        replace(PIN, build_number=1),
        replace(PIN, md5="1" * 32),
    ],
)
def test_one_archive_from_two_channels_is_two_segments(pin: CondaPin) -> None:
    """The package's record in the image says where it came from and what the channel said of it."""
    assert key(pin) != key(PIN)


def test_the_order_of_dependencies_does_not_count() -> None:
    two = replace(PIN, depends=("a", "b"))
    assert key(two) == key(replace(two, depends=("b", "a")))
