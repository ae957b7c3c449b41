"""A conda channel that wants a login: what rattler keeps opens it, for its metadata and for its packages."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.channel import make_channel, serve
from tests.integration.driver import Machine, a_world, conda, demo

SECRET = "s3cret-value"
METHODS: dict[str, Any] = {
    "bearer": {"BearerToken": SECRET},
    "basic": {"BasicHTTP": {"username": "who", "password": SECRET}},
    "token": {"CondaToken": SECRET},
}


def allow(path: str, headers: Mapping[str, str]) -> str | None:
    basic = base64.b64encode(f"who:{SECRET}".encode()).decode()
    if headers.get("Authorization") in (f"Bearer {SECRET}", f"Basic {basic}"):
        return path
    return path.removeprefix(f"/t/{SECRET}") if path.startswith(f"/t/{SECRET}/") else None


def said(machine: Machine) -> str:
    """All that the project and the metadata of the caches hold."""
    files = [*machine.project.rglob("*"), *(machine.cache / "images").rglob("*")]
    return "".join(file.read_text(errors="replace") for file in files if file.is_file())


@pytest.mark.parametrize("method", METHODS)
def test_a_channel_with_a_login_is_locked_and_built(tmp_path: Path, method: str) -> None:
    machine = a_world(tmp_path / "world").machine
    make_channel(tmp_path / "channel", python=False)
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"127.0.0.1": METHODS[method]}))
    with serve(tmp_path / "channel", allow) as (url, requests):
        machine.write("envbuild.yaml", demo(more=conda(url, "tool")))
        machine.run("lock", "--no-bytecode").failed(4, "refuses access", "RATTLER_AUTH_FILE")
        machine.env["RATTLER_AUTH_FILE"] = str(auth)
        locked = machine.run("lock", "--no-bytecode")
        assert locked.status == 0, locked.stderr
        built = machine.run("build", "--locked", "-vv")
        assert built.reference
        assert any(request.endswith("/linux-64/tool-2.0-0.conda") for request in requests)
        del machine.env["RATTLER_AUTH_FILE"]
        other = {"ENVBUILD_CACHE_DIR": str(tmp_path / "other")}
        machine.run("build", "--locked", env=other).failed(6, "HTTP 401", "rattler's auth file")
    assert SECRET not in locked.stderr + built.stderr + said(machine)
