"""Locks of other tools, used without solving: the engines of conda and of pip take exactly the list."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import (
    CondaRequest,
    CondaResolver,
    CondaTarget,
    PipRequest,
    PipResolver,
    PipTarget,
    Upgrade,
)
from envbuild.lock.conda.conda_lock import CondaLockResolver
from envbuild.lock.conda.rattler import RattlerResolver
from envbuild.lock.conda.satisfied import unsatisfied_conda, virtual_packages
from envbuild.lock.model import CondaPin
from envbuild.lock.pip.piptools import PipToolsResolver
from envbuild.lock.pip.satisfied import unsatisfied_pip
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import CondaSpec, ExplicitPackage, Origin, PipRequirement, PipSpec
from envbuild.store.content import Store
from tests.fakes.channel import Package, index_channel, make_channel, small_packages
from tests.fakes.wheelhouse import Wheel, Wheelhouse

PYTHON = platform.python_version()
TARGET = PipTarget(platform=LINUX_AMD64, python=PYTHON, glibc="2.41")
SITE = Package(name="python", version="3.12.4", build="h0_0", python_site_packages_path="lib/x")


def target(platform: Platform = LINUX_AMD64) -> CondaTarget:
    return CondaTarget(platform=platform, virtual_packages=virtual_packages("2.41", platform, {}))


@pytest.fixture
def channel(tmp_path: Path) -> str:
    future = Package(name="future", depends=("__glibc >=3",))
    return make_channel(tmp_path / "channel", python=False, packages=(SITE, future))


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[HttpFetcher]:
    settings = Settings(cache_dir=tmp_path / "store")
    made = HttpFetcher(
        Store(settings.cache_dir), offline=False, settings=settings, progress=Silent(), environ={}
    )
    with made:
        yield made


@pytest.fixture(params=["rattler", "conda-lock"])
def conda(request: pytest.FixtureRequest, tmp_path: Path, fetcher: HttpFetcher) -> CondaResolver:
    rattler = RattlerResolver(tmp_path / "cache", retries=0, fetcher=fetcher)
    # A conda that isn't there: nothing is to be solved, so nobody asks it.
    return rattler if request.param == "rattler" else CondaLockResolver(rattler, executable="/nowhere/conda")


def listed(
    channel: str, *files: str, kinds: tuple[str, ...] = ("sha256",), platform: Platform = LINUX_AMD64
) -> CondaSpec:
    packages = []
    for file in files:
        data = (Path(channel.removeprefix("file://")) / file).read_bytes()
        stated = {kind: hashlib.new(kind, data, usedforsecurity=False).hexdigest() for kind in kinds}
        packages.append(ExplicitPackage(platform=platform, url=f"{channel}/{file}", **stated))
    return CondaSpec(channels=(channel,), dependencies=(), explicit=tuple(sorted(packages)))


def names(pins: tuple[CondaPin, ...]) -> list[str]:
    return [f"{pin.name}={pin.version}" for pin in pins]


TOOL = "linux-64/tool-1.0-0.conda"
GREETER = "noarch/greeter-0.3-py_0.conda"
LIBTOOL = "linux-64/libtool-1.5-0.tar.bz2"


@pytest.mark.parametrize("kinds", [("sha256",), ("md5",), ("md5", "sha256")])
def test_an_old_version_is_taken_and_no_dependency_added(
    conda: CondaResolver, channel: str, kinds: tuple[str, ...]
) -> None:
    asked = listed(channel, TOOL, GREETER, kinds=kinds)
    pins = conda.resolve(CondaRequest(spec=asked, targets=[target()]))[LINUX_AMD64]
    assert names(pins) == ["greeter=0.3", "tool=1.0"], "neither tool 2.0, nor libtool, nor python"
    solved = CondaSpec(channels=(channel,), dependencies=("tool=1.0", "greeter", "libtool"))
    whole = RattlerResolver(Path(channel.removeprefix("file://")) / "../other").resolve(
        CondaRequest(spec=solved, targets=[target()])
    )
    assert set(pins) < set(whole[LINUX_AMD64]), "with all that the channel says of them"
    assert unsatisfied_conda(asked, pins, target()) == []
    assert unsatisfied_conda(asked, pins[:1], target()) == [
        f"conda package {channel}/{TOOL}: is not in the lock"
    ]
    more = tuple(sorted(whole[LINUX_AMD64], key=lambda pin: pin.name))
    assert [each.split(": ")[-1] for each in unsatisfied_conda(asked, more, target())] == [
        "is not in the list"
    ] * 2


@pytest.mark.parametrize("kinds", [("sha256",), ("md5",)])
@pytest.mark.parametrize("gone", ["record", "repodata"])
def test_what_a_channel_no_longer_lists_is_read_from_the_archive(
    conda: CondaResolver, channel: str, kinds: tuple[str, ...], gone: str, tmp_path: Path
) -> None:
    asked = listed(channel, TOOL, LIBTOOL, "linux-64/python-3.12.4-h0_0.conda", kinds=kinds)
    whole = RattlerResolver(tmp_path / "before").resolve(CondaRequest(spec=asked, targets=[target()]))
    directory = Path(channel.removeprefix("file://"))
    if gone == "record":
        index_channel(directory, [package for package in small_packages() if package.name == "undated"])
    else:
        for path in directory.glob("*/repodata.json"):
            path.unlink()
    assert conda.resolve(CondaRequest(spec=asked, targets=[target()])) == whole


def test_a_hash_that_doesn_t_hold_is_refused(conda: CondaResolver, channel: str) -> None:
    good = listed(channel, TOOL, GREETER)
    wrong = replace(
        good,
        explicit=tuple(
            replace(each, sha256="0" * 64) if "tool" in each.url else each for each in good.explicit
        ),
    )
    with pytest.raises(ResolveError) as caught:
        conda.resolve(CondaRequest(spec=wrong, targets=[target()]))
    (found,) = [each for each in good.explicit if "tool" in each.url]
    assert caught.value.message == (
        "the list of conda packages for linux/amd64 can't be used:\n"
        f"{channel}/{TOOL}: the list says SHA-256 {'0' * 64}, the channel {found.sha256}"
    )
    index_channel(Path(channel.removeprefix("file://")), [])
    with pytest.raises(ResolveError, match=r"tool-1\.0-0\.conda"):
        conda.resolve(CondaRequest(spec=wrong, targets=[target()]))
    other = replace(good, explicit=tuple(replace(each, sha256=None, md5="0" * 32) for each in good.explicit))
    with pytest.raises(ResolveError, match=f"the list says MD5 {'0' * 32}, the archive has"):
        conda.resolve(CondaRequest(spec=other, targets=[target()]))


def test_a_platform_that_isn_t_listed_is_named(conda: CondaResolver, channel: str) -> None:
    with pytest.raises(ResolveError) as caught:
        conda.resolve(CondaRequest(spec=listed(channel, TOOL), targets=[target(), target(LINUX_ARM64)]))
    assert caught.value.message == "the list of conda packages has none for linux/arm64, only for linux/amd64"
    both = replace(
        listed(channel, TOOL),
        explicit=(
            *listed(channel, TOOL).explicit,
            *listed(channel, "linux-aarch64/tool-2.0-0.conda", platform=LINUX_ARM64).explicit,
        ),
    )
    found = conda.resolve(CondaRequest(spec=both, targets=[target(), target(LINUX_ARM64)]))
    assert {each: names(pins) for each, pins in found.items()} == {
        LINUX_AMD64: ["tool=1.0"],
        LINUX_ARM64: ["tool=2.0"],
    }


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("linux-64/future-1.0-0.conda",), "needs __glibc >=3: this platform has __glibc 2.41"),
        ((TOOL, "linux-64/tool-2.0-0.conda"), "tool is listed twice: tool-"),
        (("linux-64/undated-1.0-0.conda",), "undated-1.0-0.conda is not older than as_of"),
        (("linux-64/tool-2.0-0.conda",), "tool-2.0-0.conda is not older than as_of"),
    ],
)
def test_what_can_t_be_an_environment_is_said(
    conda: CondaResolver, channel: str, files: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ResolveError, match=reason):
        conda.resolve(
            CondaRequest(spec=listed(channel, *files), targets=[target()], as_of=date(2023, 11, 20))
        )


def test_the_present_lock_is_enough_and_an_upgrade_moves_nothing(
    conda: CondaResolver, channel: str, tmp_path: Path
) -> None:
    asked = listed(channel, TOOL, GREETER, kinds=("md5",))
    pins = conda.resolve(CondaRequest(spec=asked, targets=[target()]))
    for path in Path(channel.removeprefix("file://")).rglob("*"):
        if path.is_file():
            path.unlink()
    everything = Upgrade(everything=True)
    assert (
        conda.resolve(
            CondaRequest(spec=asked, targets=[target()], preferred=pins, upgrade=everything, offline=True)
        )
        == pins
    )
    with pytest.raises(ResolveError, match="the channel's metadata has no such package"):
        RattlerResolver(tmp_path / "new").resolve(CondaRequest(spec=asked, targets=[target()], offline=True))


def test_an_archive_that_says_it_is_another_is_refused(conda: CondaResolver, channel: str) -> None:
    directory = Path(channel.removeprefix("file://")) / "linux-64"
    (directory / "libtool-2-0.tar.bz2").write_bytes((directory / "libtool-1.5-0.tar.bz2").read_bytes())
    with pytest.raises(ResolveError, match=r"the archive says that it is libtool-1\.5-0"):
        conda.resolve(CondaRequest(spec=listed(channel, "linux-64/libtool-2-0.tar.bz2"), targets=[target()]))
    (directory / "tool-1.6-0.conda").write_bytes(b"PK, or not")
    with pytest.raises(ResolveError, match=r"tool-1.6-0.conda: damaged archive"):
        conda.resolve(CondaRequest(spec=listed(channel, "linux-64/tool-1.6-0.conda"), targets=[target()]))


# --- pip ----------------------------------------------------------------------------------------------


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    house = Wheelhouse(tmp_path / "house")
    house.add(
        Wheel(name="app", requires=["lib>=1", "shared"]),
        Wheel(name="lib", version="1.0", build="1"),
        Wheel(name="lib", version="1.0", build="2"),
        Wheel(name="lib", version="2.0"),
        Wheel(name="shared"),
        Wheel(name="armed", tag="py3-none-manylinux_2_28_aarch64"),
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    with house.serve() as url:
        yield {**kept, "UV_DEFAULT_INDEX": url, "UV_CACHE_DIR": str(tmp_path / "uv-cache")}


@pytest.fixture(params=[UvResolver, PipToolsResolver])
def pip(request: pytest.FixtureRequest, env: dict[str, str]) -> PipResolver:
    made = request.param(env=env)
    assert isinstance(made, (UvResolver, PipToolsResolver))
    return made


def closed(*lines: tuple[str, str]) -> PipSpec:
    return PipSpec(
        requirements=tuple(
            PipRequirement(
                text=text,
                hashes=(f"sha256:{sha256}",) if sha256 else (),
                origin=Origin(file="pylock.toml", where="1"),
            )
            for text, sha256 in lines
        ),
        complete=True,
    )


APP = Wheel(name="app", requires=["lib>=1", "shared"]).pin().sha256
LIB = Wheel(name="lib", version="1.0", build="1").pin().sha256


def test_exactly_the_listed_distributions_with_the_listed_files(pip: PipResolver) -> None:
    spec = closed(("app==1.0", APP), ("lib==1.0", LIB), ("armed==1.0 ; platform_machine == 'aarch64'", ""))
    pins = pip.resolve(PipRequest(spec=spec, target=TARGET))
    assert [(pin.name, pin.version, pin.sha256, pin.via) for pin in pins] == [
        ("app", "1.0", APP, ("-r pylock.toml",)),
        ("lib", "1.0", LIB, ("-r pylock.toml",)),
    ], "neither lib 2.0, nor its better build, nor what app needs besides"
    assert unsatisfied_pip(spec, pins, TARGET) == []
    everything = Upgrade(everything=True)
    assert pip.resolve(PipRequest(spec=spec, target=TARGET, preferred=pins, upgrade=everything)) == pins
    more = (*pins, Wheel(name="shared").pin())
    assert unsatisfied_pip(spec, more, TARGET) == ["shared is pinned, but isn't in the list"]
    arm = PipTarget(platform=LINUX_ARM64, python=PYTHON, glibc="2.41")
    assert [pin.name for pin in pip.resolve(PipRequest(spec=spec, target=arm))] == ["app", "armed", "lib"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (("lib==1.0", "0" * 64), "lib 1.0: none of its files has a hash of the spec"),
        (("armed==1.0", ""), "armed"),
        (("lib==3.0", LIB), "lib==3.0"),
        (("nothing==1.0", LIB), "nothing"),
    ],
)
def test_a_listed_file_that_isn_t_there_is_named(
    pip: PipResolver, line: tuple[str, str], reason: str
) -> None:
    with pytest.raises(ResolveError, match=reason):
        pip.resolve(PipRequest(spec=closed(("app==1.0", APP), line), target=TARGET))


def test_what_conda_installs_is_left_out_of_a_list(pip: PipResolver) -> None:
    spec = closed(("app==1.0", APP), ("lib==1.0", LIB))
    assert [
        pin.name for pin in pip.resolve(PipRequest(spec=spec, target=TARGET, provided={"lib": "1.0"}))
    ] == ["app"]
    with pytest.raises(ResolveError, match="lib"):
        pip.resolve(PipRequest(spec=spec, target=TARGET, provided={"lib": "2.0"}))


def test_another_index_that_has_other_versions_is_no_hindrance(pip: PipResolver, tmp_path: Path) -> None:
    """uv asks only the first index that knows a name, where no hash says which file it must be."""
    other = Wheelhouse(tmp_path / "other")
    other.add(Wheel(name="lib", version="0.5"))
    spec = replace(closed(("app==1.0", APP), ("lib==1.0", LIB)), options=(f"--extra-index-url {other.url}",))
    assert [pin.sha256 for pin in pip.resolve(PipRequest(spec=spec, target=TARGET))] == [APP, LIB]
