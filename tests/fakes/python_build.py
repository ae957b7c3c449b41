"""Standalone builds of python in the layout of python-build-standalone, made of interpreters of this machine,
cut small, and lists of them in the format of uv's ``download-metadata.json``."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RELEASE = "20260101"
_LEFT_OUT = re.compile(
    r"/(?:site-packages|dist-packages|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data"
    r"|__pycache__|config-[^/]*)(?:/|$)"
)
_STARTED_WITH = re.compile(
    r"/(?:[_a-z]{2,12}|encodings/(?:__init__|aliases|utf_8|ascii|latin_1)|(?:collections|importlib|json|re)/\w+)\.py"
)
_C_LIBRARY = re.compile(r"linux-vdso|ld-linux|lib(?:c|m|dl|pthread|util|rt|z)\.so")


def installed_pythons() -> dict[str, Path]:
    """The interpreters in directories of their own here, by full version: this one, and pyenv's."""
    there = {".".join(map(str, sys.version_info[:3])): Path(sys.base_prefix)}
    for prefix in sorted(Path.home().glob(".pyenv/versions/3.*")):
        there.setdefault(prefix.name, prefix)
    return there


@functools.cache
def python_archive(prefix: Path, series: str, *, small: bool = False) -> bytes:
    """The ``install_only`` archive of the interpreter below ``prefix``: the program, and of its library what
    needs the C library and zlib alone. ``small``: what it starts with, and little more."""
    executable = prefix / "bin" / f"python{series}"
    library = prefix / "lib" / f"python{series}"
    shared = sorted(prefix.glob(f"lib/libpython{series}*.so*"))
    extensions = sorted(library.glob("lib-dynload/*.so"))
    plain = {path for path, needs in _needed([*extensions, executable]).items() if not needs}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        # It looks for a shared library of its own where it was installed.
        here = f"{prefix}/lib".encode()
        program = _stripped(executable).replace(
            b"\0%s\0" % here, b"\0%s\0" % b"$ORIGIN/../lib".ljust(len(here), b"\0")
        )
        _add(archive, f"python/bin/python{series}", program, 0o755)
        for name in ("python", "python3"):
            link = tarfile.TarInfo(f"python/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"python{series}"
            archive.addfile(link)
        for path in shared if executable not in plain else ():
            _add(archive, f"python/lib/{path.name}", _stripped(path), 0o755)
        for path in sorted(library.rglob("*.py")):
            name = f"/{path.relative_to(library)}"
            if not _LEFT_OUT.search(name) and (not small or _STARTED_WITH.match(name)):
                _add(archive, f"python/lib/python{series}{name}", path.read_bytes(), 0o644)
        for path in sorted(plain & set(extensions)):
            _add(archive, f"python/lib/python{series}/lib-dynload/{path.name}", _stripped(path), 0o755)
    return buffer.getvalue()


def _needed(programs: list[Path]) -> dict[Path, set[str]]:
    """The libraries that each of ``programs`` loads besides these."""
    argv = ["ldd", *map(str, programs)]
    found = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    needed: dict[Path, set[str]] = {}
    for line in found.splitlines():
        if not line.startswith("\t"):
            needed[Path(line.removesuffix(":"))] = libraries = set()
        elif (name := line.split()[0].rpartition("/")[2]) != "statically" and not _C_LIBRARY.match(name):
            libraries.add(name)
    return needed


def _stripped(program: Path) -> bytes:
    """``program`` without symbols, where this machine can strip it."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "program"
        try:
            subprocess.run(["strip", "-o", str(result), str(program)], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return program.read_bytes()
        return result.read_bytes()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def list_entry(version: str, data: bytes, root: str, *, machine: str = "x86_64", **changes: Any) -> Any:
    """The entry of a build in uv's list; the address is below ``root``."""
    major, minor, patch = version.split(".")
    file = file_name(version, machine)
    return {
        "name": "cpython",
        "arch": {"family": machine, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": int(major),
        "minor": int(minor),
        "patch": int(patch),
        "prerelease": "",
        "url": f"{root}/{RELEASE}/{file.replace('+', '%2B')}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "variant": None,
        "build": RELEASE,
        **changes,
    }


def file_name(version: str, machine: str = "x86_64") -> str:
    return f"cpython-{version}+{RELEASE}-{machine}-unknown-linux-gnu-install_only_stripped.tar.gz"


class PythonIndex:
    """A directory of archives, a release's, and the list of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: dict[str, Any] = {}
        (root / RELEASE).mkdir(parents=True)

    def add(self, version: str, data: bytes, published: str, *, machine: str = "x86_64") -> None:
        """``published`` is the root of the addresses in the list."""
        (self.root / RELEASE / file_name(version, machine)).write_bytes(data)
        self.entries[f"cpython-{version}-linux-{machine}-gnu"] = list_entry(
            version, data, published, machine=machine
        )
        (self.root / "list.json").write_text(json.dumps(self.entries))


@contextmanager
def serve_directory(root: Path) -> Iterator[tuple[str, list[str]]]:
    """``root`` on loopback: its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sums(files: Mapping[str, bytes]) -> str:
    """A release's ``SHA256SUMS``."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
