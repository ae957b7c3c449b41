"""One suite over both conda engines: the same channel, the same pins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import CondaRequest, CondaResolver, CondaTarget, Upgrade
from envbuild.lock.conda.conda_lock import CondaLockResolver
from envbuild.lock.conda.rattler import RattlerResolver
from envbuild.lock.conda.satisfied import unsatisfied_conda, virtual_packages
from envbuild.lock.model import CondaPin
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.specs.model import CondaSpec
from tests.fakes.channel import Package, make_channel
from tests.fakes.conda_executable import make_conda_executable


def target(platform: Platform = LINUX_AMD64) -> CondaTarget:
    return CondaTarget(platform=platform, virtual_packages=virtual_packages("2.41", platform, {}))


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> str:
    python = Package(name="python", version="3.12.4", build="h0_0", python_site_packages_path="lib/x")
    future = Package(name="future", depends=("__glibc >=3",))
    return make_channel(tmp_path_factory.mktemp("channel"), python=False, packages=(python, future))


@pytest.fixture(params=["rattler", "conda-lock"])
def resolver(request: pytest.FixtureRequest, tmp_path: Path) -> CondaResolver:
    rattler = RattlerResolver(tmp_path / "cache", retries=0)
    if request.param == "rattler":
        return rattler
    return CondaLockResolver(rattler, executable=str(make_conda_executable(tmp_path)))


def spec(channel: str, *dependencies: str) -> CondaSpec:
    return CondaSpec(channels=(channel,), dependencies=dependencies)


def names(pins: tuple[CondaPin, ...]) -> list[str]:
    return [f"{pin.name}={pin.version}" for pin in pins]


def test_the_newest_that_fits_is_pinned_whole(resolver: CondaResolver, channel: str) -> None:
    asked = spec(channel, "tool", "greeter=0.3")
    pins = resolver.resolve(CondaRequest(spec=asked, targets=[target()]))[LINUX_AMD64]
    assert names(pins) == ["greeter=0.3", "libtool=1.5", "python=3.12.4", "tool=2.0"]
    greeter, libtool, python, _ = pins
    assert (greeter.subdir, greeter.noarch, greeter.depends) == ("noarch", "python", ("python >=3.9",))
    assert greeter.url == f"{channel}/noarch/greeter-0.3-py_0.conda"
    assert libtool.file == "libtool-1.5-0.tar.bz2"
    assert libtool.channel == channel
    assert libtool.size == Path(libtool.url.removeprefix("file://")).stat().st_size
    assert (libtool.timestamp, python.build) == (1_700_000_000_000, "h0_0")
    assert python.python_site_packages_path == "lib/x"
    assert unsatisfied_conda(asked, pins, target()) == []


def test_both_platforms_are_solved_in_one_call(resolver: CondaResolver, channel: str) -> None:
    solved = resolver.resolve(
        CondaRequest(spec=spec(channel, "tool"), targets=[target(), target(LINUX_ARM64)])
    )
    assert {platform: [pin.subdir for pin in pins] for platform, pins in solved.items()} == {
        LINUX_AMD64: ["linux-64", "linux-64"],
        LINUX_ARM64: ["linux-aarch64", "linux-aarch64"],
    }


def test_a_pin_stays_until_an_upgrade_names_it(resolver: CondaResolver, channel: str) -> None:
    old = resolver.resolve(CondaRequest(spec=spec(channel, "tool=1.0"), targets=[target()]))
    kept = resolver.resolve(CondaRequest(spec=spec(channel, "tool"), targets=[target()], preferred=old))
    assert kept == old
    wider = resolver.resolve(
        CondaRequest(spec=spec(channel, "tool", "undated"), targets=[target()], preferred=old)
    )
    assert names(wider[LINUX_AMD64]) == ["libtool=1.5", "tool=1.0", "undated=1.0"]
    upgrade = Upgrade(packages=frozenset({"tool"}))
    new = resolver.resolve(
        CondaRequest(spec=spec(channel, "tool"), targets=[target()], preferred=old, upgrade=upgrade)
    )
    assert names(new[LINUX_AMD64]) == ["libtool=1.5", "tool=2.0"]
    forced = resolver.resolve(CondaRequest(spec=spec(channel, "tool=2"), targets=[target()], preferred=old))
    assert forced == new


@pytest.mark.parametrize(
    ("dependency", "reason"), [("tool=9", "tool"), ("no-such-thing", "no-such-thing"), ("future", "__glibc")]
)
def test_what_can_t_be_had_is_named(
    resolver: CondaResolver, channel: str, dependency: str, reason: str
) -> None:
    with pytest.raises(ResolveError, match=reason) as caught:
        resolver.resolve(CondaRequest(spec=spec(channel, dependency), targets=[target()]))
    assert caught.value.hint


def test_an_unknown_channel_is_named(resolver: CondaResolver, tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match="nowhere"):
        resolver.resolve(CondaRequest(spec=spec((tmp_path / "nowhere").as_uri(), "tool"), targets=[target()]))


def test_both_engines_give_the_same_pins(tmp_path: Path, channel: str) -> None:
    rattler = RattlerResolver(tmp_path / "cache")
    other = CondaLockResolver(rattler, executable=str(make_conda_executable(tmp_path)))
    asked = spec(channel, "tool", "greeter")
    assert other.resolve(CondaRequest(spec=asked, targets=[target()])) == rattler.resolve(
        CondaRequest(spec=asked, targets=[target()])
    )


def test_conda_lock_says_what_it_lacks(tmp_path: Path, channel: str) -> None:
    rattler = RattlerResolver(tmp_path / "cache")
    with pytest.raises(ResolveError, match="needs conda, mamba or micromamba"):
        CondaLockResolver(rattler, executable=str(tmp_path / "none")).resolve(
            CondaRequest(spec=spec(channel), targets=[target()])
        )


def test_a_size_that_can_t_be_learned_is_0(tmp_path: Path, channel: str) -> None:
    rattler = RattlerResolver(tmp_path / "cache")
    resolver = CondaLockResolver(rattler, executable=str(make_conda_executable(tmp_path)))
    pins = rattler.resolve(CondaRequest(spec=spec(channel, "tool"), targets=[target()]))[LINUX_AMD64]
    nowhere = spec((tmp_path / "nowhere").as_uri(), "tool")
    stripped = tuple(replace(pin, size=0) for pin in pins)
    assert resolver._completed(nowhere, target(), stripped, offline=True) == stripped
