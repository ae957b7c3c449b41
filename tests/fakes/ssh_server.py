"""A real OpenSSH server on a free port of loopback, with keys and a configuration of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 20
_SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def absent() -> str | None:
    """Why there can be no server here; None where there can."""
    if _SERVER is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "OpenSSH isn't installed"
    return None if os.geteuid() == 0 else "only root can start a server that root logs in to"


@dataclass(kw_only=True)
class SshServer:
    """``bin`` is a directory with an ``ssh`` that knows this server and has a key for it."""

    port: int
    root: Path

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {**environ, "PATH": f"{self.bin}:{environ['PATH']}"}

    def forget_the_host(self) -> None:
        """As if another machine had taken its place: the host key that is known isn't the server's."""
        other = self.root / "other"
        if not other.exists():
            _key(other)
        self._know(other)

    def know_the_host(self) -> None:
        self._know(self.root / "host")

    def use_key(self, name: str) -> None:
        """``mine`` or ``stranger``."""
        options = {
            "IdentityFile": self.root / name,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": self.root / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "ControlMaster": "no",
        }
        text = "".join(f"{option} {value}\n" for option, value in options.items())
        (self.root / "ssh_config").write_text(text)

    def _know(self, key: Path) -> None:
        public = key.with_suffix(".pub").read_text().split()
        (self.root / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n")


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@contextmanager
def serve(root: Path, variables: Mapping[str, str]) -> Iterator[SshServer]:
    """Runs it until the end of the context; sessions get ``variables``."""
    assert _SERVER is not None
    root.mkdir(parents=True)
    for name in ("host", "mine", "stranger"):
        _key(root / name)
    (root / "authorized_keys").write_text((root / "mine.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {root / 'host'}",
        f"AuthorizedKeysFile {root / 'authorized_keys'}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxStartups 100",
        "SetEnv " + " ".join(f"{name}={value}" for name, value in variables.items()),
    ]
    (root / "sshd_config").write_text("\n".join(settings) + "\n")
    server = SshServer(port=port, root=root)
    server.use_key("mine")
    server.know_the_host()
    server.bin.mkdir()
    client = server.bin / "ssh"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {root / "ssh_config"} "$@"\n')
    client.chmod(0o755)
    # Where the server gives its privileges up; the distribution's service makes it.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [_SERVER, "-D", "-e", "-f", str(root / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(process, port, root / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server doesn't start: {log.read_text()}") from None
            time.sleep(0.05)
