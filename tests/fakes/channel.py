"""A real conda channel, made by the tests: packages of every shape, indexed, served by file or HTTP.

``python -m tests.fakes.channel DIR`` makes one to play with and prints its address.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
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
        info.append(File(path="info/files", content=_text(each.path for each in package.files)))
        prefixed = [
            f'"{each.placeholder}" {each.prefix} "{each.path}"' for each in package.files if each.prefix
        ]
        info.append(File(path="info/has_prefix", content=_text(prefixed)))
    elif package.paths:
        info.append(
            File(
                path="info/paths.json",
                content=_json(
                    {"paths": [_stated(each, package) for each in package.files], "paths_version": 1}
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
            "packages": {name: each for name, each in records.items() if name.endswith(".tar.bz2")},
            "packages.conda": {name: each for name, each in records.items() if name.endswith(".conda")},
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
                File(path="lib/libtool.copy", hard_link="lib/libtool.so.1"),
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


def python_package() -> Package:
    """The running interpreter as a conda package: standard library, executable and ``libpython``."""
    prefix, version = Path(sys.base_prefix), ".".join(map(str, sys.version_info[:3]))
    short = ".".join(version.split(".")[:2])
    standard = Path(sysconfig.get_path("stdlib"))
    files: list[File] = []
    for path in sorted(standard.rglob("*")):
        inside = path.relative_to(standard)
        if set(inside.parts) & {*_LEFT_OUT, "dist-packages"} or inside.parts[0].startswith("config-"):
            continue
        if path.is_dir() or path.suffix in (".pyc", ".a") or not path.exists():
            continue
        at = f"lib/python{short}/{inside}"
        files.append(_own(path.resolve(), at, prefix))
    executable = Path(sys.base_prefix, "bin", f"python{short}").resolve()
    files.append(_own(executable, f"bin/python{short}", prefix, executable=True))
    files += [File(path=f"bin/{name}", target=f"python{short}") for name in ("python", "python3")]
    library = sysconfig.get_config_var("INSTSONAME") or ""
    if ".so" in str(library):
        for directory in (
            sysconfig.get_config_var("LIBDIR"),
            *(f"{prefix}/{each}" for each in ("lib", "lib64")),
        ):
            candidates = [
                Path(str(directory), str(library)),
                *Path(str(directory)).glob(f"*-linux-gnu/{library}"),
            ]
            found = next((each for each in candidates if each.is_file()), None)
            if found:
                files.append(_own(found.resolve(), f"lib/{library}", prefix))
                break
    return Package(
        name="python",
        version=version,
        build="h0_0",
        subdir=Platform.host().subdir,
        files=tuple(sorted(files, key=lambda each: each.path)),
    )


def _own(path: Path, at: str, prefix: Path, *, executable: bool = False) -> File:
    """A file of this interpreter; where its prefix stands in text, the placeholder takes its place."""
    data = path.read_bytes()
    name = str(prefix).encode()
    if path.name.startswith("_sysconfigdata") and len(name) > 4 and name in data:
        return File(path=at, content=data.replace(name, PLACEHOLDER.encode()), prefix="text")
    return File(path=at, content=path, executable=executable)


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
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()


@contextmanager
def serve(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves ``directory`` on loopback: its URL and the list of paths asked for; ends with the context."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory))) as server:
        server.daemon_threads = True
        requests: list[str] = []
        server.requests = requests  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    print(make_channel(Path(sys.argv[1])))
