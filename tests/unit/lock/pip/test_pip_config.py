"""pip's configuration: which places of it count, in pip's order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envbuild.lock.pip.command import index_options, uv_environment
from envbuild.lock.pip.pip_config import pip_config_files, pip_places

MORE = "https://more.test/s"


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine whose only file of pip's is the one that is named."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://global.test/s\nextra-index-url =\n    https://more.test/s\n"
        "    file:///opt/simple\nconstraint = /c.txt\nfind-links = /opt/wheels\ncert = /ca.pem\n"
        "client_cert = /me.pem\ntrusted-host = a.test b.test\nproxy = http://proxy.test:3128\n"
        "[install]\nindex-url = https://install.test/s\n"
    )
    return {"PIP_CONFIG_FILE": str(file), "HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}


def test_only_the_places_count(env: dict[str, str]) -> None:
    places = pip_places(env)
    assert places.lines() == ("--index-url https://install.test/s", f"--extra-index-url {MORE}")
    assert places.left_out == ("file:///opt/simple",)
    given = uv_environment(env)
    assert {
        key: given[key] for key in ("SSL_CERT_FILE", "SSL_CLIENT_CERT", "UV_INSECURE_HOST", "ALL_PROXY")
    } == {
        "SSL_CERT_FILE": "/ca.pem",
        "SSL_CLIENT_CERT": "/me.pem",
        "UV_INSECURE_HOST": "a.test b.test",
        "ALL_PROXY": "http://proxy.test:3128",
    }


def test_variables_go_before_files(env: dict[str, str]) -> None:
    env |= {"PIP_INDEX_URL": "https://variable.test/s", "PIP_EXTRA_INDEX_URL": ""}
    assert pip_places(env).lines() == ("--index-url https://variable.test/s", f"--extra-index-url {MORE}")
    assert pip_places({**env, "PIP_NO_INDEX": "1"}).lines() == ("--no-index",)


def test_uvs_own_settings_go_before_pips(env: dict[str, str]) -> None:
    own = {"SSL_CERT_FILE": "/uv.pem", "HTTPS_PROXY": "http://uv.test", "UV_INSECURE_HOST": "uv.test"}
    given = uv_environment({**env, **own})
    assert {key: given.get(key) for key in (*own, "ALL_PROXY")} == {**own, "ALL_PROXY": None}


def test_the_specs_index_takes_the_place_of_all_of_pips(env: dict[str, str]) -> None:
    own = ("--index-url https://spec.test/s",)
    assert index_options(own, env) == own
    assert index_options(("--extra-index-url https://spec.test/s",), env) == (
        "--index-url https://install.test/s",
        f"--extra-index-url {MORE}",
        "--extra-index-url https://spec.test/s",
    )


def test_a_named_file_takes_the_place_of_the_users(env: dict[str, str], tmp_path: Path) -> None:
    user = tmp_path / ".config" / "pip" / "pip.conf"
    assert user not in pip_config_files(env)
    assert user in pip_config_files({**env, "PIP_CONFIG_FILE": str(tmp_path / "absent.conf")})
    assert pip_config_files({**env, "PIP_CONFIG_FILE": "/dev/null"}) == ()
