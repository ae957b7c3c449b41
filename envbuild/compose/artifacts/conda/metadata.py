"""What a conda package says about its own files: ``info/paths.json`` and its older forms.

Sources: conda's package specification and CEP 17/20; ``info/files``, ``info/has_prefix`` and
``info/no_link`` for packages made before ``paths.json``.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from envbuild.compose.artifacts.conda.archive import UnpackedPackage, normal_path, refusal
from envbuild.compose.base import EntryKind
from envbuild.errors import BuildError

_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What a ``has_prefix`` line without a placeholder means."""
_ENTRY_POINT = re.compile(r"\s*([^\s=/]+)\s*=\s*([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagePath:
    """One file to link. ``placeholder`` is None where no prefix is in it; ``mode`` is text or binary."""

    path: str
    kind: EntryKind
    sha256: str | None = None
    size: int | None = None
    placeholder: str | None = None
    mode: str = "text"
    no_link: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryPoint:
    """``command = module:function`` of a ``noarch: python`` package."""

    command: str
    module: str
    function: str


def read_index(package: UnpackedPackage) -> dict[str, Any]:
    """``info/index.json``."""
    return _mapping(package, "info/index.json", required=True)


def read_paths(package: UnpackedPackage) -> tuple[PackagePath, ...]:
    """The files to link, sorted by path; all of them are there, with the sizes and hashes stated.

    Raises ``BuildError`` with all that isn't so."""
    document = _mapping(package, "info/paths.json")
    paths = _read_paths_json(package, document) if document else _read_files_list(package)
    problems = []
    for stated in paths:
        member = package.members.get(stated.path)
        if member is None:
            if stated.kind is not EntryKind.DIRECTORY:
                problems.append(f"{stated.path} is stated but not there")
            continue
        if member.kind is not stated.kind:
            problems.append(f"{stated.path} is stated as {stated.kind.value} but is a {member.kind.value}")
        elif member.kind is EntryKind.FILE:
            if stated.size is not None and member.size != stated.size:
                problems.append(f"{stated.path} has {member.size} bytes, not {stated.size}")
            elif stated.sha256 is not None and member.sha256 != stated.sha256:
                problems.append(f"{stated.path} has SHA-256 {member.sha256}, not {stated.sha256}")
    seen: set[str] = set()
    for stated in paths:
        if stated.path in seen:
            problems.append(f"{stated.path} is stated twice")
        seen.add(stated.path)
    if problems:
        raise BuildError(
            f"{package.label}: not what its metadata says: " + "; ".join(problems[:20]),
            hint="the package is damaged; choose another build",
        )
    return tuple(sorted(paths, key=lambda stated: stated.path))


def read_entry_points(package: UnpackedPackage) -> tuple[EntryPoint, ...]:
    """The entry points of a ``noarch: python`` package (``info/link.json``), in its order."""
    noarch = _mapping(package, "info/link.json").get("noarch") or {}
    stated = noarch.get("entry_points") if isinstance(noarch, dict) else None
    points = []
    for text in stated or ():
        match = _ENTRY_POINT.fullmatch(str(text).partition("[")[0])
        if match is None:
            raise refusal(package.label, f"entry point {text!r}")
        command, module, function = match.groups()
        normal_path(command, package.label)
        points.append(EntryPoint(command=command, module=module, function=function))
    return tuple(points)


def _read_paths_json(package: UnpackedPackage, document: dict[str, Any]) -> list[PackagePath]:
    if document.get("paths_version") != 1 or not isinstance(document.get("paths"), list):
        raise BuildError(f"{package.label}: info/paths.json is not of version 1")
    paths = []
    for record in document["paths"]:
        kind = {
            "hardlink": EntryKind.FILE,
            "softlink": EntryKind.SYMLINK,
            "directory": EntryKind.DIRECTORY,
        }.get(str(record.get("path_type")) if isinstance(record, dict) else "")
        if kind is None or not isinstance(record.get("_path"), str):
            raise BuildError(
                f"{package.label}: info/paths.json has an entry that isn't a path: {record!r:.200}"
            )
        placeholder, mode = record.get("prefix_placeholder") or None, record.get("file_mode") or "text"
        if mode not in ("text", "binary") or not isinstance(placeholder, str | None):
            raise BuildError(f"{package.label}: info/paths.json: {record['_path']} has no known file mode")
        sha256, size = record.get("sha256"), record.get("size_in_bytes")
        paths.append(
            PackagePath(
                path=normal_path(record["_path"], package.label),
                kind=kind,
                sha256=sha256.lower() if isinstance(sha256, str) else None,
                size=size if isinstance(size, int) else None,
                placeholder=placeholder,
                mode=mode,
                no_link=bool(record.get("no_link", False)),
            )
        )
    return paths


def _read_files_list(package: UnpackedPackage) -> list[PackagePath]:
    prefixed = _has_prefix(package)
    no_link = {normal_path(line, package.label) for line in _lines(package, "info/no_link")}
    paths = []
    for line in _lines(package, "info/files"):
        path = normal_path(line, package.label)
        member = package.members.get(path)
        placeholder, mode = prefixed.get(path, (None, "text"))
        paths.append(
            PackagePath(
                path=path,
                kind=member.kind if member else EntryKind.FILE,
                placeholder=placeholder,
                mode=mode,
                no_link=path in no_link,
            )
        )
    return paths


def _has_prefix(package: UnpackedPackage) -> dict[str, tuple[str | None, str]]:
    placeholders: dict[str, tuple[str | None, str]] = {}
    for line in _lines(package, "info/has_prefix"):
        parts = [part.strip("\"'") for part in shlex.split(line, posix=False)]
        if len(parts) == 1:
            placeholders[parts[0]] = (_OLD_PLACEHOLDER, "text")
        elif len(parts) == 3 and parts[1] in ("text", "binary"):
            placeholders[parts[2]] = (parts[0], parts[1])
        else:
            raise BuildError(f"{package.label}: info/has_prefix has a line that isn't one: {line!r:.200}")
    return placeholders


def _lines(package: UnpackedPackage, path: str) -> list[str]:
    try:
        text = (package.metadata(path) or b"").decode()
    except UnicodeDecodeError as error:
        raise BuildError(f"{package.label}: {path} is not UTF-8") from error
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


def _mapping(package: UnpackedPackage, path: str, *, required: bool = False) -> dict[str, Any]:
    data = package.metadata(path)
    if data is None:
        if required:
            raise BuildError(f"{package.label}: no {path} in the archive")
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{package.label}: {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BuildError(f"{package.label}: {path} is not a JSON object")
    return document
