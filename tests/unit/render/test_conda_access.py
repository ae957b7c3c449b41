"""The auth file of a build step: the hosts of the packages, with the logins this machine has for them."""

from __future__ import annotations

import json
from pathlib import Path

from envbuild.http.auth_file import AuthFile, Bearer, PathToken
from envbuild.render.access import conda_auth

KEPT = {
    "token.test": {"CondaToken": "one"},
    "*.wild.test": {"BearerToken": "two"},
    "both.test": {"BasicHTTP": {"username": "me", "password": "three"}},
    "other.test": {"CondaToken": "four"},
}
NETRC = "machine both.test login no password no\nmachine netrc.test login you password five\n"
URLS = [
    "https://token.test/channel/linux-64/a-1-0.conda",
    "https://token.test/channel/linux-64/b-1-0.conda",
    "https://a.wild.test:8443/c-1-0.conda",
    "https://both.test/d-1-0.conda",
    "https://netrc.test/e-1-0.conda",
    "https://open.test/f-1-0.conda",
]


def test_logins_of_the_hosts_and_no_others(tmp_path: Path) -> None:
    (tmp_path / ".rattler").mkdir()
    (tmp_path / ".rattler" / "credentials.json").write_text(json.dumps(KEPT))
    (tmp_path / ".netrc").write_text(NETRC)
    text = conda_auth({"HOME": str(tmp_path)}, URLS)
    assert text is not None
    assert json.loads(text) == {
        "a.wild.test": {"BearerToken": "two"},
        "both.test": {"BasicHTTP": {"username": "me", "password": "three"}},
        "netrc.test": {"BasicHTTP": {"username": "you", "password": "five"}},
        "token.test": {"CondaToken": "one"},
    }


def test_it_is_read_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(json.dumps(KEPT))
    environ = {"HOME": str(tmp_path), "RATTLER_AUTH_FILE": str(tmp_path / "kept.json")}
    (tmp_path / "step.json").write_text(conda_auth(environ, URLS) or "")
    step = AuthFile({"RATTLER_AUTH_FILE": str(tmp_path / "step.json")})
    assert step.access(URLS[0]) == PathToken(token="one")
    assert step.access(URLS[2]) == Bearer(token="two")
    assert step.access("https://other.test/x") is None


def test_without_a_login_there_is_no_file(tmp_path: Path) -> None:
    assert conda_auth({"HOME": str(tmp_path)}, URLS) is None
