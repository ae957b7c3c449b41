"""Wheels made on the spot, and a simple index (PEP 503) of them, in a directory or on loopback HTTP."""

from __future__ import annotations

import base64
import hashlib
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from envbuild.lock.model import PipPin


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel to be. ``files`` are archive names to content; ``unlisted`` ones aren't in RECORD."""

    name: str
    version: str = "1.0"
    tag: str = "py3-none-any"
    build: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    executable: Sequence[str] = ()
    unlisted: Mapping[str, bytes] = field(default_factory=dict)
    requires: Sequence[str] = ()
    extras: Sequence[str] = ()
    entry_points: str = ""
    record: str | None = None
    """The whole RECORD, instead of a true one."""

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def file(self) -> str:
        build = f"-{self.build}" if self.build else ""
        return f"{self.stem}{build}-{self.tag}.whl"

    def data(self) -> bytes:
        info = f"{self.stem}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}"]
        metadata += [f"Provides-Extra: {extra}" for extra in self.extras]
        metadata += [f"Requires-Dist: {require}" for require in self.requires]
        wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        wheel += "".join(f"Tag: {tag}\n" for tag in _tags(self.tag))
        members = dict(self.files) or {f"{self.name.replace('-', '_')}.py": b"value = 1\n"}
        members[f"{info}/METADATA"] = ("\n".join(metadata) + "\n").encode()
        members[f"{info}/WHEEL"] = wheel.encode()
        if self.entry_points:
            members[f"{info}/entry_points.txt"] = self.entry_points.encode()
        rows = [f"{name},sha256={_hash(data)},{len(data)}\n" for name, data in members.items()]
        record = "".join([*rows, f"{info}/RECORD,,\n"]) if self.record is None else self.record
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in {**members, **self.unlisted, f"{info}/RECORD": record.encode()}.items():
                entry = zipfile.ZipInfo(name)
                entry.create_system = 3
                entry.external_attr = (0o100755 if name in self.executable else 0o100644) << 16
                archive.writestr(entry, data)
        return buffer.getvalue()

    def pin(self, **changes: object) -> PipPin:
        data = self.data()
        values: dict[str, object] = {
            "name": self.name,
            "version": self.version,
            "file": self.file,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return PipPin(**{**values, **changes})  # type: ignore[arg-type]


def sdist(name: str, version: str = "1.0") -> bytes:
    """A source distribution whose metadata is static, so that resolving needs not build it."""
    buffer = BytesIO()
    members = {
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": f'[project]\nname = "{name}"\nversion = "{version}"\n',
    }
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in members.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text)
            archive.addfile(entry, BytesIO(text.encode()))
    return buffer.getvalue()


class Wheelhouse:
    """A directory ``root/simple/<name>/`` with a page and the files of each distribution."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.simple = root / "simple"

    def add(self, *wheels: Wheel) -> None:
        for wheel in wheels:
            self.add_file(wheel.name, wheel.file, wheel.data())

    def add_file(self, name: str, file: str, data: bytes) -> None:
        directory = self.simple / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(data)
        files = sorted(path for path in directory.iterdir() if path.name != "index.html")
        links = "".join(
            f'<a href="{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">{file.name}</a>\n'
            for file in files
        )
        (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")

    @property
    def url(self) -> str:
        """The index as a ``file:`` URL."""
        return self.simple.as_uri()

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The index's address on loopback, while the context lasts."""
        handler = partial(_Quiet, directory=str(self.root))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _tags(tag: str) -> list[str]:
    pythons, abis, platforms = tag.split("-")
    return [
        f"{python}-{abi}-{each}"
        for python in pythons.split(".")
        for abi in abis.split(".")
        for each in platforms.split(".")
    ]


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
