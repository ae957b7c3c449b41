"""Debian's docker-registry as a process of its own, on a free port of loopback, storing in a directory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO

import pytest

from envbuild.oci.manifest import INDEXES, MANIFESTS
from tests.fakes.token_server import ISSUER, SERVICE, TokenServer

WRITER = ("writer", "pw-of-registry-7c")
READER = ("reader", "pw-of-reader-9d")
"""Whom a registry with ``htpasswd`` knows; it gives both the same rights."""

_HTPASSWD = (
    "writer:$2y$04$abcdefghijklmnopqrstuuV9V6HUlvQyFekTCXKzd2AjuULTQWDgm\n"
    "reader:$2y$04$abcdefghijklmnopqrstuuCOkxd3U2ETzjfUyPcCBJtZrZZhOWWYC\n"
)
"""bcrypt at its lowest cost."""

_START_SECONDS = 30
_STOP_SECONDS = 10


def needs_registry() -> pytest.MarkDecorator:
    """The mark of tests that run a registry. Where our own checks run, its absence is a failure."""
    absent = shutil.which("docker-registry") is None and not os.environ.get("CI")
    return pytest.mark.skipif(
        absent, reason="docker-registry is not installed (scripts/system.sh installs it)"
    )


@dataclass(kw_only=True)
class RegistryServer:
    """A registry that runs, unless it was killed. What is asked here is asked without credentials, so it
    answers only where the registry has none; ``storage`` is there for all."""

    root: Path
    tls: tuple[Path, Path] | None = None
    """Files of the certificate and its key; None: plain HTTP."""
    htpasswd: bool = False
    tokens: TokenServer | None = None
    port: int = 0
    """0 until the first start."""
    _process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = None
    log: list[str] = field(default_factory=list)
    """What it has said so far."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    def start(self) -> None:
        """Returns as soon as it listens; on the port that it had, if it ran before."""
        self.root.mkdir(parents=True, exist_ok=True)
        config = self.root / "config.json"
        config.write_text(json.dumps(self._configuration()))
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "OTEL_TRACES_EXPORTER": "none"},
        )
        assert process.stderr is not None
        said = threading.Event()
        listens: list[int] = []
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process.stderr, said, listens), daemon=True)
        self._reader.start()
        said.wait(_START_SECONDS)
        if not listens:
            self.kill()
            raise AssertionError("docker-registry does not start:\n" + "\n".join(self.log))
        (self.port,) = listens

    def kill(self) -> None:
        """Ends it at once, as a crash does; connections break."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(_STOP_SECONDS)
        if self._reader is not None:
            self._reader.join(_STOP_SECONDS)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None

    def get(self, path: str, method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers (lower-case) and body of an answer, asked past the client under test."""
        headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        request = urllib.request.Request(f"http://{self.host}{path}", headers=headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, _lower(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _lower(error.headers), error.read()

    def manifest(self, repository: str, target: str) -> bytes | None:
        """The bytes that ``target`` names, whose digest is as the registry says; None where it is nothing."""
        status, headers, content = self.get(f"/v2/{repository}/manifests/{target}")
        if status == 404:
            return None
        assert status == 200, content
        assert headers["docker-content-digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
        return content

    def complete(self, repository: str, target: str) -> bool:
        """Whether ``target`` names something; fails where it names what is not there as a whole."""
        content = self.manifest(repository, target)
        if content is None:
            return False
        document = json.loads(content)
        for each in document.get("manifests", []):
            assert self.complete(repository, each["digest"]), each
        for each in [document["config"], *document["layers"]] if "config" in document else []:
            status, headers, _ = self.get(f"/v2/{repository}/blobs/{each['digest']}", "HEAD")
            assert (status, int(headers["content-length"])) == (200, each["size"]), each
        return True

    def blobs(self) -> dict[str, Path]:
        """The files of all blobs and manifests that its storage holds, by digest."""
        found = self.storage.glob("docker/registry/v2/blobs/sha256/*/*/data")
        return {f"sha256:{path.parent.name}": path for path in found}

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": f"127.0.0.1:{self.port}", "secret": "of all starts"}
        if self.tls is not None:
            http["tls"] = {"certificate": str(self.tls[0]), "key": str(self.tls[1])}
        auth: dict[str, object] = {}
        if self.htpasswd:
            users = self.root / "htpasswd"
            users.write_text(_HTPASSWD)
            auth["htpasswd"] = {"realm": "registry", "path": str(users)}
        if self.tokens is not None:
            bundle = self.root / "tokens.pem"
            bundle.write_bytes(self.tokens.certificate)
            auth["token"] = {
                "realm": f"{self.tokens.url}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(bundle),
            }
        return {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
                # Else a first purge of old uploads would begin at a random moment.
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http,
            **({"auth": auth} if auth else {}),
        }

    def _read(self, stream: IO[str], said: threading.Event, listens: list[int]) -> None:
        """Keeps the log; ``said`` is set once it listens on the port in ``listens``, or has ended."""
        for line in stream:
            self.log.append(line.rstrip())
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                listens.append(int(found[1]))
                said.set()
        said.set()


@contextmanager
def serve(
    root: Path,
    *,
    tls: tuple[Path, Path] | None = None,
    htpasswd: bool = False,
    tokens: TokenServer | None = None,
) -> Iterator[RegistryServer]:
    """Runs a registry that keeps its files below ``root`` until the end of the context."""
    server = RegistryServer(root=root, tls=tls, htpasswd=htpasswd, tokens=tokens)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
