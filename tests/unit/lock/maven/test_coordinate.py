"""Coordinates are exact, safe names; versions are compared as Ivy does."""

from __future__ import annotations

from itertools import pairwise

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.maven.coordinate import Module, checked, later


def test_the_file_of_a_coordinate_is_where_maven_puts_it() -> None:
    found = checked("org.example.deep", "lib_2.13", "1.0-rc.1", "here")
    assert found.file("pom") == "org/example/deep/lib_2.13/1.0-rc.1/lib_2.13-1.0-rc.1.pom"
    assert found.file("jar", "linux") == "org/example/deep/lib_2.13/1.0-rc.1/lib_2.13-1.0-rc.1-linux.jar"


def test_a_range_of_one_version_is_that_version() -> None:
    assert checked("g", "a", "[1.5]", "here").version == "1.5"


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("[1.0,2.0)", "is no exact version, and what it stands for changes"),
        ("(,1.0]", "is no exact version, and what it stands for changes"),
        ("LATEST", "is no exact version, and what it stands for changes"),
        ("RELEASE", "is no exact version, and what it stands for changes"),
        ("latest.release", "is no exact version, and what it stands for changes"),
        ("1.+", "is no exact version, and what it stands for changes"),
        ("1.0-SNAPSHOT", "is a snapshot, which is replaced as its authors go on"),
        ("[1.0-snapshot]", "is a snapshot, which is replaced as its authors go on"),
        ("${undefined}", "is no Maven coordinate"),
        ("../../etc", "is no Maven coordinate"),
        ("", "is no Maven coordinate"),
        ("1" * 200, "is no Maven coordinate"),
    ],
)
def test_only_one_released_version_is_taken(version: str, why: str) -> None:
    with pytest.raises(ResolveError) as caught:
        checked("g", "a", version, "spark.packages")
    assert caught.value.message == f"spark.packages: {f'g:a:{version}'!r} {why}"


@pytest.mark.parametrize(
    ("group", "artifact"),
    [
        ("a..b", "x"),
        ("/etc", "x"),
        ("g", ".."),
        ("g", "a/b"),
        ("g", ""),
        ("", "a"),
        ("g", "a\nb"),
        ("g\n", "a"),
    ],
)
def test_a_name_never_leaves_its_directory(group: str, artifact: str) -> None:
    with pytest.raises(ResolveError):
        checked(group, artifact, "1.0", "here")


def test_versions_are_in_ivys_order() -> None:
    order = ["1.0-dev1", "1.0-alpha1", "1.0-beta", "1.0-rc1", "1.0-rc2", "1.0", "1.0.1", "1.2", "1.10", "2"]
    for lower, higher in pairwise(order):
        assert later(higher, lower)
        assert not later(lower, higher)
    assert not later("1.0", "1.0")
    # Equal by value: still one answer, whichever is asked first.
    assert later("1.00", "1.0") is not later("1.0", "1.00")


def test_an_exclusion_may_have_stars() -> None:
    slf4j = Module(group="org.slf4j", artifact="slf4j-api")
    assert Module(group="*", artifact="*").excludes(slf4j)
    assert Module(group="org.slf4j", artifact="*").excludes(slf4j)
    assert not Module(group="org", artifact="*").excludes(slf4j)
