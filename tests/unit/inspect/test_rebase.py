"""What a base must have for software that was installed on another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.errors import BuildError
from envbuild.inspect.rebase import rebased_lock
from envbuild.lock.base import ResolvedBase
from envbuild.lock.model import Base, ContextBase, DebianBase, ImageBase, Lock, PipPin, PythonPin
from tests.unit.lock.sample import AMD64, ARM64, BASE, IDNA, LOCK, ONE, PYTHON, TZDATA, ZLIB

NEWER = replace(BASE, packages=(*BASE.packages[:1], replace(TZDATA, version="2026b-1")))


def lock(*wheels: PipPin) -> Lock:
    return replace(LOCK, platforms=(replace(AMD64, pip=wheels),))


def wheel(tags: str) -> PipPin:
    return replace(IDNA, name="native", version="1", file=f"native-1-cp313-cp313-{tags}.whl")


def image(glibc: str | None) -> ImageBase:
    return ImageBase(reference="docker.io/library/debian:x", digest=f"sha256:{ONE}", glibc=glibc)


def old(base: Base = BASE, glibc: str = "2.36") -> DebianBase:
    assert isinstance(base, DebianBase)
    return replace(base, suite="bookworm", glibc=glibc)


def test_only_the_base_changes() -> None:
    found = rebased_lock(lock(IDNA), ResolvedBase(base=NEWER, python=PYTHON))
    assert found == replace(lock(IDNA), platforms=(replace(AMD64, pip=(IDNA,), base=NEWER),))


@pytest.mark.parametrize(
    "tags",
    [
        "manylinux_2_36_x86_64",
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "manylinux_2_39_x86_64.manylinux_2_28_x86_64",
        "manylinux1_x86_64",
        "linux_x86_64",
    ],
)
def test_a_wheel_fits_a_base_with_the_least_of_its_tags(tags: str) -> None:
    assert rebased_lock(lock(wheel(tags)), ResolvedBase(base=old(), python=PYTHON))


@pytest.mark.parametrize("tags", ["manylinux_2_39_x86_64", "manylinux_2_100_x86_64"])
def test_a_wheel_that_needs_a_newer_glibc_is_named(tags: str) -> None:
    needed = tags.removeprefix("manylinux_").removesuffix("_x86_64").replace("_", r"\.")
    with pytest.raises(BuildError, match=rf"native 1 needs glibc {needed}, and Debian bookworm has 2\.36"):
        rebased_lock(lock(wheel(tags)), ResolvedBase(base=old(), python=PYTHON))


def test_a_conda_package_that_needs_a_newer_glibc_is_named() -> None:
    package = replace(ZLIB, depends=("libgcc >=14", "__glibc >=2.40,<3.0.a0"))
    pins = replace(LOCK, platforms=(replace(ARM64, conda=(package,)),))
    with pytest.raises(BuildError, match=r"zlib 1\.3\.1 needs glibc 2\.40, and .* has 2\.36"):
        rebased_lock(pins, ResolvedBase(base=image("2.36"), python=None))
    assert rebased_lock(pins, ResolvedBase(base=image("2.40"), python=None))


def test_an_image_without_glibc_is_refused() -> None:
    pins = replace(LOCK, platforms=(ARM64,))
    with pytest.raises(BuildError, match="has no glibc"):
        rebased_lock(pins, ResolvedBase(base=image(None), python=None))


@pytest.mark.parametrize(
    "python",
    [
        None,
        replace(PYTHON, version="3.13.6"),
        replace(PYTHON, version="3.12.5", executable="/usr/bin/python3.12"),
        PythonPin(version="3.13.5", provider="image", executable="/usr/local/bin/python3.13"),
    ],
    ids=["none", "patch", "minor", "path"],
)
def test_a_python_that_is_not_the_very_same_is_refused(python: PythonPin | None) -> None:
    with pytest.raises(BuildError, match=r"installed for python 3\.13\.5 at /usr/bin/python3\.13"):
        rebased_lock(lock(IDNA), ResolvedBase(base=NEWER, python=python))


def test_a_python_of_conda_asks_nothing_of_the_base() -> None:
    conda = replace(PYTHON, provider="conda", executable="/opt/env/bin/python3.13")
    pins = replace(LOCK, platforms=(replace(AMD64, python=conda),))
    assert rebased_lock(pins, ResolvedBase(base=NEWER, python=None)).platforms[0].python == conda


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(BuildError) as caught:
        rebased_lock(lock(wheel("manylinux_2_40_x86_64")), ResolvedBase(base=old(), python=None))
    assert len(caught.value.message.splitlines()) == 2


def test_a_dockerfile_is_no_base() -> None:
    base = ContextBase(digest=f"sha256:{ONE}", dockerfile="Dockerfile")
    with pytest.raises(BuildError, match="no base"):
        rebased_lock(lock(IDNA), ResolvedBase(base=base, python=PYTHON))
