"""Reads what uv resolved (PEP 751) into values."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.pylock import (
    PackageArchive,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockUnsupportedVersionError,
    PylockValidationError,
)

from envbuild.errors import ResolveError
from envbuild.lock.model import PipPin
from envbuild.lock.pip.choice import Candidate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HEAD = 'lock-version = "1.0"\ncreated-by = "envbuild"\npackages = []\n'


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """One version that was chosen and the files there are of it. ``direct``: asked for by its address."""

    name: str
    version: str
    files: tuple[Candidate, ...]
    direct: bool = False


def load_pylock(text: str) -> tuple[Resolved, ...]:
    """The packages of a ``pylock.toml``, in its order. Raises ``ResolveError`` for what can't be pinned by
    a hash (a directory, a repository) and for text that isn't of the format."""
    try:
        pylock = Pylock.from_dict(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, PylockValidationError, PylockUnsupportedVersionError) as error:
        raise ResolveError(
            f"uv's answer can't be read: {error}", hint="update uv or envbuild: they don't fit each other"
        ) from error
    resolved, unpinnable = [], []
    for package in pylock.packages:
        if package.vcs is not None or package.directory is not None or package.version is None:
            unpinnable.append(str(package.name))
            continue
        if package.archive is not None:
            files = [_candidate(package.archive)]
        else:
            offered: list[PackageWheel | PackageSdist] = [*(package.wheels or ())]
            if package.sdist is not None:
                offered.append(package.sdist)
            files = [_candidate(file) for file in offered]
        resolved.append(
            Resolved(
                name=str(package.name),
                version=str(package.version),
                files=tuple(file for file in files if file is not None),
                direct=package.archive is not None,
            )
        )
    if unpinnable:
        raise ResolveError(
            f"{', '.join(unpinnable)}: a repository or a directory has no hash that could be pinned",
            hint="build a wheel of it and give its address: 'name @ https://…/name-1.0-py3-none-any.whl'",
        )
    return tuple(resolved)


def dump_preferences(pins: Iterable[PipPin]) -> str:
    """A ``pylock.toml`` that tells uv which versions to prefer."""
    lines = ['lock-version = "1.0"', 'created-by = "envbuild"']
    rows = [f'\n[[packages]]\nname = "{pin.name}"\nversion = "{pin.version}"' for pin in pins if not pin.url]
    return "\n".join(lines + rows) + "\n" if rows else _HEAD


def _candidate(file: PackageArchive | PackageWheel | PackageSdist) -> Candidate | None:
    sha256 = file.hashes.get("sha256")
    if sha256 is None:
        return None
    url = file.url or (Path(file.path).as_uri() if file.path else None)
    name = getattr(file, "name", None) or (unquote(urlsplit(url).path).rsplit("/", 1)[-1] if url else "")
    size = file.size
    if size is None and url is not None and url.startswith("file:"):
        path = Path(unquote(urlsplit(url).path))
        size = path.stat().st_size if path.is_file() else None
    return Candidate(file=name, sha256=sha256, size=size, url=url)
