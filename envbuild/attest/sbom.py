"""The bill of materials of an image: what lies in its layers, joined with the lock that lies there, too.

Nothing of the image is run. What is in no package's metadata isn't known: files that a Dockerfile's steps
copied, programs compiled in place, jars and libraries inside other packages.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from envbuild.attest import licence, purl
from envbuild.attest.base import Bill, Item
from envbuild.attest.dependencies import (
    InstalledPython,
    Needing,
    conda_edges,
    debian_edges,
    prefix_of,
    python_edges,
    python_of,
)
from envbuild.errors import LockError
from envbuild.lock.image.embedded import embedded_lock
from envbuild.lock.image.inventory import InstalledPackage, Inventory, inventory
from envbuild.lock.model import CondaPin, DebianBase, Lock, MavenPin, PipPin, PlatformLock, PythonPin
from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.specs.model import PREFIX
from envbuild.store.content import Store
from envbuild.store.images import read_config

_LOGGER = logging.getLogger(__name__)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
_UPSTREAM = re.compile(r"(?:\d+:)?(3\.\d+\.\d+)")


def bill_of(image: Image, store: Store) -> Bill:
    """All packages inside ``image``, whose layers are in the store. Raises ``BuildError``."""
    contents = inventory(image, store)
    lock = _lock(image, store)
    config = read_config(image, store)
    python = config.variables.get("PYTHON_VERSION", "")
    return Bill(
        digest=image.digest,
        platform=str(image.platform),
        created=_seconds(config.created),
        level=image.level,
        lock_digest=image.lock_digest,
        definition_digest=image.definition_digest,
        items=items_of(
            contents,
            lock,
            image.platform,
            layers=[layer.digest for layer in image.layers],
            python=python if _UPSTREAM.fullmatch(python) else "",
        ),
        release=contents.release,
    )


def _lock(image: Image, store: Store) -> Lock | None:
    """The lock inside an image that says it has one. What an unsound one says is left out: the packages are
    there, whatever it says."""
    if not image.lock_digest:
        return None
    try:
        return embedded_lock(image, store)
    except LockError as error:
        _LOGGER.warning("the bill of %s is made without its lock: %s", image.digest, error.message)
        return None


def items_of(
    contents: Inventory, lock: Lock | None, platform: Platform, *, layers: Sequence[str], python: str = ""
) -> tuple[Item, ...]:
    """The items of a bill. ``layers`` are digests, lowest first; ``python`` is what the image's own
    variable says of its interpreter's version."""
    pins = _Pins.of(lock.platform(platform) if lock is not None else None)
    release = dict(contents.release)
    owned = _owned(contents)
    entries: list[tuple[Item, InstalledPackage]] = []
    for package in contents.conda_packages:
        entries.append((_conda(package, pins.conda.get((package.name, package.version))), package))
    for package in contents.distributions:
        if package.path not in owned:
            entries.append((_python(package, pins.pip), package))
    for package in contents.debian_packages:
        entries.append((_debian(package, pins, release), package))
    for package in contents.jars:
        if pin := pins.maven.get(package.name):
            entries.append((_maven(pin), package))
    named = _named(
        [
            (replace(item, path=package.path, layer=_at(layers, package.layer)), package)
            for item, package in entries
        ]
    )
    standalone = _standalone(pins.python) if pins.python is not None else None
    interpreter = InstalledPython(
        version=pins.python.version if pins.python is not None else python,
        reference=standalone.reference if standalone else "",
    )
    edges = _edges(named, owned, contents, platform, interpreter)
    items = [replace(item, depends=tuple(sorted(edges.get(item.reference, ())))) for item, _ in named]
    if standalone is not None:
        items.append(standalone)
    return tuple(sorted(items, key=lambda item: (item.kind, item.name, item.version, item.reference)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pins:
    """The pins of an image's lock, by what a package in the image is found by."""

    pip: Mapping[tuple[str, str], PipPin]
    conda: Mapping[tuple[str, str], CondaPin]
    debian: Mapping[tuple[str, str, str], tuple[str, int, str]]
    """File name, size and SHA-256, by name, version and architecture."""
    maven: Mapping[str, MavenPin]
    """By file name."""
    python: PythonPin | None

    @classmethod
    def of(cls, lock: PlatformLock | None) -> _Pins:
        base = lock.base if lock is not None else None
        packages = base.packages if isinstance(base, DebianBase) else ()
        return cls(
            pip={
                (requirement.name, requirement.version): requirement
                for requirement in (lock.pip if lock else ())
            },
            conda={
                (dependency.name, dependency.version): dependency
                for dependency in (lock.conda if lock else ())
            },
            debian={
                (package.name, package.version, package.architecture): (
                    package.file.rpartition("/")[2],
                    package.size,
                    package.sha256,
                )
                for package in packages
            },
            maven={pin.file.rpartition("/")[2]: pin for pin in (lock.maven if lock else ())},
            python=lock.python if lock is not None else None,
        )


def _conda(package: InstalledPackage, pin: CondaPin | None) -> Item:
    detail = package.detail
    url = detail("url")
    file = url.partition("#")[0].partition("?")[0].rpartition("/")[2]
    build, subdir = detail("build"), detail("subdir")
    size, sha256, md5 = int(detail("size") or 0), detail("sha256"), detail("md5")
    if pin is not None and build in ("", pin.build):
        url, file, build, subdir = pin.url, pin.file, pin.build, pin.subdir
        size, sha256, md5 = pin.size, pin.sha256, pin.md5
    name = purl.conda(
        package.name,
        package.version,
        build=build,
        channel=purl.channel_of(url),
        subdir=subdir,
        file=file,
    )
    return Item(
        kind="conda",
        name=package.name,
        version=package.version,
        reference=name,
        purl=name,
        file=file,
        size=size,
        sha256=_hexadecimal(sha256, 64),
        md5=_hexadecimal(md5, 32),
        licence=licence.of_conda(detail("license")),
    )


def _python(package: InstalledPackage, pins: Mapping[tuple[str, str], PipPin]) -> Item:
    pin = pins.get((package.name, package.version))
    name = purl.pypi(package.name, package.version, pin)
    return Item(
        kind="python",
        name=package.name,
        version=package.version,
        reference=name,
        purl=name,
        file=pin.file if pin else "",
        size=pin.size if pin else 0,
        sha256=pin.sha256 if pin else "",
        licence=licence.of_distribution(
            package.detail("license_expression"),
            package.detail("license"),
            package.detail("classifiers").splitlines(),
        ),
    )


def _debian(package: InstalledPackage, pins: _Pins, release: Mapping[str, str]) -> Item:
    architecture = package.detail("architecture")
    pin = pins.debian.get((package.name, package.version, architecture))
    name = purl.debian(package.name, package.version, architecture=architecture, release=release)
    return Item(
        kind="debian",
        name=package.name,
        version=package.version,
        reference=name,
        purl=name,
        file=pin[0] if pin else "",
        size=pin[1] if pin else 0,
        sha256=pin[2] if pin else "",
        licence=licence.of_debian(package.detail("licenses").splitlines()),
    )


def _maven(pin: MavenPin) -> Item:
    name = purl.maven(pin.group, pin.artifact, pin.version)
    return Item(
        kind="maven",
        name=pin.name,
        version=pin.version,
        reference=name,
        purl=name,
        file=pin.file.rpartition("/")[2],
        size=pin.size,
        sha256=pin.sha256,
    )


def _standalone(pin: PythonPin) -> Item | None:
    """The interpreter, where no package of the image's brought it; its layer isn't looked for."""
    build = pin.build
    if build is None:
        return None
    name = purl.python(build.version)
    return Item(
        kind="interpreter",
        name=build.name,
        version=build.version,
        reference=name,
        purl=name,
        file=build.file,
        size=build.size,
        sha256=build.sha256,
        path=pin.executable.lstrip("/"),
    )


def _named(entries: Iterable[tuple[Item, InstalledPackage]]) -> list[tuple[Item, InstalledPackage]]:
    """The entries with references that name one item each: a package may be there several times."""
    named: dict[str, tuple[Item, InstalledPackage]] = {}
    for item, package in sorted(entries, key=lambda entry: (entry[0].purl, entry[0].path)):
        reference = item.purl if item.purl not in named else f"{item.purl}#{item.path}"
        # Two entries of one status file that are all the same are one.
        named.setdefault(reference, (replace(item, reference=reference), package))
    return list(named.values())


def _owned(contents: Inventory) -> dict[str, tuple[str, str]]:
    """The metadata of distributions that a conda package brought, by path: prefix and name of the package."""
    owners: dict[str, tuple[str, str]] = {}
    for package in contents.conda_packages:
        prefix = prefix_of(package.path)
        for place in package.detail("owned").splitlines():
            owners[f"{prefix}/{place}" if prefix else place] = (prefix, package.name)
    return {
        distribution.path: owners[place]
        for distribution in contents.distributions
        for place in (distribution.path, distribution.path.rpartition("/")[0])
        if place in owners
    }


def _edges(
    named: Sequence[tuple[Item, InstalledPackage]],
    owned: Mapping[str, tuple[str, str]],
    contents: Inventory,
    platform: Platform,
    python: InstalledPython,
) -> dict[str, set[str]]:
    kinds: dict[str, list[Needing]] = {kind: [] for kind in ("conda", "python", "debian", "maven")}
    for item, package in named:
        kinds[item.kind].append(
            Needing(
                reference=item.reference,
                kind=item.kind,
                name=package.name,
                path=package.path,
                needs=package.detail("requires" if item.kind == "python" else "depends"),
                provides=package.detail("provides"),
            )
        )
    by_place = {(prefix_of(kind.path), kind.name): kind.reference for kind in kinds["conda"]}
    brought = [
        Needing(
            reference=by_place[owned[distribution.path]],
            kind="conda",
            name=distribution.name,
            path=distribution.path,
        )
        for distribution in contents.distributions
        if owned.get(distribution.path) in by_place
    ]
    interpreters = {
        prefix_of(kind.path): _interpreter(kind.path, contents, kinds, python) for kind in kinds["python"]
    }
    return {
        **debian_edges(kinds["debian"]),
        **conda_edges(kinds["conda"]),
        **python_edges(kinds["python"], brought, interpreters, platform),
    }


def _interpreter(
    path: str, contents: Inventory, kinds: Mapping[str, Sequence[Needing]], stated: InstalledPython
) -> InstalledPython:
    """The python that a distribution is for: a standalone one of the prefix, conda's of its prefix, else
    Debian's of the version that its directory names, else what the image says."""
    prefix, short = prefix_of(path), python_of(path)
    if stated.reference and prefix == str(PREFIX)[1:]:
        return stated
    for package in contents.conda_packages:
        if package.name == "python" and prefix_of(package.path) == prefix:
            reference = next((e.reference for e in kinds["conda"] if e.path == package.path), "")
            return InstalledPython(version=package.version, reference=reference)
    by_name = {debian_package.name: debian_package for debian_package in contents.debian_packages}
    shorts = (
        [short]
        if short
        else sorted(name.removeprefix("python") for name in by_name if re.fullmatch(r"python3\.\d+", name))
    )
    for series in shorts[-1:]:
        for name in (f"python{series}", f"python{series}-minimal", f"libpython{series}-stdlib"):
            if name in by_name and prefix not in ("usr/local", "opt/conda"):
                match = _UPSTREAM.match(by_name[name].version)
                reference = next((e.reference for e in kinds["debian"] if e.name == name), "")
                return InstalledPython(version=match[1] if match else series, reference=reference)
    if stated.version.startswith(f"{short}.") or (stated.version and not short):
        return InstalledPython(version=stated.version, reference="")
    return InstalledPython(version=short, reference="")


def _seconds(text: object) -> int:
    """An RFC 3339 time in seconds since the epoch; 0 where it is none."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return 0
    try:
        time = datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00"))
        return max(0, int(time.timestamp()))
    except (ValueError, OverflowError):
        return 0


def _at(layers: Sequence[str], number: int) -> str:
    return layers[number] if number < len(layers) else ""


def _hexadecimal(text: str, length: int) -> str:
    return text if re.fullmatch(f"[0-9a-f]{{{length}}}", text) else ""
