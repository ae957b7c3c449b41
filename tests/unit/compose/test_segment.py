"""The key of a segment: all that its bytes depend on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.base import Entry
from envbuild.compose.codec import codec
from envbuild.compose.segment import SegmentInputs, SegmentMaker, WorkerPools
from envbuild.lock.model import CondaPin
from envbuild.plan.model import Artifact, ArtifactKind
from tests.fakes.source import PYTHON, SITE, FakeCompiler, artifact

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
    return SegmentInputs(artifact=artifact).key(codec("gzip"))


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


def test_a_segment_made_of_another_artifact_is_another_one() -> None:
    recipe = SegmentInputs(artifact=artifact("store"))
    keys = {replace(recipe, made_of=each).key(codec("gzip")) for each in (None, "1" * 64, "2" * 64)}
    assert len(keys) == 3


def test_sources_may_free_their_files_once_the_last_entry_is_taken(tmp_path: Path) -> None:
    """A conda package's large files lie in scratch space that goes with the iterator."""
    large = b"x = 1\n" * 20_000

    def entries() -> Iterator[Entry]:
        file = tmp_path / "large.py"
        file.write_bytes(large)
        yield Entry(path=f"{SITE}/large.py", content=file)
        file.unlink()

    with WorkerPools(1) as pools:
        maker = SegmentMaker(codec=codec("gzip"), pools=pools, scratch=tmp_path, compiler=FakeCompiler())
        recipe = SegmentInputs(artifact=artifact("large"), python=PYTHON, compiler="fake")
        segment, _ = maker.make(recipe, entries())
    assert [path for path, _ in segment.paths] == [
        f"{SITE}/large.py",
        f"{SITE}/__pycache__/large.cpython-313.pyc",
    ]
