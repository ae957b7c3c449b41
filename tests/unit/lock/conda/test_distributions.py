"""What conda packages bring for pip is read from their own lists of files, once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from envbuild.errors import FetchError
from envbuild.http.base import Download
from envbuild.lock.conda.distributions import CondaDistributions
from envbuild.lock.conda.satisfied import provided_distributions
from envbuild.lock.model import CondaPin
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from tests.fakes.channel import File, Package
from tests.unit.lock.conda.test_listing import pin_of

SITE = "lib/python3.12/site-packages"


@dataclass
class Channel:
    """Answers with parts of the packages of a directory, or with whole files, or not at all."""

    directory: Path
    store: Store
    parts: bool = True
    whole: bool = True
    asked: list[str] = field(default_factory=list)

    def part(self, url: str, start: int, length: int) -> bytes | None:
        self.asked.append(url)
        return self._read(url)[start : start + length] if self.parts else None

    def files(self, downloads: Sequence[Download], *, stage: str = "download") -> dict[str, Path]:
        if not self.whole:
            raise FetchError("no network")
        for download in downloads:
            self.asked.append(download.urls[0])
            data = self._read(download.urls[0])
            assert hashlib.sha256(data).hexdigest() == download.sha256
            self.store.directory("artifacts")
            self.store.artifact(download.sha256).parent.mkdir(parents=True, exist_ok=True)
            self.store.artifact(download.sha256).write_bytes(data)
        return {download.sha256: self.store.artifact(download.sha256) for download in downloads}

    def read(self, url: str, *, limit: int, cache: bool = False) -> bytes:
        raise AssertionError(url)

    def _read(self, url: str) -> bytes:
        return (self.directory / "linux-64" / url.rsplit("/", 1)[-1]).read_bytes()


def package(name: str, *paths: str, version: str = "1.0", extension: str = ".conda") -> Package:
    files = tuple(File(path=path, content=b"x") for path in paths)
    return Package(name=name, version=version, depends=("python >=3.12",), files=files, extension=extension)


def info(stem: str) -> str:
    return f"{SITE}/{stem}.dist-info/METADATA"


def identified(channel: Channel, *pins: CondaPin) -> tuple[CondaPin, ...]:
    return CondaDistributions(channel.store, channel).identify({LINUX_AMD64: pins})[LINUX_AMD64]


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return Channel(tmp_path, Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("made", "stated", "provided"),
    [
        (package("x", info("its_name-0.4.9")), ("its-name==0.4.9",), {"its-name": "0.4.9"}),
        (package("six", info("six-1.0")), (), {"six": "1.0"}),
        (package("six", info("six-1.0.0"), version="1.0.0"), (), {"six": "1.0.0"}),
        (package("tool", info("tool-1.0.post1")), ("tool==1.0.post1",), {"tool": "1.0.post1"}),
        (
            package("suite", info("Some.Part-2.0"), info("other_part-3.0rc1")),
            ("other-part==3.0rc1", "some-part==2.0"),
            {"other-part": "3.0rc1", "some-part": "2.0"},
        ),
        (package("old", f"{SITE}/O_T-1.2-py3.6.egg-info/PKG-INFO"), ("o-t==1.2",), {"o-t": "1.2"}),
        (package("older", f"{SITE}/Older-0.9-py2.7.egg-info"), ("older==0.9",), {"older": "0.9"}),
        (package("any", "site-packages/a_b-1.0.dist-info/METADATA"), ("a-b==1.0",), {"a-b": "1.0"}),
        # Not right below site-packages, and what no name or version is: nothing is said.
        (package("vendor", f"{SITE}/vendor/_vendor/dep-1.0.dist-info/METADATA"), (), {"vendor": "1.0"}),
        (package("odd", info("-evil-1.0"), info("odd-not!a@version")), (), {"odd": "1.0"}),
        (package("plain", f"{SITE}/plain.py"), (), {"plain": "1.0"}),
    ],
)
def test_a_package_says_itself_what_it_brings(
    channel: Channel, made: Package, stated: tuple[str, ...], provided: dict[str, str]
) -> None:
    (pin,) = identified(channel, pin_of(made, channel.directory))
    assert pin.distributions == stated
    assert provided_distributions([pin]) == provided


def test_a_list_is_read_once(channel: Channel) -> None:
    made = package("ignite", info("pytorch_ignite-0.4.9"), "share/large")
    pin = pin_of(made, channel.directory)
    first = identified(channel, pin)
    assert channel.asked == [pin.url]
    channel.asked.clear()
    channel.parts = channel.whole = False
    assert identified(channel, pin) == first
    assert channel.asked == []


@pytest.mark.parametrize("extension", [".conda", ".tar.bz2"])
def test_where_no_part_can_be_had_a_small_archive_is_fetched(channel: Channel, extension: str) -> None:
    channel.parts = False
    pin = pin_of(package("ignite", info("pytorch_ignite-0.4.9"), extension=extension), channel.directory)
    (found,) = identified(channel, pin)
    assert found.distributions == ("pytorch-ignite==0.4.9",)
    assert channel.store.artifact(pin.sha256).is_file()


def test_what_can_t_be_read_is_taken_by_its_name(channel: Channel) -> None:
    pin = pin_of(package("ignite", info("pytorch_ignite-0.4.9")), channel.directory)
    library = replace(pin, name="libx", depends=("libc",), sha256="1" * 64)
    large = replace(pin, size=1 << 30, sha256="2" * 64)
    channel.parts = False
    assert identified(channel, library, large) == (library, large)
    assert [url for url in channel.asked if "libx" in url] == []
    channel.whole = False
    assert identified(channel, pin) == (pin,)
