from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.errors import UsageError
from envbuild.oci.reference import Reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian"),
        ("debian:trixie-slim", "docker.io/library/debian:trixie-slim", "debian"),
        ("org/app:1", "docker.io/org/app:1", "org/app"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b"),
        ("localhost/app", "localhost/app:latest", "localhost/app"),
        ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x", "localhost:5000/a/b/c"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app"),
        (f"ghcr.io/o/a@{DIGEST}", f"ghcr.io/o/a@{DIGEST}", "ghcr.io/o/a"),
        (f"ghcr.io/o/a:1@{DIGEST}", f"ghcr.io/o/a:1@{DIGEST}", "ghcr.io/o/a"),
    ],
)
def test_a_name_gets_dockers_defaults(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "a b",
        "a:",
        "a:-x",
        "a@sha256:1",
        "-a",
        "a//b",
        "host:99/",
        "a/../b",
        "x.y/",
        "a:" + "t" * 129,
    ],
)
def test_what_is_no_name_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not an image reference"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:pw@h.test/x", "****@h.test/x"),
        ("ada:pw@h.test/x:1", "****@h.test/x:1"),
        ("ada:p@pw/pw@h.test/x", "****@h.test/x"),
        ("pw@h", "****@h"),
        ("ada:pw@h.test/x@sha256:0", "****@h.test/x@sha256:0"),
        (f"ada:pw@h.test/x@{DIGEST}", f"****@h.test/x@{DIGEST}"),
        ("h.test/x?token=pw", "h.test/x?****"),
    ],
)
def test_a_login_is_refused_without_showing_it(text: str, shown: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert caught.value.message.startswith(f"not an image reference: {shown!r}: a name has no ")
    assert "pw" not in str(caught.value.hint)


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference
