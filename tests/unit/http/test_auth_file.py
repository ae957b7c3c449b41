"""What rattler keeps about hosts is used for those hosts, and shown to nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from envbuild.http.address import AddressLogin
from envbuild.http.auth_file import AuthFile, Bearer, PathToken

HOSTS = {
    "one.example.org": {"BearerToken": "b"},
    "*.example.org": {"CondaToken": "t/ok"},
    "*.org": {"BasicHTTP": {"username": "u", "password": "p"}},
    "odd.example.com": {"S3Credentials": {"access_key_id": "x"}},
    "list.example.com": ["x"],
}


@pytest.fixture
def named(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps(HOSTS))
    return {"RATTLER_AUTH_FILE": str(path), "HOME": "/nonexistent"}


@pytest.mark.parametrize(
    ("url", "access"),
    [
        ("https://one.example.org/c/linux-64/x.conda", Bearer(token="b")),
        ("https://ONE.example.org:8080/", Bearer(token="b")),
        ("https://two.example.org/", PathToken(token="t/ok")),
        ("https://example.org/", PathToken(token="t/ok")),
        ("https://other.org/", AddressLogin(user="u", password="p")),
        ("https://odd.example.com/", None),
        ("https://list.example.com/", None),
        ("https://example.net/", None),
        ("https://notexample.com/", None),
    ],
)
def test_the_nearest_name_of_the_host_decides(
    named: dict[str, str], url: str, access: AddressLogin | Bearer | PathToken | None
) -> None:
    assert AuthFile(named).access(url) == access


def test_a_token_goes_into_the_path_once() -> None:
    token = PathToken(token="t/ok")
    assert token.applied("https://a.org/c/x.conda") == "https://a.org/t/t%2Fok/c/x.conda"
    assert token.applied("https://a.org/t/other/c/x.conda") == "https://a.org/t/other/c/x.conda"


def test_nothing_shows_a_token() -> None:
    assert f"{Bearer(token='secret')} {PathToken(token='secret')}" == "Bearer(***) PathToken(***)"


def test_the_file_in_the_home_directory_counts_where_none_is_named(tmp_path: Path) -> None:
    (tmp_path / ".rattler").mkdir()
    (tmp_path / ".rattler" / "credentials.json").write_text(json.dumps(HOSTS))
    assert AuthFile({"HOME": str(tmp_path)}).access("https://one.example.org/") == Bearer(token="b")
    assert AuthFile({"HOME": str(tmp_path / "none")}).access("https://one.example.org/") is None


@pytest.mark.parametrize("text", ["{secret", "[]", '"secret"', "\\xff"])
def test_a_broken_file_counts_as_none_and_is_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    with caplog.at_level(logging.DEBUG):
        assert AuthFile({"RATTLER_AUTH_FILE": str(path)}).access("https://one.example.org/") is None
    assert "secret" not in caplog.text
