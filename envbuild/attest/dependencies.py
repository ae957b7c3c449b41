"""Which installed package needs which, as the packages themselves say; versions aren't compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envbuild.lazy import lazy
from envbuild.platforms import Platform

if TYPE_CHECKING:
    from packaging import requirements as packaging_requirements
    from packaging import utils as packaging_utils
else:
    packaging_requirements = lazy("packaging.requirements")
    packaging_utils = lazy("packaging.utils")

_SITE = re.compile(r"(?:(?P<prefix>.*)/)?lib/python(?P<python>\d+(?:\.\d+)?)t?/(?:site|dist)-packages/.*")
_CONDA = re.compile(r"(?:(?P<prefix>.*)/)?conda-meta/[^/]+")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._+-]*)")
_EXTRA = re.compile(r";[^;]*\bextra\s*==")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needing:
    """A package as its edges are found by. ``needs`` are the lines or fields its metadata has."""

    reference: str
    kind: str
    name: str
    path: str
    needs: str = ""
    provides: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledPython:
    """A python of the image. ``version`` is full where that is known; ``reference`` empty where no package
    brings it."""

    version: str
    reference: str


def debian_edges(packages: Sequence[Needing]) -> dict[str, set[str]]:
    """By Depends and Pre-Depends: of alternatives the first that is there, by name or as provided."""
    there: dict[str, list[str]] = {}
    for package in packages:
        there.setdefault(package.name, []).append(package.reference)
    for package in packages:
        for name in _names(package.provides.split(",")):
            there.setdefault(name, []).append(package.reference)
    edges: dict[str, set[str]] = {}
    for package in packages:
        for group in package.needs.split(","):
            owner = next((there[name] for name in _names(group.split("|")) if name in there), [])
            edges.setdefault(package.reference, set()).update(owner[:1])
    return edges


def conda_edges(packages: Sequence[Needing]) -> dict[str, set[str]]:
    """By ``depends``, within one prefix. Virtual packages are the machine's."""
    there = {(prefix_of(package.path), package.name): package.reference for package in packages}
    edges: dict[str, set[str]] = {}
    for package in packages:
        prefix = prefix_of(package.path)
        needed = {there.get((prefix, name)) for name in _names(package.needs.splitlines())}
        edges[package.reference] = {name for name in needed if name}
    return edges


def python_edges(
    packages: Sequence[Needing],
    owned: Sequence[Needing],
    interpreters: Mapping[str, InstalledPython],
    platform: Platform,
) -> dict[str, set[str]]:
    """By Requires-Dist, within one prefix: markers for the prefix's interpreter and the platform, and extras
    that others ask for. ``owned`` are the distributions that a conda package brought, under its reference;
    their needs are the conda package's. Each needs its interpreter, too."""
    by_prefix: dict[str, list[Needing]] = {}
    for package in packages:
        by_prefix.setdefault(prefix_of(package.path), []).append(package)
    edges: dict[str, set[str]] = {}
    for prefix, mine in by_prefix.items():
        there = {
            component.name: component.reference for component in owned if prefix_of(component.path) == prefix
        }
        there.update((component.name, component.reference) for component in mine)
        interpreter = interpreters.get(prefix, InstalledPython(version="", reference=""))
        edges.update(_python_edges(mine, there, interpreter, platform))
        if interpreter.reference:
            for component in mine:
                edges[component.reference].add(interpreter.reference)
    return edges


def prefix_of(path: str) -> str:
    """The prefix that a record's file lies in: ``opt/env``."""
    match = _SITE.fullmatch(path) or _CONDA.fullmatch(path)
    return match["prefix"] or "" if match else ""


def python_of(path: str) -> str:
    """``3.13``, by the directory a distribution lies in; empty where that doesn't say."""
    match = _SITE.fullmatch(path)
    return match["python"] if match and "." in match["python"] else ""


def _python_edges(
    packages: Sequence[Needing], there: Mapping[str, str], interpreter: InstalledPython, platform: Platform
) -> dict[str, set[str]]:
    by_name = {package.name: package for package in packages}
    edges: dict[str, set[str]] = {package.reference: set() for package in packages}
    environment = _environment(interpreter.version, platform)
    extras: dict[str, frozenset[str]] = dict.fromkeys(by_name, frozenset())
    open_ = list(by_name)
    while open_:
        name = open_.pop()
        package = by_name[name]
        for needed, asked in _requirements(package.needs, extras[name], environment):
            if needed not in there:
                continue
            if there[needed] != package.reference:
                edges[package.reference].add(there[needed])
            if needed in by_name and not asked <= extras[needed]:
                # What it needs with these extras is found in another round.
                extras[needed] |= asked
                open_.append(needed)
    return edges


def _requirements(
    lines: str, extras: frozenset[str], environment: Mapping[str, str]
) -> list[tuple[str, frozenset[str]]]:
    """Names and extras of the lines that hold."""
    requirements: list[tuple[str, frozenset[str]]] = []
    for line in lines.splitlines():
        if not extras and " or " not in line and _EXTRA.search(line):
            continue  # Most lines of most packages: not worth a parser's time.
        try:
            requirement = packaging_requirements.Requirement(line)
            holds = requirement.marker is None or any(
                requirement.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
            )
        except (packaging_requirements.InvalidRequirement, ValueError, KeyError, RecursionError):
            continue
        if holds:
            asked: frozenset[str] = frozenset(map(packaging_utils.canonicalize_name, requirement.extras))
            requirements.append((packaging_utils.canonicalize_name(requirement.name), asked))
    return requirements


def _environment(version: str, platform: Platform) -> dict[str, str]:
    """The markers' variables (PEP 508) of an image; those of a kernel are empty."""
    full = version if version.count(".") > 1 else f"{version}.0" if version else "3.0.0"
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(full.split(".")[:2]),
        "sys_platform": "linux",
    }


def _names(entries: Sequence[str]) -> list[str]:
    """The names that begin entries: ``libc6 (>= 2.36)``, ``python3:any``, ``numpy >=1.2``."""
    return [match[1] for entry in entries if (match := _NAME.match(entry))]
