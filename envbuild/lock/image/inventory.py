"""What is installed in an image, found by reading its layers: nothing is run and nothing is unpacked.

Python distributions by their ``*.dist-info`` and ``*.egg-info`` right below a ``site-packages`` or
``dist-packages``, conda packages by their ``conda-meta``, Debian packages by dpkg's status. What lies in the
package cache of conda is not installed. The answer is kept by the image's digest.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from envbuild.errors import BuildError, FetchError
from envbuild.publish.base import Image
from envbuild.remote.layer import open_layer
from envbuild.store.content import Store

_FORMAT = 1
_DISTRIBUTION = re.compile(
    r"(?:(?P<place>.*)/)?(?P<name>[^/]+)\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)"
)
_SITE = re.compile(r"(?:.*/)?(?:site|dist)-packages")
_CACHE = re.compile(r"(?:.*/)?pkgs/[^/]+/(?:lib/python[^/]*/)?site-packages")
_CONDA = re.compile(r"(?:.*/)?conda-meta/(?P<name>[^/]+)-(?P<version>[^/-]+)-[^/-]+\.json")
_STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
_FILE_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-py[0-9.]+.*)?")
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What is read of an image; more is taken for an attack."""

    entries: int = 3_000_000
    size: int = 256 << 30
    """Bytes of all files together."""
    records: int = 200_000
    """Packages of all kinds."""
    header: int = 64 << 10
    """Bytes of a METADATA: its head says name and version, a description of any length follows."""
    status: int = 64 << 20
    """Bytes of a dpkg status."""
    held: int = 256 << 20
    """Bytes of what is kept of them, an upper layer's and a lower one's alike."""
    path: int = 4096
    """Characters of a path, as the kernel has it."""
    depth: int = 200


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Package:
    """One installed package and the file of the image that says so (no leading slash)."""

    name: str
    version: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """All that is installed, sorted. A name may be there twice: an image may hold several pythons."""

    distributions: tuple[Package, ...] = ()
    """Python's; names are normalised (PEP 503)."""
    conda_packages: tuple[Package, ...] = ()
    debian_packages: tuple[Package, ...] = ()


def inventory(image: Image, store: Store) -> Inventory:
    """What is installed in ``image``, whose layers are in the store. Raises ``BuildError``."""
    file = store.directory("metadata/images") / f"{image.digest.removeprefix('sha256:')}.inventory.json"
    try:
        return _load(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # Not there or damaged: it is made again from the layers.
    found = read_inventory([(store.blob(each.digest), each.media_type) for each in image.layers])
    with store.scratch() as scratch:
        (scratch / "inventory").write_text(json.dumps(_dump(found)))
        (scratch / "inventory").replace(file)
    return found


def read_inventory(layers: Sequence[tuple[Path, str]], *, limits: Limits | None = None) -> Inventory:
    """What layers (blob and media type, lowest first) hold, whiteouts obeyed. Raises ``BuildError``."""
    view = _View(limits=limits or Limits())
    for blob, media_type in layers:
        try:
            with open_layer(blob, media_type) as archive:
                view.layer += 1
                for member in archive:
                    # The archive would remember every member for its whole life.
                    archive.members = []  # type: ignore[attr-defined]
                    view.add(member, archive)
        except FetchError as error:
            raise BuildError(error.message, hint=error.hint) from error
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
            raise BuildError(f"the layer {blob.name} can't be read: {error}") from error
    return view.result()


@dataclass(slots=True)
class _Node:
    """A path of the image that leads to a record, or is one."""

    layer: int
    content: bytes | None = None
    """Of a record; None for a directory."""
    below: dict[str, _Node] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class _View:
    """The few paths of interest as a tree, as the layers read so far leave them."""

    limits: Limits
    root: _Node = field(default_factory=lambda: _Node(0))
    layer: int = 0
    entries: int = 0
    size: int = 0
    records: int = 0
    held: int = 0

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self.entries += 1
        self.size += member.size
        if self.entries > self.limits.entries or self.size > self.limits.size:
            raise BuildError(
                f"the image has more than {self.limits.entries} entries or {self.limits.size} bytes"
            )
        if len(member.name) > self.limits.path:
            raise BuildError(f"a path of the image is longer than any system's: {member.name[:60]}…")
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BuildError(f"an entry of the image leaves it: {member.name!r}")
        if not parts:
            return
        if parts[-1] == _OPAQUE:
            self.remove(parts[:-1], itself=False)
        elif parts[-1].startswith(_WHITEOUT):
            self.remove([*parts[:-1], parts[-1].removeprefix(_WHITEOUT)], itself=True)
        elif not member.isdir():
            # Whatever it is, it takes the place of what lower layers had there.
            self.remove(parts, itself=True, also_own=True)
            content = self.content("/".join(parts), member, archive)
            if content is not None:
                self.put(parts, content)

    def content(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> bytes | None:
        """What a record says; empty where only its name does. None for all other files."""
        if _STATUS.fullmatch(path):
            limit = self.limits.status
        elif _DISTRIBUTION.fullmatch(path):
            limit = self.limits.header
        else:
            return b"" if _CONDA.fullmatch(path) else None
        if member.islnk():
            # An installer may link files to its cache, which the same layer may hold.
            node = self.find([part for part in member.linkname.split("/") if part not in ("", ".")])
            return (node.content if node else None) or b""
        if not member.isreg():
            return None
        source = archive.extractfile(member)
        return _essence(path, source.read(limit).decode(errors="replace")) if source else b""

    def find(self, parts: Sequence[str]) -> _Node | None:
        node: _Node | None = self.root
        for part in parts:
            node = node.below.get(part) if node else None
        return node

    def put(self, parts: Sequence[str], content: bytes) -> None:
        self.records += 1
        self.held += len(content)
        if self.records > self.limits.records or self.held > self.limits.held:
            raise BuildError(f"the image's layers have more than {self.limits.records} packages")
        if len(parts) > self.limits.depth:
            raise BuildError(f"the image has directories deeper than {self.limits.depth}")
        node = self.root
        for part in parts:
            node = node.below.setdefault(part, _Node(self.layer))
            node.layer = self.layer
        node.content = content

    def remove(self, parts: Sequence[str], *, itself: bool, also_own: bool = False) -> None:
        """Takes out what lower layers have at or below a path, with ``also_own`` this layer's, too."""
        parent, node = None, self.root
        for part in parts:
            below = node.below.get(part)
            if below is None:
                return
            parent, node = node, below
        if parent is not None and itself and (also_own or node.layer < self.layer):
            del parent.below[parts[-1]]
        else:
            self._remove_lower(node)

    def _remove_lower(self, node: _Node) -> None:
        for name, each in list(node.below.items()):
            if each.layer < self.layer:
                del node.below[name]
            else:
                self._remove_lower(each)

    def result(self) -> Inventory:
        distributions: list[Package] = []
        conda: list[Package] = []
        debian: list[Package] = []
        for path, content in _records(self.root, ""):
            if _STATUS.fullmatch(path):
                debian += _status(path, content)
            elif match := _CONDA.fullmatch(path):
                conda.append(Package(name=match["name"], version=match["version"], path=path))
            elif package := _distribution(path, content):
                distributions.append(package)
        return Inventory(
            distributions=tuple(sorted(distributions)),
            conda_packages=tuple(sorted(conda)),
            debian_packages=tuple(sorted(debian)),
        )


def _records(node: _Node, path: str) -> Iterator[tuple[str, bytes]]:
    if node.content is not None:
        yield path, node.content
    for name, each in node.below.items():
        yield from _records(each, f"{path}/{name}" if path else name)


def _distribution(path: str, content: bytes) -> Package | None:
    match = _DISTRIBUTION.fullmatch(path)
    place = match["place"] or "" if match else ""
    if match is None or not _SITE.fullmatch(place) or _CACHE.fullmatch(place):
        return None
    fields = _fields(content.decode())
    name, version = fields.get("Name"), fields.get("Version")
    if not name or not version:
        stated = _FILE_NAME.fullmatch(match["name"])
        if stated is None:
            return None
        name, version = stated["name"], stated["version"]
    return Package(name=canonicalize_name(name), version=version, path=path)


def _essence(path: str, text: str) -> bytes:
    """The few lines of a record that count."""
    if not _STATUS.fullmatch(path):
        fields = _fields(text)
        kept = [f"{key}: {fields[key]}" for key in ("Name", "Version") if key in fields]
        return "\n".join(kept).encode()
    found = []
    for paragraph in text.split("\n\n"):
        fields = _fields(paragraph)
        name, version = fields.get("Package"), fields.get("Version")
        # A file of status.d has no state: it is there, so it is installed.
        if name and version and fields.get("Status", "installed").split()[-1:] == ["installed"]:
            found.append(f"{name} {version}")
    return "\n".join(found).encode()


def _status(path: str, content: bytes) -> Iterator[Package]:
    for line in content.decode().splitlines():
        name, _, version = line.partition(" ")
        yield Package(name=name, version=version, path=path)


def _fields(text: str) -> dict[str, str]:
    """The first paragraph's one-line fields."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            found.setdefault(key, value.strip())
    return found


def _dump(found: Inventory) -> dict[str, object]:
    return {
        "format": _FORMAT,
        **{
            key: [[each.name, each.version, each.path] for each in getattr(found, key)]
            for key in ("distributions", "conda_packages", "debian_packages")
        },
    }


def _load(document: dict[str, Any]) -> Inventory:
    if document["format"] != _FORMAT:
        raise ValueError("another format")

    def packages(key: str) -> tuple[Package, ...]:
        rows = document[key]
        return tuple(
            Package(name=str(name), version=str(version), path=str(path)) for name, version, path in rows
        )

    return Inventory(
        distributions=packages("distributions"),
        conda_packages=packages("conda_packages"),
        debian_packages=packages("debian_packages"),
    )
