"""What is installed in an image, found by reading its layers: nothing is run and nothing is unpacked.

Python distributions by their ``*.dist-info`` and ``*.egg-info`` right below a ``site-packages`` or
``dist-packages``, conda packages by their ``conda-meta``, Debian packages by dpkg's status; with each what
its installer noted about where it came from. What lies in the package cache of conda is not installed. The
answer is kept by the image's digest.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from envbuild.lock.image.layer_records import (
    LayerRecords,
    RecordLimits,
    ancestors,
    check_held,
    check_totals,
    layer_records,
    read_layer,
)
from envbuild.lock.image.records import CONDA, DISTRIBUTION, DOCUMENTATION, NOTE, kind_of
from envbuild.oci.image import Image
from envbuild.store.content import Store

_FORMAT = 3
_KINDS = ("distributions", "conda_packages", "debian_packages", "jars")
_SITE = re.compile(r"(?:.*/)?(?:site|dist)-packages")
_CACHE = re.compile(r"(?:.*/)?pkgs/[^/]+/(?:lib/python[^/]*/)?site-packages")
_FILE_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-py[0-9.]+.*)?")
_WORKERS = 2


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class InstalledPackage:
    """One installed package and the file of the image that says so (no leading slash).

    ``details`` are what else is noted there, as sorted pairs. Of a conda package: ``url``, ``subdir``,
    ``sha256``, ``md5``, ``build``, ``size``, ``license``, ``depends`` and ``owned`` (lines). Of a
    distribution: ``installer``, ``direct_url`` (PEP 610), ``license``, ``license_expression``,
    ``classifiers`` (lines, of licences) and ``requires`` (lines). Of a Debian package: ``priority``,
    ``architecture``, ``depends``, ``provides``, ``licenses`` (lines), and ``automatic`` where it came with
    another."""

    name: str
    version: str
    path: str
    details: tuple[tuple[str, str], ...] = ()
    layer: int = field(default=0, compare=False)
    """Which layer has the file, counted from the lowest, which is 0."""

    def detail(self, key: str) -> str:
        """One of ``details``; empty where it isn't known."""
        return next((value for name, value in self.details if name == key), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """All that is installed, sorted. A name may be there twice: an image may hold several pythons."""

    distributions: tuple[InstalledPackage, ...] = ()
    """Python's; names are normalised (PEP 503)."""
    conda_packages: tuple[InstalledPackage, ...] = ()
    debian_packages: tuple[InstalledPackage, ...] = ()
    jars: tuple[InstalledPackage, ...] = ()
    """Named by their file; a version isn't known without opening them."""
    release: tuple[tuple[str, str], ...] = ()
    """What its ``os-release`` says, as sorted pairs."""


def inventory(image: Image, store: Store) -> Inventory:
    """What is installed in ``image``, whose layers are in the store. Raises ``BuildError``."""
    file = store.directory("metadata/images") / f"{image.digest.removeprefix('sha256:')}.inventory.json"
    try:
        return _load(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # Not there or damaged: it is made again from the layers.
    with ThreadPoolExecutor(_WORKERS) as pool:
        layers = pool.map(lambda layer: layer_records(layer.digest, layer.media_type, store), image.layers)
        merged = _merged(layers, RecordLimits())
    with store.scratch() as scratch:
        (scratch / "inventory").write_text(json.dumps(_dump(merged)))
        (scratch / "inventory").replace(file)
    return merged


def read_inventory(layers: Sequence[tuple[Path, str]], *, limits: RecordLimits | None = None) -> Inventory:
    """What layers (blob and media type, lowest first) hold, whiteouts obeyed. Raises ``BuildError``."""
    bounds = limits or RecordLimits()
    return _merged((read_layer(blob, media_type, bounds) for blob, media_type in layers), bounds)


@dataclass(kw_only=True, slots=True)
class _RecordsView:
    """The records of the image as the layers read so far leave them, each with its layer."""

    limits: RecordLimits
    records: dict[str, tuple[str, int]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    """The paths of all records there ever were, and of all directories above them."""
    layer: int = 0
    entries: int = 0
    size: int = 0
    added: int = 0
    held: int = 0

    def add(self, layer: LayerRecords) -> None:
        self.entries += layer.entries
        self.size += layer.size
        check_totals(self.entries, self.size, self.limits)
        linked = {path: self.records.get(target, ("", 0))[0] for path, target in layer.links.items()}
        self.remove(layer)
        for path, content in {**layer.contents, **linked}.items():
            self.added += 1
            self.held += len(content)
            self.records[path] = (content, self.layer)
            self.known.add(path)
            self.known.update(ancestors(path))
        check_held(self.added, self.held, self.limits)
        self.layer += 1

    def remove(self, layer: LayerRecords) -> None:
        """Takes out what lower layers have where this one has something, or says that nothing is."""
        gone = (self.known & layer.others) | (self.known & layer.removed)
        emptied = layer.emptied & (self.known | {""})
        if not gone and not emptied:
            return
        for path in gone & self.records.keys():
            del self.records[path]
        within = gone | emptied
        for path in list(self.records):
            if "" in emptied or not within.isdisjoint(ancestors(path)):
                del self.records[path]


def _merged(layers: Iterable[LayerRecords], limits: RecordLimits) -> Inventory:
    view = _RecordsView(limits=limits)
    for layer in layers:
        view.add(layer)
    return _inventory(view.records)


def _inventory(records: Mapping[str, tuple[str, int]]) -> Inventory:
    packages: dict[str, list[InstalledPackage]] = {kind: [] for kind in _KINDS}
    notes: dict[str, dict[str, str]] = {}
    automatic: frozenset[str] = frozenset()
    release: dict[str, str] = {}
    for path, (content, layer) in sorted(records.items()):
        kind = kind_of(path)
        if kind == "status":
            packages["debian_packages"] += _status(path, content, layer)
        elif kind == "states":
            automatic = frozenset(content.split())
        elif kind == "release":
            # Where both are files, that of /etc counts, which comes first.
            release = release or _release(content)
        elif kind == "note" and (match := NOTE.fullmatch(path)):
            name = "installer" if match["kind"] == "INSTALLER" else "direct_url"
            notes.setdefault(match["place"], {})[name] = content
        elif kind == "conda" and (match := CONDA.fullmatch(path)):
            details = _pairs(json.loads(content or "{}"))
            packages["conda_packages"].append(
                InstalledPackage(
                    name=match["name"], version=match["version"], path=path, details=details, layer=layer
                )
            )
        elif kind == "jar":
            name = path.rpartition("/")[2]
            packages["jars"].append(InstalledPackage(name=name, version="", path=path, layer=layer))
        elif kind == "distribution" and (package := _distribution(path, content, layer)):
            packages["distributions"].append(package)
    distributions = [
        _with(package, notes.get(package.path.rpartition("/")[0], {}))
        for package in packages.pop("distributions")
    ]
    debian = [
        _with(
            package,
            {
                "automatic": "yes" if package.name in automatic else "",
                "licenses": _copyright(package.name, records),
            },
        )
        for package in packages.pop("debian_packages")
    ]
    return Inventory(
        distributions=tuple(sorted(distributions)),
        debian_packages=tuple(sorted(debian)),
        conda_packages=tuple(sorted(packages["conda_packages"])),
        jars=tuple(sorted(packages["jars"])),
        release=_pairs(release),
    )


def _with(package: InstalledPackage, details: Mapping[str, str]) -> InstalledPackage:
    return replace(package, details=_pairs({**dict(package.details), **details}))


def _distribution(path: str, content: str, layer: int) -> InstalledPackage | None:
    match = DISTRIBUTION.fullmatch(path)
    place = match["place"] or "" if match else ""
    if match is None or not _SITE.fullmatch(place) or _CACHE.fullmatch(place):
        return None
    details = json.loads(content or "{}")
    name, version = details.pop("name", ""), details.pop("version", "")
    if not name or not version:
        stated = _FILE_NAME.fullmatch(match["name"])
        if stated is None:
            return None
        name, version = stated["name"], stated["version"]
    return InstalledPackage(
        name=canonicalize_name(name), version=version, path=path, details=_pairs(details), layer=layer
    )


def _status(path: str, content: str, layer: int) -> list[InstalledPackage]:
    installed_packages = []
    for record in json.loads(content or "[]"):
        name, version = record.pop("name"), record.pop("version")
        installed_packages.append(
            InstalledPackage(name=name, version=version, path=path, details=_pairs(record), layer=layer)
        )
    return installed_packages


def _copyright(name: str, records: Mapping[str, tuple[str, int]]) -> str:
    """The licences of a Debian package's copyright file, which may be another package's."""
    for _ in range(3):
        content, _layer = records.get(f"usr/share/doc/{name}/copyright", ("", 0))
        link, _layer = records.get(f"usr/share/doc/{name}", ("", 0))
        if content or not link:
            return content
        target = posixpath.normpath(posixpath.join("/usr/share/doc", link)).lstrip("/")
        match = DOCUMENTATION.fullmatch(target)
        if match is None:
            return ""
        name = match["name"]
    return ""


def _release(text: str) -> dict[str, str]:
    """The pairs of an ``os-release`` (os-release(5)), without their quotation marks."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, equals, value in pairs if equals}


def _pairs(details: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in details.items() if value))


def _dump(contents: Inventory) -> dict[str, object]:
    return {
        "format": _FORMAT,
        "release": contents.release,
        **{
            key: [
                [package.name, package.version, package.path, package.layer, package.details]
                for package in getattr(contents, key)
            ]
            for key in _KINDS
        },
    }


def _load(document: dict[str, Any]) -> Inventory:
    if document["format"] != _FORMAT:
        raise ValueError("another format")

    def pairs(rows: list[Any]) -> tuple[tuple[str, str], ...]:
        return tuple((str(key), str(value)) for key, value in rows)

    def packages(key: str) -> tuple[InstalledPackage, ...]:
        rows = document[key]
        return tuple(
            InstalledPackage(
                name=str(name), version=str(version), path=str(path), layer=int(layer), details=pairs(details)
            )
            for name, version, path, layer, details in rows
        )

    return Inventory(**{key: packages(key) for key in _KINDS}, release=pairs(document["release"]))
