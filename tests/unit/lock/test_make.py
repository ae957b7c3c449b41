"""Putting a lock together: what resolvers are asked, and what is done with their answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import (
    BaseRequest,
    BaseResolver,
    CondaRequest,
    CondaResolver,
    LockRequest,
    PipRequest,
    PipResolver,
    PythonRequest,
    ResolvedBase,
    answers,
)
from envbuild.lock.files import dump_lock, parse_lock
from envbuild.lock.make import Resolvers, make_lock
from envbuild.lock.model import Base, CondaPin, DebianBase, ImageBase, Lock, PipPin, PythonPin
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import (
    BaseSpec,
    CondaSpec,
    DebianBaseSpec,
    ImageBaseSpec,
    Origin,
    PipRequirement,
    PipSpec,
    PythonProvider,
    Spec,
)
from tests.fakes.wheelhouse import Wheel, Wheelhouse, sdist
from tests.unit.lock.sample import BASE, PYTHON, ZLIB

SPEC = Spec(name="x", source=Path("/p/envbuild.yaml"))
IMAGE = ImageBase(reference="docker.io/library/x:1", digest="sha256:" + "1" * 64, glibc="2.36")


@dataclass
class FakeBases:
    """Answers with one base, and remembers what it was asked."""

    base: Base = BASE
    python: PythonPin | None = PYTHON
    name: str = "fake"
    asked: list[tuple[BaseSpec, Platform, bool, Base | None]] = field(default_factory=list)

    def accepts(self, spec: BaseSpec) -> bool:
        return True

    def resolve(self, request: BaseRequest) -> ResolvedBase:
        self.asked.append((request.spec, request.platform, request.with_python, request.preferred))
        return ResolvedBase(base=self.base, python=self.python if request.with_python else None)


@dataclass
class FakeConda:
    """Answers with one python for every platform, and remembers what it was asked to keep."""

    name: str = "fake-conda"
    kept: list[dict[Platform, tuple[CondaPin, ...]]] = field(default_factory=list)
    asked: list[CondaSpec] = field(default_factory=list)

    def version(self) -> str:
        return "1"

    def channels(self, spec: CondaSpec) -> tuple[str, ...]:
        return tuple(f"https://conda.example/{channel}" for channel in spec.channels)

    def resolve(self, request: CondaRequest) -> dict[Platform, tuple[CondaPin, ...]]:
        self.asked.append(request.spec)
        self.kept.append({platform: tuple(pins) for platform, pins in request.preferred.items()})
        return {target.platform: (conda_pin(target.platform),) for target in request.targets}


def conda_pin(platform: Platform) -> CondaPin:
    return replace(ZLIB, name="python", version="3.12.4", subdir=platform.subdir)


def never_conda() -> CondaResolver:
    raise AssertionError("conda was asked")


def never_pip() -> PipResolver:
    raise AssertionError("pip was asked")


def lock_of(
    spec: Spec,
    bases: FakeBases,
    present: Lock | None = None,
    request: LockRequest | None = None,
    conda: Callable[[], CondaResolver] = never_conda,
) -> Lock:
    make: Callable[[], BaseResolver] = lambda: bases  # noqa: E731
    return make_lock(
        spec,
        request or LockRequest(),
        present,
        Resolvers(bases=(make,), conda=conda, pip=never_pip, has_debian=lambda: True),
        progress=Silent(),
    )


def test_a_spec_of_nothing_is_a_base_with_python() -> None:
    bases = FakeBases()
    lock = lock_of(SPEC, bases)
    (pins,) = lock.platforms
    assert (pins.platform, pins.base, pins.python, lock.bytecode) == (LINUX_AMD64, BASE, PYTHON, True)
    assert lock.definition == definition_digest(SPEC)
    assert [(with_python, preferred) for _, _, with_python, preferred in bases.asked] == [(True, None)]


def test_the_present_base_is_offered_to_be_kept() -> None:
    present = lock_of(SPEC, FakeBases())
    bases = FakeBases()
    lock_of(SPEC, bases, present)
    assert bases.asked[0][3] == BASE


def test_a_lock_for_arm64_alone_pins_the_interpreter_that_compiles_its_byte_code() -> None:
    spec = Spec(name="x", source=SPEC.source, platforms=(LINUX_ARM64,))
    lock = lock_of(spec, FakeBases())
    (tools,) = lock.toolchain
    assert (tools.platform, tools.python) == (LINUX_AMD64, PYTHON)
    assert isinstance(tools.base, DebianBase)
    assert [pin.name for pin in tools.base.packages] == ["libc6"]
    assert lock_of(spec, FakeBases(), request=LockRequest(bytecode=False)).toolchain == ()


def test_pins_of_a_conda_toolchain_are_offered_to_be_kept_as_those_of_platforms_are() -> None:
    spec = Spec(name="x", source=SPEC.source, platforms=(LINUX_ARM64,), python="3.12")
    spec = replace(spec, python_provider=PythonProvider.CONDA)
    conda = FakeConda()
    lock = lock_of(spec, FakeBases(), conda=lambda: conda)
    assert [each.conda for each in lock.toolchain] == [(conda_pin(LINUX_AMD64),)]
    lock_of(spec, FakeBases(), lock, conda=lambda: conda)
    assert conda.kept == [
        {},
        {},
        {LINUX_ARM64: (conda_pin(LINUX_ARM64),)},
        {LINUX_AMD64: (conda_pin(LINUX_AMD64),)},
    ]


def test_a_base_without_glibc_is_refused() -> None:
    spec = Spec(name="x", source=SPEC.source, base=ImageBaseSpec(reference="alpine"))
    bases = FakeBases(base=ImageBase(reference="docker.io/library/alpine:3", digest=IMAGE.digest))
    with pytest.raises(ResolveError, match=r"base image docker\.io/library/alpine:3: it has no glibc"):
        lock_of(spec, bases)


def test_a_lock_answers_its_spec_until_something_is_asked_of_it() -> None:
    lock = lock_of(SPEC, FakeBases())
    assert answers(lock, SPEC, LockRequest())
    assert answers(lock, SPEC, LockRequest(bytecode=True))
    for request in (
        LockRequest(upgrade=True),
        LockRequest(upgrade_packages=("libc6",)),
        LockRequest(bytecode=False),
        LockRequest(as_of=date(2026, 1, 1)),
    ):
        assert not answers(lock, SPEC, request)
    assert not answers(lock, Spec(name="x", source=SPEC.source, user="0:0"), LockRequest())
    assert answers(lock, Spec(name="renamed", source=SPEC.source), LockRequest())


def test_a_day_that_was_asked_for_holds_until_another_one_is() -> None:
    day, later = date(2026, 1, 1), date(2026, 2, 1)

    def made(present: Lock | None, spec: Spec = SPEC, **asked: Any) -> Lock:
        return lock_of(spec, FakeBases(), present, LockRequest(**asked))

    first = made(None, as_of=day)
    assert (first.as_of, first.as_of_kept) == ("2026-01-01", True)
    assert answers(first, SPEC, LockRequest())
    for lock in (made(first, upgrade=True), made(first, replace(SPEC, user="0:0"))):
        assert (lock.as_of, lock.as_of_kept) == ("2026-01-01", True)
    assert made(first, as_of=later).as_of == "2026-02-01"
    assert not answers(first, SPEC, LockRequest(as_of="none"))
    assert (made(first, as_of="none").as_of, made(first, as_of="none").as_of_kept) == (None, False)
    # A spec's own day is no option's.
    own = replace(SPEC, as_of=day)
    assert (made(None, own).as_of, made(None, own).as_of_kept) == ("2026-01-01", False)
    assert made(made(None, own), SPEC).as_of is None
    assert made(first, replace(own, as_of=later)).as_of == "2026-01-01"
    assert parse_lock(dump_lock(first)["envbuild.lock"], "x")[0] == first


@pytest.mark.parametrize(
    ("pip", "added"), [("", True), ("six", True), ("setuptools<70", False), ("pip", False)]
)
def test_who_asks_the_index_for_pip_or_setuptools_gets_none_of_conda_s(pip: str, added: bool) -> None:
    conda = FakeConda()
    requirements = (PipRequirement(text=pip, origin=Origin(file="x")),) if pip else ()
    spec = replace(
        SPEC,
        conda=CondaSpec(channels=("c",), dependencies=("python",)),
        pip=PipSpec(requirements=requirements),
    )
    make: Callable[[], BaseResolver] = lambda: FakeBases()  # noqa: E731
    resolvers = Resolvers(bases=(make,), conda=lambda: conda, pip=NoPip, has_debian=lambda: True)
    make_lock(spec, LockRequest(), None, resolvers, progress=Silent())
    assert [asked.add_pip for asked in conda.asked] == [added]


class NoPip:
    """Finds nothing."""

    name = "none"
    remembers = False

    def version(self) -> str:
        return "1"

    def resolve(self, request: PipRequest) -> tuple[PipPin, ...]:
        return ()


@dataclass
class Told(Silent):
    """What people are told."""

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("python", "suite", "notes"),
    [
        (None, "bookworm", 1),
        (">=3.10", "bookworm", 1),
        (">=3.12", "trixie", 0),
    ],
)
def test_an_open_python_is_one_that_all_have_wheels_for(
    tmp_path: Path, python: str | None, suite: str, notes: int
) -> None:
    house = Wheelhouse(tmp_path / "house")
    house.add(Wheel(name="plain"), Wheel(name="fast", tag="cp311-cp311-manylinux_2_17_x86_64"))
    house.add_file("fast", "fast-1.0.tar.gz", sdist("fast"))
    lines = [PipRequirement(text=text, origin=Origin(file="r.txt")) for text in ("plain", "fast==1.0")]
    spec = replace(SPEC, python=python, pip=PipSpec(requirements=tuple(lines)))
    env = {"PATH": os.defpath, "UV_DEFAULT_INDEX": house.url, "UV_CACHE_DIR": str(tmp_path / "uv")}
    bases, progress = FakeBases(python=replace(PYTHON, version="3.11.2" if notes else "3.13.5")), Told()
    make: Callable[[], BaseResolver] = lambda: bases  # noqa: E731
    resolvers = Resolvers(
        bases=(make,),
        conda=never_conda,
        pip=lambda: UvResolver(env=env),
        has_debian=lambda: True,
    )
    make_lock(spec, LockRequest(bytecode=False), None, resolvers, progress=progress)
    asked = bases.asked[0][0]
    assert isinstance(asked, DebianBaseSpec)
    assert asked.suite == suite
    assert len(progress.notes) == notes
    if notes:
        assert progress.notes[0].startswith(
            "python 3.11 instead of 3.13: only there fast can be had as wheels"
        )


@dataclass
class FakePythons:
    """Has a standalone build of any series."""

    asked: list[str | None] = field(default_factory=list)
    name: str = "standalone"

    def resolve(self, request: PythonRequest) -> dict[Platform, PythonPin]:
        self.asked.append(request.wanted)
        pin = replace(PYTHON, version=f"{request.wanted}.18", provider="standalone")
        return dict.fromkeys(request.platforms, pin)


@pytest.mark.parametrize(
    ("python", "wheel", "taken"),
    [
        (None, "cp310-cp310-manylinux_2_17_x86_64", "3.10"),
        (">=3.9", "cp39.cp310-none-manylinux_2_17_x86_64", "3.10"),
        (">=3.9", "cp38-cp38-manylinux_2_17_x86_64", None),
        (None, None, None),
    ],
)
def test_an_older_standalone_python_is_taken_where_only_that_has_wheels(
    tmp_path: Path, python: str | None, wheel: str | None, taken: str | None
) -> None:
    house = Wheelhouse(tmp_path / "house")
    house.add_file("fast", "fast-1.0.tar.gz", sdist("fast"))
    house.add(*([Wheel(name="fast", tag=wheel)] if wheel else []))
    lines = (PipRequirement(text="fast==1.0", origin=Origin(file="r.txt")),)
    spec = replace(SPEC, python=python, pip=PipSpec(requirements=lines))
    env = {"PATH": os.defpath, "UV_DEFAULT_INDEX": house.url, "UV_CACHE_DIR": str(tmp_path / "uv")}
    bases, pythons, progress = FakeBases(python=PYTHON), FakePythons(), Told()
    make: Callable[[], BaseResolver] = lambda: bases  # noqa: E731
    resolvers = Resolvers(
        bases=(make,),
        conda=never_conda,
        pip=lambda: UvResolver(env=env),
        has_debian=lambda: True,
        standalone=lambda: pythons,
    )
    lock = make_lock(spec, LockRequest(bytecode=False), None, resolvers, progress=progress)
    assert pythons.asked == [*filter(None, [taken])]
    asked = bases.asked[0][0]
    assert isinstance(asked, DebianBaseSpec)
    assert asked.suite == "trixie"
    expected = f"python {taken} instead of 3.13: only there fast can be had as wheels; say python: to choose"
    assert progress.notes == ([expected] if taken else [])
    # The choice stays, also where nothing can be asked.
    again = make_lock(spec, LockRequest(bytecode=False), lock, resolvers, progress=Told(), offline=True)
    assert again.platforms[0].python == lock.platforms[0].python
