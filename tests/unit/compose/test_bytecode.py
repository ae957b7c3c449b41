"""Byte code: the bytes are a function of source, path and interpreter; a sick worker is told apart."""

from __future__ import annotations

import marshal
import os
import platform
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from envbuild.compose.bytecode import RootfsCompiler, RootfsCompilers
from envbuild.errors import BuildError
from envbuild.lock.model import PythonPin
from tests.fakes.compiler import HostCompiler

VERSION = platform.python_version()
TAG = sys.implementation.cache_tag
EXECUTABLE = os.path.realpath(sys.executable)
SOURCES = [
    ("/opt/env/a.py", b"x = {'b', 'a'}\ndef f(y): return y in {'q', 'r', 's'}\n"),
    ("/opt/env/b.py", b"this is no python\n"),
    ("/opt/env/c.py", b"# -*- coding: nonsense -*-\n"),
    ("/opt/env/d.py", b"x = '\\d'\nassert (1, 'warned about')\n"),
    ("/opt/env/e.py", b"x = 1\0\n"),
]


def library(count: int) -> list[tuple[str, bytes]]:
    """Real sources: the first modules of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted([*root.glob("*.py"), *root.glob("email/*.py")])[:count]
    return [(f"/opt/env/lib/{path.relative_to(root)}", path.read_bytes()) for path in sorted(paths)]


@pytest.mark.parametrize(("checked", "flags"), [(True, b"\3\0\0\0"), (False, b"\1\0\0\0")])
def test_a_pyc_has_its_sources_hash_and_knows_only_its_path_in_the_image(checked: bool, flags: bytes) -> None:
    found = dict(HostCompiler(EXECUTABLE, VERSION, checked=checked).compile(SOURCES))
    assert sorted(found) == [f"/opt/env/__pycache__/{name}.{TAG}.pyc" for name in "ad"]
    data = found[f"/opt/env/__pycache__/a.{TAG}.pyc"]
    import importlib.util

    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == flags
    assert data[8:16] == importlib.util.source_hash(SOURCES[0][1])
    code = marshal.loads(data[16:])
    assert isinstance(code, types.CodeType)
    assert code.co_filename == "/opt/env/a.py"


def test_bytes_do_not_depend_on_the_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = library(60)
    first = list(HostCompiler(EXECUTABLE, VERSION).compile(files))
    assert len(first) > 50
    for key, value in {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LANG": "C", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "struct.py").write_text("raise SystemExit('taken from outside')")
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    try:
        assert list(HostCompiler(EXECUTABLE, VERSION).compile(iter(files))) == first
    finally:
        os.umask(before)


def test_an_interpreter_of_another_version_is_refused() -> None:
    with pytest.raises(BuildError, match=r"the lock says cpython 3\.99\.1"):
        list(HostCompiler(EXECUTABLE, "3.99.1").compile(SOURCES))


def test_unsorted_sources_are_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="sorted"):
        list(HostCompiler(EXECUTABLE, VERSION).compile(reversed(SOURCES[:1] + SOURCES[3:4])))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "ended with status 3 at its start"),
        ("kill -9 $$", "was ended by signal 9 at its start"),
        ("echo oops >&2; exit 1", "ended with status 1 at its start: oops"),
        ("echo Segmentation; sleep 60", "isn't byte code for its start"),
        ("exec sleep 60", "did not answer in time for its start"),
    ],
)
def test_a_sick_interpreter_is_an_error_with_a_remedy(tmp_path: Path, script: str, message: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    with pytest.raises(BuildError, match=message) as caught:
        list(HostCompiler(str(fake), VERSION, patience=0.5).compile(SOURCES))
    assert caught.value.hint is not None
    assert "--no-bytecode" in caught.value.hint


def test_a_crash_halfway_names_the_file(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    # Greets, then ends at the first source.
    hello = f"cpython {VERSION} {TAG}"
    fake.write_text(
        f"#!/bin/sh\nprintf '\\000\\000\\000\\{len(hello):03o}{hello}'\nhead -c 8 >/dev/null\nexit 9\n"
    )
    fake.chmod(0o755)
    with pytest.raises(BuildError, match=r"ended with status 9 at /opt/env/a\.py"):
        list(HostCompiler(str(fake), VERSION).compile(SOURCES))


def test_a_caller_that_stops_leaves_no_process(tmp_path: Path) -> None:
    found = HostCompiler(EXECUTABLE, VERSION).compile(library(5))
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert list(found) == []


def test_no_unshare_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    compiler = RootfsCompiler(tmp_path, "/bin/python", VERSION, unshare="/nonexistent/unshare")
    with pytest.raises(BuildError, match="can't start /nonexistent/unshare") as caught:
        list(compiler.compile(SOURCES))
    assert caught.value.hint == "install util-linux, or lock with --no-bytecode"


def test_identity_is_known_without_an_interpreter(tmp_path: Path) -> None:
    python = PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13")
    factory = RootfsCompilers()
    identities = [factory.identity(python, checked=checked) for checked in (True, False)]
    assert identities == ["cpython-3.13.5/checked-hash-2", "cpython-3.13.5/unchecked-hash-2"]
    assert [factory(python, tmp_path, checked=checked).identity for checked in (True, False)] == identities


def _namespaces() -> bool:
    argv = ["unshare", "--map-root-user", "--root=/", "/bin/true"]
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not _namespaces(), reason="user namespaces are forbidden on this machine")
def test_the_interpreter_of_a_root_file_system_gives_the_same_bytes() -> None:
    """The machine's own tree stands in for an image's: the same worker, entered the same way."""
    inside = RootfsCompiler(Path("/"), EXECUTABLE, VERSION).compile(SOURCES)
    assert list(inside) == list(HostCompiler(EXECUTABLE, VERSION).compile(SOURCES))
