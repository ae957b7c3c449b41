"""Whose credentials go to which address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from envbuild.compose.artifacts.wheel.index import IndexLogins, PackageIndexes
from envbuild.lock.pip.runner import Completed

INDEX = "https://index.test/simple"
FILE = "https://index.test/files/demo-1.0-py3-none-any.whl"
WITH = "https://who:s3cret@index.test/files/demo-1.0-py3-none-any.whl"


class Keyring:
    """A runner that answers as ``keyring get`` does."""

    def __init__(self, passwords: Mapping[tuple[str, str], str]) -> None:
        self.passwords = passwords
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, input: str = "") -> Completed:
        assert argv[:2] == ["keyring", "get"]
        self.asked.append(tuple(argv[2:]))
        password = self.passwords.get((argv[2], argv[3]))
        return Completed(status=int(password is None), stdout=f"{password or ''}\n", stderr="")


class Absent:
    def run(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, input: str = "") -> Completed:
        raise FileNotFoundError(argv[0])


def applied(url: str, env: Mapping[str, str], *options: str) -> str:
    return IndexLogins(PackageIndexes(env=env, options=options, runner=Absent())).add_login(url)


@pytest.mark.parametrize(
    "env",
    [
        {"UV_INDEX_URL": "https://who:s3cret@index.test/simple"},
        {"UV_DEFAULT_INDEX": "https://who:s3cret@INDEX.test/simple"},
        {"UV_EXTRA_INDEX_URL": "https://other.test/a https://who:s3cret@index.test/simple"},
        {"UV_FIND_LINKS": "https://who:s3cret@index.test/files"},
        {"PIP_INDEX_URL": "https://who:s3cret@index.test/simple"},
        {"PIP_EXTRA_INDEX_URL": "https://who:s3cret@index.test/simple"},
        {"UV_INDEX_URL": "https://[broken", "UV_EXTRA_INDEX_URL": "https://who:s3cret@index.test/simple"},
        {
            "UV_INDEX": f"one=https://one.test/ my-Corp.2={INDEX}",
            "UV_INDEX_MY_CORP_2_USERNAME": "who",
            "UV_INDEX_MY_CORP_2_PASSWORD": "s3cret",
        },
    ],
)
def test_an_index_of_the_environment_opens_its_files(env: Mapping[str, str]) -> None:
    assert applied(FILE, env) == WITH


def test_an_index_of_the_spec_opens_its_files() -> None:
    assert applied(FILE, {}, "--extra-index-url https://who:s3cret@index.test/simple") == WITH


@pytest.mark.parametrize(
    "url",
    [
        "https://files.test/demo.whl",
        "http://index.test/demo.whl",
        "https://index.test:8443/demo.whl",
        "https://index.test.evil.test/demo.whl",
        "https://other:mine@index.test/demo.whl",
        "file:///index.test/demo.whl",
    ],
)
def test_no_other_address_gets_them(url: str) -> None:
    assert applied(url, {"UV_INDEX_URL": "https://who:s3cret@index.test/simple"}) == url


def test_special_characters_stay_what_they_are() -> None:
    env = {
        "UV_INDEX": f"corp={INDEX}",
        "UV_INDEX_CORP_USERNAME": "who@corp",
        "UV_INDEX_CORP_PASSWORD": "a/b:c@d",
    }
    assert applied(FILE, env) == FILE.replace("//", "//who%40corp:a%2Fb%3Ac%40d@")


def test_on_a_shared_host_the_nearest_index_counts() -> None:
    env = {"UV_INDEX": "https://a:1@host.test/one/simple https://b:2@host.test/two/simple"}
    assert applied("https://host.test/two/files/x.whl", env) == "https://b:2@host.test/two/files/x.whl"
    assert applied("https://host.test/one/files/x.whl", env) == "https://a:1@host.test/one/files/x.whl"


def test_uvs_configuration_is_read(tmp_path: Path) -> None:
    config = tmp_path / "config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[[index]]\nname = "corp"\nurl = "{INDEX}"\n[pip]\nindex-url = "https://p:q@pip.test/simple"\n'
    )
    env = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "UV_INDEX_CORP_USERNAME": "who",
        "UV_INDEX_CORP_PASSWORD": "s3cret",
    }
    assert applied(FILE, env) == WITH
    assert applied("https://pip.test/x.whl", env) == "https://p:q@pip.test/x.whl"
    assert applied(FILE, {**env, "UV_NO_CONFIG": "1"}) == FILE
    named = {**env, "XDG_CONFIG_HOME": "", "UV_CONFIG_FILE": str(config)}
    assert applied(FILE, named) == WITH


def test_the_keyring_is_asked_once_for_a_password_that_is_missing() -> None:
    keyring = Keyring({("index.test", "who"): "s3cret"})
    env = {"UV_INDEX_URL": "https://who@index.test/simple", "UV_KEYRING_PROVIDER": "subprocess"}
    logins = IndexLogins(PackageIndexes(env=env, runner=keyring))
    assert [logins.add_login(FILE), logins.add_login(FILE)] == [WITH, WITH]
    assert keyring.asked == [(INDEX, "who"), ("index.test", "who")]


def test_without_a_keyring_the_address_stays() -> None:
    env = {"UV_INDEX_URL": "https://who@index.test/simple", "UV_KEYRING_PROVIDER": "subprocess"}
    assert applied(FILE, env) == FILE
