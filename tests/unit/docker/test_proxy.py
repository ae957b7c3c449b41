"""Proxies as build arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envbuild.docker.proxy import loopback_proxy, proxy_arguments, proxy_secrets


def test_dockers_own_settings_go_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(
        json.dumps(
            {
                "proxies": {
                    "default": {"httpProxy": "http://default:1", "noProxy": "a,b"},
                    "tcp://engine:2376": {"httpProxy": "http://special:2"},
                }
            }
        )
    )
    environ = {"HOME": str(tmp_path), "http_proxy": "http://env:3", "HTTPS_PROXY": "http://env:4"}
    assert proxy_arguments(environ) == {
        "HTTP_PROXY": "http://default:1",
        "http_proxy": "http://default:1",
        "HTTPS_PROXY": "http://env:4",
        "https_proxy": "http://env:4",
        "NO_PROXY": "a,b",
        "no_proxy": "a,b",
    }
    assert proxy_arguments(environ, "tcp://engine:2376")["http_proxy"] == "http://special:2"


@pytest.mark.parametrize("text", ["", "[]", '{"proxies": 5}', '{"proxies": {"default": []}}', "{"])
def test_a_config_that_says_nothing_is_no_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    environ = {"DOCKER_CONFIG": str(tmp_path), "FTP_PROXY": "http://f:1", "HTTP_PROXY": "http://a\nRUN x"}
    assert proxy_arguments(environ) == {"FTP_PROXY": "http://f:1", "ftp_proxy": "http://f:1"}


def test_passwords_are_known_in_both_spellings() -> None:
    arguments = {"HTTP_PROXY": "http://me:p%40ss@proxy:1", "NO_PROXY": "localhost", "x": "http://[bad"}
    assert proxy_secrets(arguments) == ("p%40ss", "p@ss")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("http://127.0.0.1:3128", "127.0.0.1:3128"),
        ("localhost:3128", "localhost:3128"),
        ("http://me:secret@localhost", "localhost"),
        ("http://proxy.example:3128", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_a_proxy_of_this_machine_alone_is_recognised(value: str, found: str | None) -> None:
    assert loopback_proxy({"HTTP_PROXY": value}) == found
