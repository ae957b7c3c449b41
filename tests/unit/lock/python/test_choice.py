"""Which python an environment gets (docs/design.md §4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.model import Base, DebianBase, ImageBase, PythonPin
from envbuild.lock.python.choice import (
    PythonChoice,
    check_glibc,
    choose_python,
    matches_python,
    with_conda_python,
)
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.model import (
    CondaSpec,
    DebianBaseSpec,
    ExplicitPackage,
    ImageBaseSpec,
    PythonProvider,
    Spec,
)

SOURCE = Path("envbuild.yaml")


@pytest.mark.parametrize(
    ("wanted", "version", "expected"),
    [
        (None, "3.13.5", True),
        ("3.13", "3.13.5", True),
        ("3.13", "3.13", True),
        ("3.1", "3.13.5", False),
        ("=3.11", "3.11.2", True),
        ("3.11.*", "3.11.2", True),
        ("3.11.4", "3.11.2", False),
        ("3.11.2", "3.11", True),
        ("==3.11.2", "3.11.2", True),
        (">=3.11,<3.13", "3.13.5", False),
        (">=3.11,<3.13", "3.11", True),
        (">=3.13.2", "3.13", True),
    ],
)
def test_matching(wanted: str | None, version: str, expected: bool) -> None:
    assert matches_python(wanted, version) is expected


def test_what_is_no_version_is_an_error() -> None:
    with pytest.raises(ResolveError, match="python: 'three' is not a version"):
        matches_python("three", "3.13")


def choice(has_debian: bool = True, present: Base | None = None, **spec: Any) -> PythonChoice:
    return choose_python(
        Spec(name="x", source=SOURCE, **spec), has_debian=lambda: has_debian, present=present
    )


@pytest.mark.parametrize(
    ("python", "suite", "from_base"),
    [(None, "trixie", True), ("3.13", "trixie", True), ("3.11", "bookworm", True), ("3.12", "trixie", False)],
)
def test_the_python_asked_for_decides_the_suite(python: str | None, suite: str, from_base: bool) -> None:
    assert choice(python=python) == PythonChoice(
        base=DebianBaseSpec(suite=suite), from_base=from_base, needed=True
    )


def test_with_conda_packages_python_is_conda_s() -> None:
    conda = CondaSpec(channels=("conda-forge",), dependencies=("python=3.11",))
    assert choice(conda=conda) == PythonChoice(
        base=DebianBaseSpec(suite="trixie"), from_base=False, needed=False, provider=PythonProvider.CONDA
    )


def test_a_suite_of_another_python_leaves_it_to_a_standalone_build() -> None:
    chosen = choice(python="3.12", base=DebianBaseSpec(suite="bookworm"))
    assert (chosen.from_base, chosen.provider) == (False, PythonProvider.STANDALONE)


def test_a_provider_that_is_named_is_the_one() -> None:
    bookworm = DebianBase(suite="bookworm", packages=(), glibc="2.36")
    for provider in (PythonProvider.STANDALONE, PythonProvider.CONDA):
        chosen = choice(python="3.11", python_provider=provider)
        assert chosen == PythonChoice(
            base=DebianBaseSpec(suite="trixie"), from_base=False, needed=True, provider=provider
        )
        assert choice(python="3.13", python_provider=provider, present=bookworm).base == DebianBaseSpec(
            suite="bookworm"
        )
        assert choice(has_debian=False, python="3.11", python_provider=provider).base == ImageBaseSpec(
            reference="docker.io/library/debian:trixie-slim"
        )
    assert choice(python="3.11", python_provider=PythonProvider.BASE).from_base is True


def test_a_python_that_conda_brought_before_stays_conda_s() -> None:
    spec = Spec(name="x", source=SOURCE, python="3.12")
    locked = PythonPin(version="3.12.4", provider="conda", executable="/opt/env/bin/python3.12")
    chosen = choose_python(spec, has_debian=lambda: True, locked=locked)
    assert chosen.provider is PythonProvider.CONDA
    standalone = replace(locked, provider="standalone")
    again = choose_python(spec, has_debian=lambda: True, locked=standalone)
    assert again.provider is PythonProvider.STANDALONE


def test_a_base_with_a_c_library_of_old_is_refused() -> None:
    check_glibc(DebianBase(suite="trixie", packages=(), glibc="2.17"))
    old = ImageBase(reference="docker.io/library/centos:6", digest="sha256:" + "1" * 64, glibc="2.12")
    with pytest.raises(ResolveError, match=r"centos:6 has glibc 2\.12, and standalone pythons need 2\.17"):
        check_glibc(old)


def test_without_a_debian_mirror_the_official_image_is_taken() -> None:
    assert choice(has_debian=False, python="3.12") == PythonChoice(
        base=ImageBaseSpec(reference="docker.io/library/python:3.12-slim"), from_base=True, needed=True
    )


def test_without_a_debian_mirror_conda_stands_on_debian_s_image() -> None:
    conda = CondaSpec(channels=("conda-forge",), dependencies=("python=3.11",))
    assert choice(has_debian=False, conda=conda) == PythonChoice(
        base=ImageBaseSpec(reference="docker.io/library/debian:trixie-slim"),
        from_base=False,
        needed=False,
        provider=PythonProvider.CONDA,
    )


def test_what_was_chosen_before_stays_whichever_host_is_asked() -> None:
    image = ImageBase(reference="docker.io/library/python:3.12-slim", digest="sha256:" + "1" * 64)
    assert choice(python="3.12", present=image).base == ImageBaseSpec(reference=image.reference)
    assert choice(python="3.13", present=image).base == DebianBaseSpec(suite="trixie")
    bookworm = DebianBase(suite="bookworm", packages=(), glibc="2.36")
    assert choice(has_debian=False, present=bookworm).base == DebianBaseSpec(suite="bookworm")
    assert choice(python="3.13", present=bookworm).base == DebianBaseSpec(suite="trixie")


def test_a_range_of_pythons_needs_a_mirror_only_where_an_image_would_be_taken() -> None:
    image = ImageBase(reference="docker.io/library/alma:9", digest="sha256:" + "1" * 64)
    assert choice(python=">=3.12", present=image).base == DebianBaseSpec(suite="trixie")
    with pytest.raises(ResolveError, match="without a Debian mirror, python must be one version"):
        choice(has_debian=False, python=">=3.12")


def test_debian_packages_without_a_mirror_are_refused() -> None:
    with pytest.raises(ResolveError) as caught:
        choice(has_debian=False, base=DebianBaseSpec(packages=("git",)))
    assert caught.value.hint == "set ENVBUILD_DEBIAN_MIRROR to the root of a Debian archive"


@pytest.mark.parametrize(
    ("wanted", "dependency"),
    [
        (None, "python"),
        ("3.12", "python 3.12.*"),
        ("3.12.4", "python ==3.12.4"),
        (">=3.10, <3.13", "python >=3.10,<3.13"),
    ],
)
def test_python_joins_the_conda_dependencies(wanted: str | None, dependency: str) -> None:
    assert with_conda_python(None, wanted) == CondaSpec(
        channels=("conda-forge",), dependencies=(dependency,), add_pip=False
    )


def test_a_python_that_is_there_is_not_asked_for_twice() -> None:
    conda = CondaSpec(channels=("c",), dependencies=("numpy", "c::python >=3.9"))
    assert with_conda_python(conda, None) == conda


def test_a_list_of_conda_packages_stays_and_decides_the_python() -> None:
    listed = CondaSpec(
        channels=("c",),
        dependencies=(),
        explicit=tuple(
            ExplicitPackage(platform=LINUX_AMD64, url=f"https://c.example/linux-64/{file}", sha256="0" * 64)
            for file in ("libzlib-1.3-0.conda", "python-3.12.7-h1_0_cpython.conda")
        ),
    )
    assert with_conda_python(listed, None) is listed
    assert with_conda_python(listed, "3.12") is listed
    with pytest.raises(ResolveError) as caught:
        with_conda_python(listed, "3.11")
    assert caught.value.message == (
        "python 3.11 is asked for, the list of conda packages for linux/amd64 has 3.12.7"
    )
