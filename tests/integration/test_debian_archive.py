"""The real archive: what it resolves to, unpacks and runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from envbuild.compose.artifacts.deb.source import DebianSource
from envbuild.compose.base import Entry, EntryKind
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import BaseRequest, ResolvedBase
from envbuild.lock.debian.mirror import known_mirror
from envbuild.lock.debian.resolver import DebianResolver
from envbuild.lock.debian.selection import python_closure
from envbuild.lock.model import DebianBase, DebianPin
from envbuild.plan.model import Artifact
from envbuild.plan.system import system_files
from envbuild.platforms import PLATFORMS, Platform
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import DebianBaseSpec
from envbuild.store.content import Store

pytestmark = [pytest.mark.slow, pytest.mark.network]


class Machine:
    """A store that the tests of this module share."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.settings = Settings(cache_dir=root)
        self.fetcher = HttpFetcher(self.store, offline=False, settings=self.settings, progress=Silent())

    def resolve(self, suite: str, platform: Platform) -> ResolvedBase:
        resolver = DebianResolver(
            self.fetcher, self.store, self.settings, clock=lambda: datetime.now(timezone.utc)
        )
        return resolver.resolve(
            BaseRequest(spec=DebianBaseSpec(suite=suite), platform=platform, with_python=True)
        )

    def unpack(self, pins: tuple[DebianPin, ...], base: DebianBase, root: Path) -> dict[str, Entry]:
        """All entries, written below ``root`` with the files that no package has."""
        artifacts = [Artifact.of(pin) for pin in pins]
        files = [
            Entry(path=file.path, kind=EntryKind.SYMLINK, target=file.target)
            if file.target
            else Entry(
                path=file.path,
                kind=EntryKind.DIRECTORY if file.directory else EntryKind.FILE,
                mode=file.mode,
                content=file.content,
            )
            for file in system_files(base, "1000:1000")
        ]
        entries: dict[str, Entry] = {}
        with self.store.scratch() as scratch:
            source = DebianSource(self.fetcher, self.store, self.settings, scratch=scratch)
            source.fetch(artifacts)
            for entry in [*files, *(entry for artifact in artifacts for entry in source.entries(artifact))]:
                there = entries.get(entry.path)
                assert there is None or there.kind is entry.kind is EntryKind.DIRECTORY, entry.path
                entries[entry.path] = entry
                _write(root / entry.path, entry)
        return entries


def _write(path: Path, entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.kind is EntryKind.SYMLINK:
        path.symlink_to(entry.target)
        return
    if entry.kind is EntryKind.DIRECTORY:
        path.mkdir(exist_ok=True)
    elif isinstance(entry.content, Path):
        shutil.copyfile(entry.content, path)
    else:
        path.write_bytes(entry.content)
    path.chmod(entry.mode)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    settings = Settings(cache_dir=tmp_path_factory.mktemp("store"))
    if known_mirror(settings) is None:
        pytest.skip("this machine knows no Debian archive")
    made = Machine(settings.cache_dir)
    with made.fetcher:
        yield made


def _run(root: Path, *command: str) -> str:
    done = subprocess.run(
        ["unshare", "--map-root-user", f"--root={root}", *command],
        capture_output=True,
        text=True,
        check=False,
        env={},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
@pytest.mark.parametrize(
    ("suite", "release", "glibc"), [("trixie", "3.13", "2.41"), ("bookworm", "3.11", "2.36")]
)
def test_a_real_suite_unpacks_and_its_python_runs(
    machine: Machine, tmp_path: Path, platform: Platform, suite: str, release: str, glibc: str
) -> None:
    resolved = machine.resolve(suite, platform)
    base, python = resolved.base, resolved.python
    assert isinstance(base, DebianBase)
    assert python is not None
    assert (python.short, base.glibc) == (release, glibc)
    # The size of a base is a promise too; a new dependency of Debian's shows here.
    assert len(base.packages) < 75
    assert sum(pin.size for pin in base.packages) < 35_000_000
    root = tmp_path / "root"
    entries = machine.unpack(base.packages, base, root)
    assert entries["usr/bin/python3"].target == f"python{release}"
    assert entries["usr/bin/sh"].target == "dash"
    bundle = entries["etc/ssl/certs/ca-certificates.crt"].content
    content = (
        bundle if isinstance(bundle, bytes) else (root / "etc/ssl/certs/ca-certificates.crt").read_bytes()
    )
    assert content.count(b"BEGIN CERTIFICATE") > 100
    for master in ("passwd", "group"):
        ours = (root / "etc" / master).read_text().splitlines()
        debians = (root / "usr/share/base-passwd" / f"{master}.master").read_text().splitlines()
        assert [line for line in ours if not line.startswith("env:")] == debians
    if platform != Platform.host():
        return
    modules = "ssl, sqlite3, ctypes, lzma, bz2, zlib, readline, curses, hashlib, venv, uuid, zoneinfo"
    code = f"import {modules}; import platform; print(platform.python_version())"
    assert _run(root, python.executable, "-c", code) == f"{python.version}\n"
    assert _run(root, "/bin/sh", "-c", "echo 1 | awk '{print $1 + 1}'; which sed; id -un") == (
        "2\n/usr/bin/sed\nroot\n"
    )


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_the_closure_of_the_interpreter_compiles_byte_code(
    machine: Machine, tmp_path: Path, suite: str
) -> None:
    resolved = machine.resolve(suite, Platform.host())
    base, python = resolved.base, resolved.python
    assert isinstance(base, DebianBase)
    assert python is not None
    root = tmp_path / "root"
    machine.unpack(python_closure(base, python), base, root)
    code = "import marshal, py_compile; print(len(marshal.dumps(compile('1', 'a', 'exec'))) > 9)"
    assert _run(root, python.executable, "-I", "-S", "-c", code) == "True\n"
