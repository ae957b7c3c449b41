"""The command line as people run it: a process of its own, an empty home, a bounded time.

Everything it talks to is made here: a signed Debian archive, a wheel index, a conda channel.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envbuild.store.content import Store
from tests.fakes.archive import Archive, Deb
from tests.fakes.image import program_items, put_image, put_layer, shell_image
from tests.fakes.registry import serve
from tests.fakes.wheelhouse import Wheel, Wheelhouse
from tests.integration.warm import WarmCommand, can_be_warm

LIMIT = 60.0
"""Seconds after which a command counts as hanging."""

PAST = "Sat, 01 Nov 2025 08:00:00 UTC"
"""The date of the archive's releases: a process has the real clock, which no release may be ahead of."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that has ended. ``status`` is negative where a signal ended it."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def reference(self) -> str:
        """The pinned reference that ``build`` printed; fails the test where it did not succeed."""
        assert self.status == 0, self.stderr
        (line,) = self.stdout.splitlines()
        return line

    @property
    def digest(self) -> str:
        return self.reference.partition("@")[2]

    def failed(self, status: int, *words: str) -> None:
        """Asserts the exit status, every one of ``words`` in what was said, and that people are told
        what is wrong in words and not in a traceback."""
        said = f"{self.stdout}{self.stderr}"
        assert self.status == status, said
        assert "Traceback" not in said, said
        assert "error: unexpected" not in said, said
        missing = [word for word in words if word not in self.stderr]
        assert not missing, f"not said: {missing}\n{self.stderr}"
        assert self.stdout == "", self.stdout


@dataclass(kw_only=True)
class Machine:
    """A user's machine below ``root``: home, cache, project, and the settings of the environment."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    """A command that starts the command, such as ``unshare -n``."""
    own_interpreters: bool = False
    """Starts an interpreter for each command, with hashes of its own, instead of a fork of one for all."""

    @property
    def home(self) -> Path:
        return self._made("home")

    @property
    def project(self) -> Path:
        return self._made("project")

    @property
    def cache(self) -> Path:
        return Path(self.env.get("ENVBUILD_CACHE_DIR") or self.root / "cache")

    @property
    def lock(self) -> Path:
        """The lock directory of the spec ``demo``."""
        return self.project / "lockfiles" / "demo"

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, text: str) -> Path:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        values: dict[str, str | None] = {
            **kept,
            "HOME": str(self.home),
            # Named too, for commands that are run without a HOME: records are never the user's own.
            "XDG_DATA_HOME": str(self.home / ".local" / "share"),
            "LANG": "C.UTF-8",
            "ENVBUILD_CACHE_DIR": str(self.cache),
            **self.env,
            **(changes or {}),
        }
        return {name: value for name, value in values.items() if value is not None}

    def start(
        self, *arguments: str, env: Mapping[str, str | None] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """The command under way, leader of a process group of its own."""
        environment = self.environment(env)
        warm = not self.own_interpreters and not self.prefix and can_be_warm(environment)
        start = WarmCommand if warm else subprocess.Popen
        return start(
            arguments if warm else [*self.prefix, sys.executable, "-m", "envbuild", *arguments],
            env=environment,
            cwd=cwd or self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def run(
        self, *arguments: str, env: Mapping[str, str | None] | None = None, cwd: Path | None = None
    ) -> Ended:
        started = time.monotonic()
        return ended(self.start(*arguments, env=env, cwd=cwd), started)

    def leftovers(self) -> list[str]:
        """What a command that has ended should not have left: temporary files of cache, project and /tmp."""
        found = [str(path) for path in (self.cache / "scratch").glob("*")]
        found += [str(path) for path in self.project.rglob("*") if ".part" in path.name]
        return found


def ended(process: subprocess.Popen[str], started: float | None = None) -> Ended:
    """Waits for ``process``; kills its whole group and fails where it takes longer than the limit."""
    began = time.monotonic() if started is None else started
    try:
        stdout, stderr = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        kill_group(process)
        stdout, stderr = process.communicate()
        raise AssertionError(f"hangs for {LIMIT} s:\n{stdout}{stderr}") from None
    return Ended(status=process.returncode, stdout=stdout, stderr=stderr, seconds=time.monotonic() - began)


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def group(pid: int) -> list[str]:
    """The command lines of the processes alive in the process group ``pid``. Linux only. One that has given
    its memory back has none any more: it is on its way out."""
    alive = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if int(number) == pid and state != "Z" and line:
                alive.append(line)
        except OSError:
            continue
    return alive


@dataclass(kw_only=True)
class World:
    """A machine, and the sources it knows."""

    machine: Machine
    archive: Archive
    index: Wheelhouse


def needs_user_namespaces() -> pytest.MarkDecorator:
    """The mark of tests that run programs of an image without a Docker engine."""
    try:
        done = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True)
        there = done.returncode == 0
    except FileNotFoundError:
        there = False
    return pytest.mark.skipif(
        not sys.platform.startswith("linux") or not there, reason="no user namespaces here"
    )


def a_world(
    root: Path,
    wheels: Sequence[Wheel] = (),
    debs: Sequence[Deb] = (),
    *,
    architectures: Sequence[str] = ("amd64",),
) -> World:
    """A machine below ``root`` that knows an archive with a base and ``debs``, and an index of ``wheels``."""
    archive = Archive(root / "mirror", architectures=architectures)
    archive.release = {"Date": PAST}
    archive.add_base()
    archive.add(*debs)
    archive.write()
    keyring = root / "mirror" / "keys.pgp"
    keyring.write_bytes(archive.keyring.data)
    index = Wheelhouse(root / "index")
    index.simple.mkdir(parents=True)
    index.add(*wheels)
    machine = Machine(
        root=root,
        env={
            "ENVBUILD_DEBIAN_MIRROR": archive.root_url("debian"),
            "ENVBUILD_DEBIAN_KEYRING": str(keyring),
            "UV_DEFAULT_INDEX": index.url,
        },
    )
    return World(machine=machine, archive=archive, index=index)


@contextmanager
def shell_machine(root: Path, *programs: str) -> Iterator[Machine]:
    """A machine below ``root`` with the spec of a user-managed image, a shell, a few programs and
    ``programs``, which a registry has: the variable ``REGISTRY`` says where that is. There is no Docker
    engine."""
    source = Store(root / "source")
    layers = [*shell_image(source).layers]
    if programs:
        layers.append(put_layer(source, program_items(*programs)))
    image = put_image(source, layers, {"Env": ["PATH=/usr/bin"], "User": "1000:1000"})
    with serve() as registry:
        for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
            registry.put_blob(source.blob(digest).read_bytes())
        registry.put_manifest("shell", "1", image.media_type, source.blob(image.digest).read_bytes())
        machine = Machine(root=root, env={"DOCKER_HOST": f"unix://{root}/none", "REGISTRY": registry.host})
        machine.write(
            "envbuild.yaml", f"name: demo\nplatforms: [linux/amd64]\nimage: {registry.host}/shell:1\n"
        )
        yield machine


def demo(*requirements: str, packages: Sequence[str] = (), more: str = "") -> str:
    """The text of a spec named demo."""
    lines = ["name: demo", "platforms: [linux/amd64]"]
    base = f"base: {{debian: trixie, packages: {json.dumps(list(packages))}}}"
    lines += [base, *(["requirements:"] if requirements else [])]
    lines += [f"  - {json.dumps(requirement)}" for requirement in requirements]
    return "\n".join(lines) + f"\n{more}"


def entries(layout: Path) -> dict[str, tarfile.TarInfo]:
    """The entries of all layers in an OCI layout, by path; the bytes of each blob are checked on the way.
    Files with a dot are what a killed command was about to write."""
    found: dict[str, tarfile.TarInfo] = {}
    for blob in sorted((layout / "blobs" / "sha256").glob("[!.]*")):
        data = blob.read_bytes()
        assert hashlib.sha256(data).hexdigest() == blob.name
        if data[:2] == b"\x1f\x8b":
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as layer:
                found.update((member.name, member) for member in layer)
    return found


def conda(channel: str, *dependencies: str) -> str:
    """The lines of a spec that ask a channel for packages."""
    return f"conda_file: {json.dumps({'channels': [channel], 'dependencies': dependencies})}\n"


class StallingServer:
    """Serves a directory on loopback. A path that matches ``stall`` gets half of its body and then nothing,
    until :meth:`go_on`; ``reached`` is set as soon as one was asked for."""

    def __init__(self, directory: Path) -> None:
        self.stall: str | None = None
        self.reached = threading.Event()
        self._go_on = threading.Event()
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def copyfile(self, source: Any, outputfile: Any) -> None:
                data = source.read()
                half = len(data) // 2 if outer.stalls(self.path) else len(data)
                with suppress(OSError):
                    outputfile.write(data[:half])
                    outputfile.flush()
                    if half < len(data):
                        outer.reached.set()
                        outer._go_on.wait(LIMIT)
                        outputfile.write(data[half:])

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stalls(self, path: str) -> bool:
        return self.stall is not None and re.search(self.stall, path) is not None

    def go_on(self) -> None:
        self.stall = None
        self._go_on.set()

    def __enter__(self) -> StallingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """A small file system mounted at ``path``; needs root."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
