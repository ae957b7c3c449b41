"""Debian's order of versions."""

from __future__ import annotations

import itertools

import pytest

from envbuild.lock.debian.version import DebianVersion, upstream

ORDERED = [
    "0~~",
    "0~",
    "0",
    "0a",
    "1.0~~",
    "1.0~beta1~svn1",
    "1.0~beta1",
    "1.0~rc1-1",
    "1.0",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1+deb13u1",
    "1.0-2",
    "1.0-10",
    "1.0a",
    "1.0+dfsg",
    "1.0.1",
    "1.2",
    "1.10",
    "1:0.1",
    "2:0",
]


@pytest.mark.parametrize(("low", "high"), list(itertools.combinations(ORDERED, 2)))
def test_versions_sort_as_dpkg_sorts_them(low: str, high: str) -> None:
    assert DebianVersion(low) < DebianVersion(high)
    assert not DebianVersion(high) < DebianVersion(low)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0-0"), ("1.0", "0:1.0"), ("1.01", "1.1"), ("a", "a0"), ("1.0-1", "1.00-01")]
)
def test_spellings_of_one_version_are_equal(one: str, other: str) -> None:
    assert DebianVersion(one) == DebianVersion(other)
    assert hash(DebianVersion(one)) == hash(DebianVersion(other))


@pytest.mark.parametrize(
    ("operator", "holds"),
    [("<<", False), ("<=", True), ("=", True), (">=", True), (">>", False), ("<", True)],
)
def test_relations_of_equal_versions(operator: str, holds: bool) -> None:
    assert DebianVersion("1.0").satisfies(operator, DebianVersion("1.0-0")) is holds


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("3.13.5-2", "3.13.5"),
        ("1:3.11.2-6+deb12u6", "3.11.2"),
        ("2.41-12+deb13u4", "2.41"),
        ("3.14.0~rc2-1", "3.14.0"),
        ("2.36-9", "2.36"),
    ],
)
def test_the_upstream_release_leads_a_version(version: str, release: str) -> None:
    assert upstream(version) == release
