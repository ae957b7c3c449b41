"""Putting a lock together where an index has no wheel: which python builds one, and what stays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

from envbuild.lock.base import BaseResolver, LockRequest, PipRequest, SdistRequest
from envbuild.lock.make import Resolvers, make_lock
from envbuild.lock.model import Lock, PipPin
from envbuild.lock.sdist import CanonicalWheel, built_pin
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.specs.model import Origin, PipRequirement, PipSpec, Spec
from tests.unit.lock.test_make import SPEC, FakeBases, never_conda

SOURCE = PipPin(name="demo", version="1.0", file="demo-1.0.tar.gz", size=7, sha256="a" * 64)
WHEEL = CanonicalWheel(file="demo-1.0-py3-none-any.whl", size=8, sha256="b" * 64)


@dataclass
class FakePip:
    """Answers with one sdist, and remembers what it was asked to keep."""

    name: str = "fake-pip"
    remembers: bool = False
    kept: list[tuple[PipPin, ...]] = field(default_factory=list)

    def version(self) -> str:
        return "1"

    def resolve(self, request: PipRequest) -> tuple[PipPin, ...]:
        self.kept.append(tuple(request.preferred))
        return (SOURCE,)


@dataclass
class FakeSdists:
    """Builds one wheel, and remembers what it was given."""

    host: Platform = LINUX_AMD64
    asked: list[tuple[Platform, Platform, PipPin | None, date | None]] = field(default_factory=list)

    def wheel(self, request: SdistRequest) -> PipPin:
        self.asked.append(
            (request.target.platform, request.interpreter.platform, request.preferred, request.as_of)
        )
        return built_pin(request.pin, WHEEL, (), size=7)


def locked(
    pip: FakePip,
    sdists: FakeSdists,
    platforms: tuple[Platform, ...] = (LINUX_AMD64,),
    present: Lock | None = None,
    **request: object,
) -> Lock:
    bases = FakeBases()

    def make() -> BaseResolver:
        return bases

    line = PipRequirement(text="demo", origin=Origin(file="r.txt"))
    spec: Spec = replace(SPEC, platforms=platforms, pip=PipSpec(requirements=(line,)))
    resolvers = Resolvers(
        bases=(make,), conda=never_conda, pip=lambda: pip, has_debian=lambda: True, sdists=lambda: sdists
    )
    return make_lock(spec, LockRequest(**request), present, resolvers, progress=Silent())  # type: ignore[arg-type]


def test_an_sdist_becomes_the_wheel_that_is_built_from_it() -> None:
    pip, sdists = FakePip(), FakeSdists()
    lock = locked(pip, sdists, as_of=date(2026, 1, 2))
    assert lock.platforms[0].pip == (built_pin(SOURCE, WHEEL, (), size=7),)
    assert sdists.asked == [(LINUX_AMD64, LINUX_AMD64, None, date(2026, 1, 2))]


def test_the_present_lock_is_offered_to_the_resolver_as_the_sdist_and_to_the_builder_as_the_wheel() -> None:
    pip, sdists = FakePip(), FakeSdists()
    present = locked(pip, sdists)
    again = locked(pip, sdists, present=present)
    assert again.platforms == present.platforms
    assert pip.kept == [(), (SOURCE,)]
    assert [preferred for _, _, preferred, _ in sdists.asked] == [None, present.platforms[0].pip[0]]


def test_an_upgrade_builds_again() -> None:
    pip, sdists = FakePip(), FakeSdists()
    present = locked(pip, sdists)
    locked(pip, sdists, present=present, upgrade=True)
    locked(pip, sdists, present=present, upgrade_packages=frozenset({"demo"}))
    locked(pip, sdists, present=present, upgrade_packages=frozenset({"other"}))
    assert [preferred is None for _, _, preferred, _ in sdists.asked] == [True, True, True, False]


def test_another_platforms_python_builds_where_the_platforms_own_cannot_run() -> None:
    sdists = FakeSdists()
    lock = locked(FakePip(), sdists, platforms=(LINUX_ARM64, LINUX_AMD64))
    assert sorted((target, host) for target, host, _, _ in sdists.asked) == [
        (LINUX_AMD64, LINUX_AMD64),
        (LINUX_ARM64, LINUX_AMD64),
    ]
    assert lock.toolchain == ()


def test_a_lock_for_another_architecture_pins_the_python_that_builds_even_without_byte_code() -> None:
    sdists = FakeSdists()
    lock = locked(FakePip(), sdists, platforms=(LINUX_ARM64,), bytecode=False)
    assert [(target, host) for target, host, _, _ in sdists.asked] == [(LINUX_ARM64, LINUX_AMD64)]
    assert [each.platform for each in lock.toolchain] == [LINUX_AMD64]


def test_where_no_python_runs_the_builder_is_asked_all_the_same_and_says_why_not() -> None:
    sdists = FakeSdists(host=LINUX_ARM64)
    locked(FakePip(), sdists)
    assert [(target, host) for target, host, _, _ in sdists.asked] == [(LINUX_AMD64, LINUX_AMD64)]
