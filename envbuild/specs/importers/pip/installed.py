"""Python distributions as they lie installed, and the exact requirements that stand for them.

What can't be had again by name and version, or by an address with its hash (PEP 610), is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envbuild.errors import SpecError
from envbuild.redact import redact
from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.requirement import Directories, canonical_requirement
from envbuild.specs.model import Origin, PipRequirement
from envbuild.specs.problems import Refused
from envbuild.specs.text.source import SourceFile

METADATA_LIMIT = 16 << 20
"""Bytes. A description may be long."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_RECORD = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-py[0-9.]+.*)?\.(?:dist|egg)-info")
_PYTHON = re.compile(r"python3\.[0-9]+t?")
_INSTALLERS = ("pip",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """One installed distribution. ``place`` is its directory of metadata, ``direct_url`` that file's text."""

    name: str
    version: str
    place: str
    installer: str = ""
    direct_url: str = ""


def exact_requirements(
    distributions: Iterable[Distribution],
) -> tuple[tuple[PipRequirement, ...], tuple[str, ...]]:
    """One pin for each distribution, sorted, and a line for each that none can stand for."""
    pins: dict[str, PipRequirement] = {}
    lines: list[str] = []
    for distribution in sorted(distributions, key=lambda one: (one.name, one.place)):
        shown = redact(f"{distribution.name} {distribution.version}")[:200]
        name = canonicalize_name(distribution.name)
        if name in _INSTALLERS:
            lines.append(f"{shown}: only installs packages")
            continue
        try:
            text, hashes = _pin(distribution, name)
        except Refused as refused:
            lines.append(f"{shown}: {refused.what}")
            continue
        if name in pins:
            lines.append(f"{shown} in {distribution.place}: hidden by {pins[name].text}")
            continue
        pins[name] = PipRequirement(text=text, hashes=hashes, origin=Origin(file=distribution.place))
        if "+" in distribution.version and " @ " not in text:
            lines.append(f"{shown}: which index it came from isn't known; name that index")
    return tuple(pins[name] for name in sorted(pins)), tuple(lines)


def _pin(distribution: Distribution, name: str) -> tuple[str, tuple[str, ...]]:
    if not _NAME.fullmatch(distribution.name):
        raise Refused("its name is none")
    nowhere = Directories(Path("/"), Path("/"))
    if distribution.direct_url:
        return canonical_requirement(f"{name} @ {_address(distribution.direct_url)}", nowhere)
    try:
        Version(distribution.version)
    except InvalidVersion as error:
        raise Refused("its version is none (PEP 440)") from error
    return canonical_requirement(f"{name}=={distribution.version}", nowhere)


def _address(text: str) -> str:
    """The address with its hash that a ``direct_url.json`` records (PEP 610)."""
    try:
        document = json.loads(text)
        url, archive = document["url"], document.get("archive_info")
        if not isinstance(url, str):
            raise TypeError("no text")
        scheme = urlsplit(url).scheme
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused("its direct_url.json can't be read") from error
    if isinstance(vcs := document.get("vcs_info"), dict):
        commit = vcs.get("commit_id")
        if vcs.get("vcs") == "git" and scheme in ("https", "http", "ssh") and isinstance(commit, str):
            return git_address(url, revision=commit, subdirectory=document.get("subdirectory"))
        raise Refused(f"built from {redact(url)[:200]} at {str(commit)[:64]}")
    if isinstance(directory := document.get("dir_info"), dict):
        kind = "an editable install" if directory.get("editable") is True else "built"
        raise Refused(f"{kind} from a directory of this machine")
    if scheme not in ("https", "http"):
        raise Refused("installed from a file of this machine")
    if not (sha256 := _archive_hash(archive)):
        raise Refused(f"installed from {redact(url)[:200]}, and no hash is recorded")
    return f"{url.partition('#')[0]}#sha256={sha256}"


def _archive_hash(archive: Any) -> str | None:
    if not isinstance(archive, dict):
        return None
    hashes = archive.get("hashes")
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
    if sha256 is None and str(archive.get("hash", "")).startswith("sha256="):
        sha256 = str(archive["hash"]).removeprefix("sha256=")
    return sha256.lower() if isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256) else None


def site_packages(prefix: SourceFile) -> tuple[SourceFile, ...]:
    """The directories below a prefix that packages are installed in, one for each python."""
    lib = inside(prefix, "lib")
    directories = (inside(lib, f"{name}/site-packages") for name in lib.names() if _PYTHON.fullmatch(name))
    return tuple(file for file in directories if file.path.is_dir())


def inside(directory: SourceFile, name: str) -> SourceFile:
    """The file ``name`` in a directory."""
    return SourceFile(directory.path / name, f"{directory.shown}/{name}", directory.reads)


def read_site(site: SourceFile, root: Path, left_out: list[str]) -> Iterator[Distribution]:
    """What is installed in one ``site-packages``; places are relative to ``root``."""
    for name in site.names():
        file = inside(site, name)
        place = file.relative_to(root)
        if name.endswith(".egg-link"):
            left_out.append(
                f"{name.removesuffix('.egg-link')}: an editable install from a directory of this machine"
            )
        elif name.endswith(".egg"):
            left_out.append(f"{name}: an egg, which no installer of today makes")
        elif name.endswith((".dist-info", ".egg-info")) and not name.startswith("~"):
            stated = _RECORD.fullmatch(name)
            fields = _metadata(file, name)
            distribution = fields.get("Name") or (stated["name"] if stated else "")
            version = fields.get("Version") or (stated["version"] if stated else "")
            if not distribution or not version:
                left_out.append(f"{place}: doesn't say what it is")
                continue
            yield Distribution(
                name=distribution,
                version=version,
                place=place,
                installer=_text(inside(file, "INSTALLER")).strip(),
                direct_url=_text(inside(file, "direct_url.json")),
            )


def _metadata(file: SourceFile, name: str) -> dict[str, str]:
    if name.endswith(".dist-info"):
        text = _text(inside(file, "METADATA"))
    else:
        text = _text(inside(file, "PKG-INFO") if file.path.is_dir() else file)
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(key, value.strip())
    return fields


def _text(file: SourceFile) -> str:
    """What the file says; nothing where it isn't there or can't be read: its name says enough then."""
    if not file.is_there():
        return ""
    try:
        return file.read(METADATA_LIMIT)
    except SpecError:
        return ""
