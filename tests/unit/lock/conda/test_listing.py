"""Packages that would run code are known before they are downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from envbuild.http.base import RangeReader
from envbuild.lock.conda.listing import SkippingRangeReader, foresee_listing
from envbuild.lock.model import CondaPin
from tests.fakes.channel import File, Package
from tests.unit.compose.test_artifacts_conda_source import artifact_of

SCRIPT = File(path="bin/.scripted-post-link.sh", content=b"true")
ELSEWHERE = "https://conda.example/linux-64/"


@dataclass
class Server:
    """Parts of the files of a directory."""

    directory: Path
    asked: list[int] = field(default_factory=list)

    def part(self, url: str, start: int, length: int) -> bytes | None:
        self.asked.append(length)
        return (self.directory / "linux-64" / url.rsplit("/", 1)[-1]).read_bytes()[start : start + length]


class Silent:
    def __init__(self) -> None:
        self.asked = 0

    def part(self, url: str, start: int, length: int) -> bytes | None:
        self.asked += 1
        return None


def pin_of(package: Package, directory: Path) -> CondaPin:
    pin = artifact_of(package, directory).pin
    assert isinstance(pin, CondaPin)
    return replace(pin, url=ELSEWHERE + pin.file)


def foresee_link_script(pin: CondaPin, stored: Path, ranges: RangeReader) -> str | None:
    listing = foresee_listing(pin, stored, ranges)
    return listing.link_script if listing else None


def many(count: int) -> tuple[File, ...]:
    """So many files that the list of them isn't in the first part that is read."""
    return tuple(File(path=f"share/{os.urandom(12).hex()}", content=b"x") for _ in range(count))


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (3000, 2)])
def test_the_list_of_files_of_a_large_package_is_a_small_request(
    tmp_path: Path, count: int, requests: int
) -> None:
    large = File(path="lib/large", content=os.urandom(4 << 20))
    package = Package(name="scripted", files=(SCRIPT, large, *many(count)))
    server = Server(tmp_path)
    reason = foresee_link_script(pin_of(package, tmp_path), tmp_path / "none", server)
    assert reason == "it runs a post-link script"
    assert len(server.asked) <= requests + 1
    assert sum(server.asked) < 1 << 20
    harmless = replace(package, name="harmless", files=package.files[1:])
    assert foresee_link_script(pin_of(harmless, tmp_path), tmp_path / "none", server) is None


@pytest.mark.parametrize("ranges", [Silent(), Server(Path("/nowhere"))])
def test_what_can_t_be_known_early_is_left_to_the_download(tmp_path: Path, ranges: RangeReader) -> None:
    pin = pin_of(Package(name="scripted", files=(SCRIPT,)), tmp_path)
    assert foresee_link_script(pin, tmp_path / "none", ranges) is None


def test_a_size_that_isn_t_true_does_no_harm(tmp_path: Path) -> None:
    pin = pin_of(Package(name="scripted", files=(SCRIPT,)), tmp_path)
    for size in (0, 1, pin.size - 1, pin.size + 1, 1 << 40):
        assert foresee_link_script(replace(pin, size=size), tmp_path / "none", Server(tmp_path)) is None


def test_what_is_here_is_read_here(tmp_path: Path) -> None:
    package = Package(name="scripted", files=(SCRIPT,), extension=".tar.bz2")
    pin = pin_of(package, tmp_path)
    ranges = Silent()
    here = tmp_path / "linux-64" / pin.file
    assert foresee_link_script(pin, here, ranges) == "it runs a post-link script"
    assert (
        foresee_link_script(replace(pin, url=here.as_uri()), tmp_path / "none", ranges)
        == "it runs a post-link script"
    )
    assert ranges.asked == 0


def test_a_server_that_gives_no_parts_is_asked_once() -> None:
    silent = Silent()
    reach = SkippingRangeReader(silent)
    assert [reach.part(f"{ELSEWHERE}{name}", 0, 1) for name in "abc"] == [None, None, None]
    assert silent.asked == 1
    reach.part("https://other.example/a", 0, 1)
    assert silent.asked == 2
