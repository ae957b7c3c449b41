"""POMs are read as they are written, and hostile ones are refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.errors import ResolveError
from envbuild.lock.maven.pom import LARGEST, PomDependency, PomReference, read_pom
from tests.fakes.maven import needs, pom


def test_everything_that_counts_is_read() -> None:
    found = read_pom(
        pom(
            "g:a:1",
            needs("h:b:${v}", scope="runtime", optional="false", without=("x:*",)),
            parent="g:up:7",
            packaging="bundle",
            properties={"v": " 2 "},
            managed=[needs("m:c:3", type="pom", scope="import")],
        ),
        "a.pom",
    )
    assert (found.own, found.parent) == (
        PomReference(group="g", artifact="a", version="1"),
        PomReference(group="g", artifact="up", version="7"),
    )
    assert (found.packaging, found.properties) == ("bundle", {"v": "2"})
    assert found.dependencies == (
        PomDependency(
            group="h",
            artifact="b",
            version="${v}",
            scope="runtime",
            optional="false",
            exclusions=(("x", "*"),),
        ),
    )
    assert found.managed == (PomDependency(group="m", artifact="c", version="3", type="pom", scope="import"),)


def test_a_pom_without_a_namespace_is_read_and_profiles_are_passed_over() -> None:
    text = (
        "<project><artifactId>a</artifactId><profiles><profile><dependencies><dependency>"
        "<groupId>p</groupId></dependency></dependencies></profile></profiles></project>"
    )
    found = read_pom(text.encode("utf-16"), "a.pom")
    assert (found.own.artifact, found.dependencies) == ("a", ())


BOMB = (
    '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><project><artifactId>&b;</artifactId></project>'
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (BOMB.encode(), "declares a document type, which no POM needs"),
        (BOMB.encode("utf-16"), "declares a document type, which no POM needs"),
        (
            b'<!DOCTYPE p SYSTEM "file:///etc/passwd"><project/>',
            "declares a document type, which no POM needs",
        ),
        (b"<html/>", "is no POM: its element is 'html'"),
        (b"<project>" + b"<a>" * 100, "has more elements than any POM"),
        (b"<project>" + b"<a/>" * 200_001, "has more elements than any POM"),
        (b" " * (LARGEST + 1), f"has more than the {LARGEST} bytes that a POM may have"),
    ],
)
def test_what_no_pom_has_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ResolveError) as caught:
        read_pom(data, "a.pom")
    assert caught.value.message == f"a.pom {why}"


@given(st.one_of(st.binary(max_size=200), st.text(max_size=50).map(lambda text: f"<project>{text}".encode())))
def test_any_bytes_are_a_pom_or_a_resolve_error(data: bytes) -> None:
    with suppress(ResolveError):
        read_pom(data, "a.pom")
