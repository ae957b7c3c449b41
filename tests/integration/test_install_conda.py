"""The program of a Dockerfile's installing stage: what the composer links, linked by py-rattler."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import trustme

from envbuild.compose.artifacts.conda.source import CondaFiles, CondaSource
from envbuild.compose.base import EntryKind
from envbuild.compose.clashes import install_order
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.model import CondaPin, PythonPin
from envbuild.plan.model import Artifact
from envbuild.progress import Silent
from envbuild.render.installer import conda_records, install_script
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.channel import File, Package, python_package, python_version, serve, small_packages
from tests.unit.compose.test_artifacts_conda_source import artifact_of

pytestmark = pytest.mark.slow

LEFT_OUT = ("scripted", "tool-twin")
PYTHON = PythonPin(version=python_version(), provider="conda", executable="/opt/env/bin/python")


@dataclass(frozen=True)
class Tree:
    """A path's kind, its mode where it has one of its own, its content or target."""

    kind: EntryKind
    mode: int
    content: bytes | str


@dataclass(frozen=True)
class Site:
    root: Path
    directory: Path
    """Of the channel."""
    url: str
    requests: list[str]
    artifacts: tuple[Artifact, ...]

    @property
    def prefix(self) -> Path:
        return self.root / "env"

    @property
    def pins(self) -> tuple[CondaPin, ...]:
        return tuple(artifact.pin for artifact in self.artifacts if isinstance(artifact.pin, CondaPin))

    def install(
        self, pins: Sequence[CondaPin], *options: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.prefix, ignore_errors=True)
        listed = self.root / "conda.json"
        listed.write_bytes(conda_records(pins, [self.url]))
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, str(install_script()), str(listed), self.prefix.name, *options],
            cwd=self.root,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def composed(self) -> dict[str, Tree]:
        """What the composer puts below the prefix."""
        store = Store(self.root / "store")
        settings = Settings(cache_dir=store.root)
        found = {}
        with HttpFetcher(store, offline=False, settings=settings, progress=Silent(), environ={}) as fetcher:
            source = CondaSource(
                store, fetcher, python=PYTHON, prefix=PurePosixPath(self.prefix), drop_bytecode=False
            )
            source.fetch(self.artifacts)
            for artifact in self.artifacts:
                for entry in source.entries(artifact):
                    content = entry.target or entry.content
                    data = content.read_bytes() if isinstance(content, Path) else content
                    found[str(Path("/", entry.path).relative_to(self.prefix))] = Tree(
                        entry.kind, entry.mode, data
                    )
        return found

    def installed(self) -> dict[str, Tree]:
        found = {}
        for path in self.prefix.rglob("*"):
            name, mode = str(path.relative_to(self.prefix)), stat.S_IMODE(path.lstat().st_mode)
            if path.is_symlink():
                found[name] = Tree(EntryKind.SYMLINK, 0o777, str(path.readlink()))
            elif path.is_file():
                found[name] = Tree(EntryKind.FILE, mode, path.read_bytes())
            else:
                assert mode == 0o755, path
        return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Package, Artifact]]]:
    directory = tmp_path_factory.mktemp("channel")
    chosen = [
        package
        for package in small_packages()
        if package.place in ("noarch", "linux-64")
        and package.name not in LEFT_OUT
        and package.version != "1.0"
    ]
    return directory, [(each, artifact_of(each, directory)) for each in [*chosen, python_package()]]


@pytest.fixture
def site(tmp_path: Path, packages: tuple[Path, list[tuple[Package, Artifact]]]) -> Iterator[Site]:
    directory, made = packages
    with serve(directory) as (url, requests):
        artifacts = []
        for _, artifact in made:
            assert isinstance(artifact.pin, CondaPin)
            address = artifact.pin.url.replace(directory.as_uri(), url)
            artifacts.append(replace(artifact, pin=replace(artifact.pin, url=address, channel=url)))
        yield Site(tmp_path, directory, url, requests, tuple(artifacts))


def without_paths(record: bytes | str) -> dict[str, Any]:
    """A record of ``conda-meta`` with nothing of its paths but their names and types."""
    document: dict[str, Any] = json.loads(record)
    document["paths_data"] = [(each["_path"], each["path_type"]) for each in document["paths_data"]["paths"]]
    return document


def test_the_prefix_is_the_one_that_the_composer_makes(site: Site) -> None:
    done = site.install(site.pins)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    installed, composed = site.installed(), site.composed()
    # The composer's own history is a generated file, which a Dockerfile copies over this one.
    assert installed.pop("conda-meta/history").content == b""
    assert sorted(installed) == sorted(composed)
    different = {name for name in composed if installed[name] != composed[name]}
    records = {name for name in composed if name.startswith("conda-meta/")}
    assert different == {"bin/greet", *records} - {"conda-meta/undated-1.0-0.json"}
    # rattler writes a tab where conda and the composer write four blanks.
    greet = installed["bin/greet"]
    assert isinstance(greet.content, bytes)
    assert replace(greet, content=greet.content.replace(b"\t", b"    ")) == composed["bin/greet"]
    for name in records:
        assert installed[name].mode == 0o644
        assert without_paths(installed[name].content) == without_paths(composed[name].content)
    ran = subprocess.run([site.prefix / "bin" / "greet"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"hello from {site.prefix}\n"


SHARED = {
    # What rattler itself would leave there: of libblas, lapack, intel-openmp.
    "libopenblas": ((), ("lib/libblas.so", "lib/own.so")),
    "openblas": ((), ("lib/libblas.so",)),
    "libblas": (("libopenblas",), ("lib/libblas.so",)),
    "lapack": ((), ("include/cblas.h",)),
    "openblas-devel": (("libopenblas",), ("include/cblas.h",)),
    "intel-openmp": ((), ("lib/libiomp5.so",)),
    "llvm-openmp": ((), ("lib/libiomp5.so",)),
}


def test_of_files_under_one_path_that_of_the_package_linked_last_stays(tmp_path: Path) -> None:
    artifacts = []
    for name, (depends, paths) in SHARED.items():
        files = tuple(File(path=path, content=name.encode()) for path in paths)
        artifacts.append(artifact_of(Package(name=name, depends=depends, files=files), tmp_path / "channel"))
    site = Site(tmp_path, tmp_path / "channel", "", [], tuple(artifacts))
    done = site.install(site.pins)
    assert (done.returncode, done.stderr) == (0, "")
    kept = {path: (site.prefix / path).read_text() for _, paths in SHARED.values() for path in paths}
    assert kept == {
        "include/cblas.h": "openblas-devel",
        "lib/libblas.so": "libblas",
        "lib/libiomp5.so": "llvm-openmp",
        "lib/own.so": "libopenblas",
    }
    order = install_order(site.artifacts)
    for path, winner in kept.items():
        owners = [artifact for artifact in artifacts if path in SHARED[artifact.name][1]]
        assert max(owners, key=lambda artifact: order[artifact.sha256]).name == winner
    assert not (site.prefix / "__clobbers__").exists()
    # The losers' records stay, and name the path that they brought.
    record = json.loads((site.prefix / "conda-meta" / "openblas-1.0-0.json").read_text())
    assert record["files"] == ["lib/libblas.so"]
    assert [entry["_path"] for entry in record["paths_data"]["paths"]] == ["lib/libblas.so"]
    assert "original_path" not in json.dumps(record)


def test_nothing_stays_but_the_prefix(site: Site) -> None:
    site.install(site.pins)
    assert sorted(path.name for path in site.root.iterdir()) == ["conda.json", "env", "home"]
    assert [path for path in (site.root / "home").rglob("*") if path.is_file()] == []
    shared = [path for path in site.prefix.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert shared == []


def test_offline_the_archives_of_a_directory_give_the_same_bytes(site: Site) -> None:
    site.install(site.pins)
    online = site.installed()
    settings = Settings(cache_dir=site.root / "store")
    store = Store(settings.cache_dir)
    with HttpFetcher(store, offline=False, settings=settings, progress=Silent(), environ={}) as fetcher:
        archives = CondaFiles(fetcher).fetch_files(site.artifacts)
    for pin in site.pins:
        place = site.root / "packages" / pin.subdir / pin.file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archives[pin.sha256], place)
    site.requests.clear()
    done = site.install(site.pins, "--offline", "packages")
    assert (done.returncode, done.stderr) == (0, "")
    assert site.requests == []
    assert site.installed() == online


def test_an_archive_with_another_hash_is_refused(site: Site) -> None:
    wrong = [replace(pin, sha256="0" * 64) if pin.name == "tool" else pin for pin in site.pins]
    done = site.install(wrong)
    assert done.returncode == 1
    assert "hash mismatch" in done.stderr
    assert "tool-2.0-0.conda" in done.stderr
    assert "Traceback" not in done.stderr

    done = site.install(wrong, "--offline", str(site.directory))
    assert done.returncode == 1
    (tool,) = (pin for pin in site.pins if pin.name == "tool")
    path = site.directory / "linux-64" / "tool-2.0-0.conda"
    assert done.stderr == f"{path}: its SHA-256 is {tool.sha256}, but {'0' * 64} is locked\n"
    assert not site.prefix.exists()


def test_an_archive_that_is_not_there_is_named(site: Site) -> None:
    gone = [
        replace(pin, url=f"{site.url}/linux-64/gone-2.0-0.conda") for pin in site.pins if pin.name == "tool"
    ]
    done = site.install(gone)
    assert done.returncode == 1
    assert "gone-2.0-0.conda" in done.stderr
    assert "404" in done.stderr
    done = site.install(gone, "--offline", str(site.directory))
    assert done.returncode == 1
    assert done.stderr == f"{site.directory}/linux-64/gone-2.0-0.conda: No such file or directory\n"


def scripted(site: Site, content: bytes, path: str = "bin/.scripted-post-link.sh") -> CondaPin:
    (package,) = (small_package for small_package in small_packages() if small_package.name == "scripted")
    script = replace(package.files[0], path=path, content=content)
    pin = artifact_of(replace(package, files=(script,)), site.root / "scripts").pin
    assert isinstance(pin, CondaPin)
    return pin


def test_a_script_runs_once_the_package_is_there(site: Site) -> None:
    done = site.install([scripted(site, b'echo "$PKG_NAME $PKG_VERSION $PKG_BUILDNUM" >$PREFIX/ran\n')])
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(site.installed()) == [
        "bin/.scripted-post-link.sh",
        "conda-meta/history",
        "conda-meta/scripted-1.0-0.json",
        "ran",
    ]
    assert (site.prefix / "ran").read_text() == "scripted 1.0 0\n"


def test_a_script_that_fails_ends_the_build(site: Site) -> None:
    done = site.install([scripted(site, b"echo no >&2; exit 3\n")])
    assert done.returncode == 1
    assert done.stderr == "no\nscripted: its post-link script ended with status 3\n"


def test_a_script_of_the_old_kind_is_refused(site: Site) -> None:
    done = site.install([scripted(site, b"true\n", "bin/.scripted-pre-link.sh")])
    assert done.returncode == 1
    assert "runs before it is there" in done.stderr


def test_credentials_of_rattlers_file_open_a_channel(site: Site) -> None:
    (pin,) = (pin for pin in site.pins if pin.name == "tool")

    def allow(path: str, headers: Mapping[str, str]) -> str | None:
        return path if headers.get("Authorization") == "Bearer s3cret" else None

    with serve(site.directory, allow) as (url, _):
        guarded = [replace(pin, url=pin.url.replace(site.url, url))]
        refused = site.install(guarded)
        assert refused.returncode == 1
        assert "401" in refused.stderr
        auth = site.root / "auth.json"
        auth.write_text(json.dumps({"127.0.0.1": {"BearerToken": "s3cret"}}))
        done = site.install(guarded, env={"RATTLER_AUTH_FILE": str(auth)})
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(b"s3cret" in path.read_bytes() for path in site.prefix.rglob("*") if path.is_file())


def test_a_channel_is_trusted_by_the_certificates_that_are_given(site: Site) -> None:
    (pin,) = (pin for pin in site.pins if pin.name == "tool")
    authority = trustme.CA()
    trusted = site.root / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    with serve_tls(site.directory, authority) as url:
        secure = [replace(pin, url=pin.url.replace(site.url, url))]
        assert "UnknownIssuer" in site.install(secure, "--certificates", "absent.pem").stderr
        done = site.install(secure, "--certificates", str(trusted))
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def serve_tls(directory: Path, authority: trustme.CA) -> Iterator[str]:
    """Serves ``directory`` over TLS on loopback, with a certificate of ``authority``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def handle(self) -> None:
        # Whoever doesn't trust the certificate hangs up.
        with suppress(OSError):
            super().handle()
