"""Credentials that were planted appear in nothing that envbuild writes or says."""

from __future__ import annotations

import base64
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.archive import Deb
from tests.fakes.channel import Package, make_channel
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Ended, Machine, a_world, conda, demo

SECRETS = ("pw-of-index-1f", "pw-of-netrc-2e", "pw-of-mirror-3d")


class _Guarded(SimpleHTTPRequestHandler):
    """Serves files to those who know the password of the first part of the path."""

    passwords: dict[str, str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.passwords.get(self.path.split("/")[1])
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        if wanted and base64.b64decode(given) != f"user:{wanted}".encode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()


@contextmanager
def guarded(directory: Path, passwords: dict[str, str]) -> Iterator[str]:
    handler: Any = type("Handler", (_Guarded,), {"passwords": passwords})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check(done: Ended, *directories: Path) -> None:
    """Asserts that no secret is in what was said, nor in any file below ``directories``, unpacked as well."""
    said = done.stdout + done.stderr
    assert [secret for secret in SECRETS if secret in said] == []
    forms = [
        form for secret in SECRETS for form in (secret.encode(), base64.b64encode(f"user:{secret}".encode()))
    ]
    for path in (path for directory in directories for path in directory.rglob("*")):
        assert not any(form.decode() in str(path) for form in forms), path
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            assert [form for form in forms if form in data] == [], path


@pytest.mark.parametrize("fails", [False, True])
def test_planted_credentials_appear_nowhere(tmp_path: Path, fails: bool) -> None:
    wheels = [Wheel(name="alpha", requires=["beta"]), Wheel(name="beta"), Wheel(name="direct")]
    world = a_world(tmp_path, wheels, [Deb(name="tool", files=[("./usr/share/tool", b"1")])])
    make_channel(tmp_path / "channel", python=False, packages=[Package(name="python", version="3.13.5")])
    machine: Machine = world.machine
    index, netrc, mirror = SECRETS
    passwords = {"index": index, "channel": netrc, "mirror": mirror}
    with guarded(tmp_path, passwords) as host:
        machine.env["ENVBUILD_DEBIAN_MIRROR"] = f"http://user:{mirror}@{host}/mirror/debian"
        machine.env["INDEX_PASSWORD"] = index
        machine.env["UV_DEFAULT_INDEX"] = f"http://user:{index}@{host}/index/simple"
        (machine.home / ".netrc").write_text(f"machine 127.0.0.1 login user password {netrc}\n")
        (machine.home / ".netrc").chmod(0o600)
        direct = f"http://user:${{INDEX_PASSWORD}}@{host}/index/simple/direct/direct-1.0-py3-none-any.whl"
        machine.write(
            "requirements.in",
            f"--extra-index-url http://user:${{INDEX_PASSWORD}}@{host}/index/simple\n"
            f"alpha\ndirect @ {direct}\n" + ("nothere\n" if fails else ""),
        )
        spec = demo(packages=["tool"], more=conda(f"http://{host}/channel", "python"))
        machine.write("envbuild.yaml", spec + "requirements: requirements.in\n")
        done = machine.run("lock", "--no-bytecode", "-vv")
        check(done, machine.project, machine.cache)
        assert done.status == (4 if fails else 0), done.stderr
        if fails:
            return
        assert "direct" in (machine.lock / "requirements.linux-64.txt").read_text()
        done = machine.run("build", "-vv", "-o", "oci:image", "-o", "docker-archive:image.tar")
        check(done, machine.project, machine.cache)
        assert done.status == 0, done.stderr
        # And where the sources stop to answer.
        passwords.update(index="changed", channel="changed", mirror="changed")
        (machine.cache / "images").rename(machine.root / "images")
        done = machine.run("lock", "--upgrade", "-vv", "--debug")
        check(done, machine.project, machine.cache)
        assert done.status == 4
        fresh = {"ENVBUILD_CACHE_DIR": str(machine.root / "new"), "UV_CACHE_DIR": str(machine.root / "newuv")}
        done = machine.run("build", "-vv", "--debug", env=fresh)
        check(done, machine.project, machine.root / "new")
        assert done.status == 6
