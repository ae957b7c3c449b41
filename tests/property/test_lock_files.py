"""Locks of any content: what is dumped is loaded, in whatever order it was put together."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.errors import LockError
from envbuild.lock.files import dump_lock, parse_lock
from envbuild.lock.identity import ComposerSettings, lock_digest
from envbuild.lock.model import DebianBase, DebianPin, Lock, PipPin, PlatformLock, PythonPin, RuntimeSettings
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64

VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}[a-z0-9]", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SIZES = st.integers(0, 1 << 40)


@st.composite
def pip_pins(draw: st.DrawFn) -> PipPin:
    name, version = draw(NAMES), draw(VERSIONS)
    return PipPin(
        name=name,
        version=version,
        file=f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        size=draw(SIZES),
        sha256=draw(HEX),
        via=tuple(draw(st.lists(NAMES, max_size=2))),
    )


@st.composite
def debian_pins(draw: st.DrawFn) -> DebianPin:
    name, version = draw(NAMES), draw(VERSIONS)
    return DebianPin(
        name=name,
        version=version,
        architecture="amd64",
        archive="debian",
        file=f"pool/main/{name[0]}/{name}_{version}_amd64.deb",
        size=draw(SIZES),
        sha256=draw(HEX),
    )


@st.composite
def platform_locks(draw: st.DrawFn, platform: object = LINUX_AMD64) -> PlatformLock:
    pip = draw(st.lists(pip_pins(), max_size=5, unique_by=lambda pin: pin.name))
    debian = draw(st.lists(debian_pins(), max_size=5, unique_by=lambda pin: pin.name))
    return PlatformLock(
        platform=LINUX_AMD64 if platform is LINUX_AMD64 else LINUX_ARM64,
        base=DebianBase(suite="trixie", packages=tuple(sorted(debian)), glibc="2.41"),
        python=draw(
            st.none()
            | st.just(PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13"))
        ),
        pip=tuple(sorted(pip)),
    )


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    platforms = [draw(platform_locks())]
    if draw(st.booleans()):
        platforms.append(draw(platform_locks(LINUX_ARM64)))
    variables = draw(st.dictionaries(VARIABLES, VALUES, max_size=3))
    return Lock(
        definition="sha256:" + draw(HEX),
        platforms=tuple(platforms),
        bytecode=draw(st.booleans()),
        runtime=RuntimeSettings(environment_variables=tuple(sorted(variables.items()))),
    )


@given(locks(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_what_is_dumped_is_loaded_in_whatever_order(lock: Lock, order: random.Random) -> None:
    files = dump_lock(lock)
    assert parse_lock(files["envbuild.lock"])[0] == lock

    def shuffled(pins: PlatformLock) -> PlatformLock:
        assert isinstance(pins.base, DebianBase)
        debian, pip = list(pins.base.packages), list(pins.pip)
        order.shuffle(debian)
        order.shuffle(pip)
        return replace(pins, base=replace(pins.base, packages=tuple(debian)), pip=tuple(pip))

    platforms = [shuffled(platform) for platform in lock.platforms]
    order.shuffle(platforms)
    other = replace(lock, platforms=tuple(platforms))
    assert dump_lock(other) == files
    composition = ComposerSettings(composer="1")
    for pins in platforms:
        same = lock.platform(pins.platform)
        assert same is not None
        assert lock_digest(other, pins, composition) == lock_digest(lock, same, composition)


@given(locks(), st.data())
@settings(max_examples=50, deadline=None)
def test_a_changed_byte_is_found_or_changes_nothing(lock: Lock, data: st.DataObject) -> None:
    content = dump_lock(lock)["envbuild.lock"]
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255))
    try:
        found = parse_lock(content[:place] + bytes([byte]) + content[place + 1 :], str(Path("x")))[0]
    except LockError:
        return
    assert found == lock
