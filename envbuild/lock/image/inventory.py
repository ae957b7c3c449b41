"""What is installed in an image, found by reading its layers: nothing is run and nothing is unpacked.

Python distributions by their ``*.dist-info`` and ``*.egg-info`` right below a ``site-packages`` or
``dist-packages``, conda packages by their ``conda-meta``, Debian packages by dpkg's status; with each what
its installer noted about where it came from. What lies in the package cache of conda is not installed. The
answer is kept by the image's digest.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from envbuild.errors import BuildError, FetchError
from envbuild.publish.base import Image
from envbuild.remote.layer import open_layer
from envbuild.spec.conda_prefix import conda_record
from envbuild.store.content import Store

_FORMAT = 2
_DISTRIBUTION = re.compile(
    r"(?:(?P<place>.*)/)?(?P<name>[^/]+)\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)"
)
_SITE = re.compile(r"(?:.*/)?(?:site|dist)-packages")
_CACHE = re.compile(r"(?:.*/)?pkgs/[^/]+/(?:lib/python[^/]*/)?site-packages")
_CONDA = re.compile(r"(?:.*/)?conda-meta/(?P<name>[^/]+)-(?P<version>[^/-]+)-[^/-]+\.json")
_NOTE = re.compile(r"(?P<place>(?:.*/)?[^/]+\.dist-info)/(?P<kind>INSTALLER|direct_url\.json)")
_STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
_STATES = "var/lib/apt/extended_states"
_RELEASES = ("etc/os-release", "usr/lib/os-release")
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
    conda: int = 16 << 20
    """Bytes of a package's record in ``conda-meta``: it names every file."""
    held: int = 256 << 20
    """Bytes of what is kept of them, an upper layer's and a lower one's alike."""
    path: int = 4096
    """Characters of a path, as the kernel has it."""
    depth: int = 200


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Package:
    """One installed package and the file of the image that says so (no leading slash).

    ``details`` are what else is noted there, as sorted pairs: ``url``, ``subdir``, ``sha256``, ``md5`` and
    ``owned`` (lines) of a conda package; ``installer`` and ``direct_url`` (PEP 610) of a distribution;
    ``priority`` of a Debian package, and ``automatic`` of one that came with another.
    """

    name: str
    version: str
    path: str
    details: tuple[tuple[str, str], ...] = ()

    def detail(self, key: str) -> str:
        """One of ``details``; empty where it isn't known."""
        return next((value for name, value in self.details if name == key), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """All that is installed, sorted. A name may be there twice: an image may hold several pythons."""

    distributions: tuple[Package, ...] = ()
    """Python's; names are normalised (PEP 503)."""
    conda_packages: tuple[Package, ...] = ()
    debian_packages: tuple[Package, ...] = ()
    release: tuple[tuple[str, str], ...] = ()
    """What its ``os-release`` says, as sorted pairs."""


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
        if _STATUS.fullmatch(path) or path == _STATES:
            limit = self.limits.status
        elif _DISTRIBUTION.fullmatch(path) or _NOTE.fullmatch(path) or path in _RELEASES:
            limit = self.limits.header
        elif _CONDA.fullmatch(path):
            limit = self.limits.conda
        else:
            return None
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
        notes: dict[str, dict[str, str]] = {}
        automatic: frozenset[str] = frozenset()
        release: dict[str, str] = {}
        for path, content in _records(self.root, ""):
            if _STATUS.fullmatch(path):
                debian += _status(path, content)
            elif path == _STATES:
                automatic = frozenset(content.decode().split())
            elif path in _RELEASES:
                # Where both are files, that of /etc counts, which comes first.
                release = release or _release(content.decode())
            elif match := _NOTE.fullmatch(path):
                kind = "installer" if match["kind"] == "INSTALLER" else "direct_url"
                notes.setdefault(match["place"], {})[kind] = content.decode()
            elif match := _CONDA.fullmatch(path):
                details = _pairs(json.loads(content or b"{}"))
                conda.append(
                    Package(name=match["name"], version=match["version"], path=path, details=details)
                )
            elif package := _distribution(path, content):
                distributions.append(package)
        return Inventory(
            distributions=tuple(
                sorted(
                    replace(each, details=_pairs(notes.get(each.path.rpartition("/")[0], {})))
                    for each in distributions
                )
            ),
            conda_packages=tuple(sorted(conda)),
            debian_packages=tuple(
                sorted(
                    replace(each, details=(("automatic", "yes"), *each.details))
                    if each.name in automatic
                    else each
                    for each in debian
                )
            ),
            release=_pairs(release),
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
    if _CONDA.fullmatch(path):
        return _conda_essence(text)
    if _NOTE.fullmatch(path) or path in _RELEASES:
        return text.strip().encode()
    if path == _STATES:
        states = (_fields(paragraph) for paragraph in text.split("\n\n"))
        return " ".join(
            each.get("Package", "") for each in states if each.get("Auto-Installed") == "1"
        ).encode()
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
            priority = "required" if fields.get("Essential") == "yes" else fields.get("Priority", "")
            found.append(f"{name} {version} {priority}")
    return "\n".join(found).encode()


def _conda_essence(text: str) -> bytes:
    """What conda noted, as JSON; nothing where it can't be read: the file's name says enough then."""
    try:
        found = conda_record(text)
    except ValueError:
        return b""
    details = {"url": found.url, "subdir": found.subdir, "sha256": found.sha256, "md5": found.md5}
    return json.dumps({**details, "owned": "\n".join(found.owned)}).encode()


def _status(path: str, content: bytes) -> Iterator[Package]:
    for line in content.decode().splitlines():
        name, version, priority = line.split(" ", 2)
        yield Package(name=name, version=version, path=path, details=_pairs({"priority": priority}))


def _release(text: str) -> dict[str, str]:
    """The pairs of an ``os-release`` (os-release(5)), without their quotation marks."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, equals, value in pairs if equals}


def _pairs(found: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in found.items() if value))


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
        "release": found.release,
        **{
            key: [[each.name, each.version, each.path, each.details] for each in getattr(found, key)]
            for key in ("distributions", "conda_packages", "debian_packages")
        },
    }


def _load(document: dict[str, Any]) -> Inventory:
    if document["format"] != _FORMAT:
        raise ValueError("another format")

    def pairs(rows: list[Any]) -> tuple[tuple[str, str], ...]:
        return tuple((str(key), str(value)) for key, value in rows)

    def packages(key: str) -> tuple[Package, ...]:
        rows = document[key]
        return tuple(
            Package(name=str(name), version=str(version), path=str(path), details=pairs(details))
            for name, version, path, details in rows
        )

    return Inventory(
        distributions=packages("distributions"),
        conda_packages=packages("conda_packages"),
        debian_packages=packages("debian_packages"),
        release=pairs(document["release"]),
    )
