"""A Maven repository made by the tests: POMs, jars and their checksums in a directory, served on loopback."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path


def needs(coordinate: str, *, without: Sequence[str] = (), **tags: str) -> str:
    """A ``<dependency>`` on ``group:artifact[:version]``; ``without`` are ``group:artifact``."""
    group, artifact, *version = coordinate.split(":")
    inside = {
        "groupId": group,
        "artifactId": artifact,
        **({"version": version[0]} if version else {}),
        **tags,
    }
    excluded = "".join(
        f"<exclusion><groupId>{each.split(':')[0]}</groupId><artifactId>{each.split(':')[1]}</artifactId></exclusion>"
        for each in without
    )
    return (
        "<dependency>"
        + "".join(f"<{tag}>{text}</{tag}>" for tag, text in inside.items())
        + (f"<exclusions>{excluded}</exclusions>" if excluded else "")
        + "</dependency>"
    )


def pom(
    coordinate: str,
    *dependencies: str,
    parent: str = "",
    packaging: str = "",
    properties: Mapping[str, str] | None = None,
    managed: Sequence[str] = (),
    more: str = "",
) -> bytes:
    """A POM. Dependencies are coordinates or whole elements."""
    group, artifact, version = coordinate.split(":")
    parts = [f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"]
    if parent:
        above = parent.split(":")
        parts.append(
            f"<parent><groupId>{above[0]}</groupId><artifactId>{above[1]}</artifactId>"
            f"<version>{above[2]}</version></parent>"
        )
    if packaging:
        parts.append(f"<packaging>{packaging}</packaging>")
    values = "".join(f"<{name}>{value}</{name}>" for name, value in (properties or {}).items())
    parts.append(f"<properties>{values}</properties>")
    parts.append(f"<dependencyManagement><dependencies>{_all(managed)}</dependencies></dependencyManagement>")
    parts.append(f"<dependencies>{_all(dependencies)}</dependencies>{more}")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<project xmlns="http://maven.apache.org/POM/4.0.0">'
        f"<modelVersion>4.0.0</modelVersion>{''.join(parts)}</project>"
    ).encode()


def _all(dependencies: Sequence[str]) -> str:
    return "".join(
        dependency if dependency.startswith("<") else needs(dependency) for dependency in dependencies
    )


def jar(name: str) -> bytes:
    """A jar with one file in it."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("name.txt"), name)
    return buffer.getvalue()


class MavenRepository:
    """A repository below ``root``. ``asked`` are the paths that were asked for while it was served."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        root.mkdir(parents=True, exist_ok=True)

    def add(self, coordinate: str, *dependencies: str, checksum: str = "sha1", **options: object) -> None:
        """A module: its POM, and its jar unless it is packaged as a mere POM."""
        self.put(coordinate, "pom", pom(coordinate, *dependencies, **options), checksum)  # type: ignore[arg-type]
        if options.get("packaging") != "pom":
            self.put(coordinate, "jar", jar(coordinate), checksum)

    def put(self, coordinate: str, end: str, data: bytes, checksum: str = "sha1") -> Path:
        """A file of a module, ``artifact-version.end`` (or ``-classifier.end``), its checksum beside it."""
        group, artifact, version = coordinate.split(":")
        folder = self.root / group.replace(".", "/") / artifact / version
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{artifact}-{version}{end if end.startswith('-') else '.' + end}"
        path.write_bytes(data)
        if checksum:
            path.with_name(f"{path.name}.{checksum}").write_text(hashlib.new(checksum, data).hexdigest())
        return path

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The repository's address on loopback, while the context lasts."""
        handler = partial(_Handler, self.asked, directory=str(self.root))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/maven2"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, asked: list[str], *args: object, directory: str) -> None:
        self.asked = asked
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.path = self.path.removeprefix("/maven2")
        super().do_GET()

    def do_HEAD(self) -> None:
        self.path = self.path.removeprefix("/maven2")
        super().do_HEAD()

    def log_message(self, format: str, *args: object) -> None:
        pass
