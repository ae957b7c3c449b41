"""Source distributions: unpacked without a risk, and what they say of how they are built (PEP 517, 518)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from isal import igzip, isal_zlib
from packaging.requirements import InvalidRequirement, Requirement

from envbuild.compose.sandbox.run import read_regular
from envbuild.errors import BuildError
from envbuild.oci.digest import CHUNK

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENTRIES_LIMIT = 200_000
SIZE_LIMIT = 4 << 30
"""Bytes that a source distribution may unpack to."""
_PYPROJECT_LIMIT = 4 << 20
_REQUIRES_LIMIT = 200
_BACKEND = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?", re.ASCII)
_TIME = 315_532_800
"""1980-01-01, the oldest time of a zip archive: what is unpacked has no time of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSystem:
    """Who builds a source tree. ``path`` are directories of the tree where the backend itself lies."""

    requires: tuple[str, ...] = ("setuptools>=40.8.0",)
    backend: str = "setuptools.build_meta:__legacy__"
    """What PEP 517 says of a tree that doesn't say."""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _SdistMember:
    path: str
    kind: str
    """``file``, ``directory``, ``symlink`` or ``hardlink``."""
    executable: bool = False
    target: str = ""
    handle: Any = None


def unpack_sdist(
    archive: Path,
    file: str,
    directory: Path,
    *,
    entries_limit: int = ENTRIES_LIMIT,
    size_limit: int = SIZE_LIMIT,
) -> Path:
    """Unpacks the source distribution ``archive``, called ``file``, below the empty ``directory`` and returns
    its one top directory.

    Modes are 0755 and 0644, all times the same. Links are made last, so that nothing is written through one,
    and only those that stay in the tree. Raises ``BuildError`` for all that is no plain tree of files."""
    top: str | None = None
    links: list[_SdistMember] = []
    left, count = size_limit, 0
    try:
        with _opened(archive, file) as source:
            for member in source.members():
                count += 1
                parts = _parts(member.path, file)
                if count > entries_limit:
                    raise BuildError(f"{file}: more than {entries_limit} entries")
                if not parts:
                    continue
                top = top or parts[0]
                if parts[0] != top:
                    raise BuildError(f"{file}: {member.path!r} is outside its directory {top}")
                path = directory.joinpath(*parts)
                if member.kind == "directory":
                    _directory(path, file)
                elif member.kind == "file":
                    _directory(path.parent, file)
                    left = _file(source, member, path, left, file)
                else:
                    links.append(member)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BuildError(f"{file}: not a whole source distribution: {error}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BuildError(f"{file}: can't be unpacked: {reason}") from error
    if top is None or not (directory / top).is_dir():
        raise BuildError(f"{file}: it has no directory")
    for link in links:
        left = _link(directory, top, link, left, file)
    for root, _, names in os.walk(directory):
        for name in names:
            os.utime(Path(root, name), (_TIME, _TIME), follow_symlinks=False)
        os.utime(root, (_TIME, _TIME))
    return directory / top


def load_build_system(tree: Path, file: str) -> BuildSystem:
    """What the ``pyproject.toml`` of the unpacked ``tree`` says. Raises ``BuildError``."""
    text = _pyproject(tree / "pyproject.toml", file)
    if text is None:
        return BuildSystem()
    try:
        table = tomllib.loads(text).get("build-system")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BuildError(f"{file}: its pyproject.toml can't be read: {error}") from error
    if table is None:
        return BuildSystem()
    requires = table.get("requires") if isinstance(table, dict) else None
    if not isinstance(requires, list):
        raise BuildError(f"{file}: its pyproject.toml has a [build-system] without requires")
    backend = table.get("build-backend", BuildSystem().backend)
    path = table.get("backend-path", [])
    if not isinstance(backend, str) or not _BACKEND.fullmatch(backend):
        raise BuildError(f"{file}: {backend!r} isn't the name of a build backend")
    if not isinstance(path, list) or not all(_inside(directory) for directory in path):
        raise BuildError(f"{file}: its backend-path leads out of it")
    return BuildSystem(requires=build_requirements(requires, file), backend=backend, path=tuple(path))


def build_requirements(stated: object, file: str) -> tuple[str, ...]:
    """Requirements as a build backend states them, each in its normal form, sorted.

    They come from a stranger and go into a requirements file: only what is a name with versions passes, no
    option, address or variable. Raises ``BuildError``."""
    if not isinstance(stated, list) or len(stated) > _REQUIRES_LIMIT:
        raise BuildError(f"{file}: its build requirements can't be read")
    requirements = set()
    for item in stated:
        try:
            requirement = Requirement(item)
        except (InvalidRequirement, TypeError) as error:
            raise BuildError(f"{file}: {item!r} isn't a build requirement") from error
        text = str(requirement)
        if requirement.url is not None or re.search(r"[$\n\r#\\]|--", text):
            raise BuildError(
                f"{file}: its build requirement {item!r} can't be pinned: only names with versions can"
            )
        requirements.add(text)
    return tuple(sorted(requirements))


def _pyproject(path: Path, file: str) -> str | None:
    try:
        data = read_regular(path, _PYPROJECT_LIMIT)
        return None if data is None else data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise BuildError(f"{file}: its pyproject.toml can't be read") from error


def _inside(path: object) -> bool:
    return (
        isinstance(path, str)
        and bool(path)
        and not path.startswith("/")
        and "\0" not in path
        and ".." not in PurePosixPath(path).parts
    )


# --- archives -----------------------------------------------------------------------------------------


class _TarMembers:
    def __init__(self, archive: tarfile.TarFile, file: str) -> None:
        self._archive = archive
        self._file = file

    def members(self) -> Iterator[_SdistMember]:
        for info in self._archive:
            if info.isdir():
                kind = "directory"
            elif info.isreg():
                kind = "file"
            elif info.issym() or info.islnk():
                kind = "symlink" if info.issym() else "hardlink"
            else:
                raise BuildError(f"{self._file}: {info.name!r} is no file, directory or link")
            yield _SdistMember(
                path=info.name,
                kind=kind,
                executable=info.mode & 0o111 != 0,
                target=info.linkname,
                handle=info,
            )

    def content(self, member: _SdistMember) -> IO[bytes]:
        stream = self._archive.extractfile(member.handle)
        assert stream is not None
        return stream


class _ZipMembers:
    def __init__(self, archive: zipfile.ZipFile, file: str) -> None:
        self._archive = archive
        self._file = file

    def members(self) -> Iterator[_SdistMember]:
        for info in self._archive.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BuildError(f"{self._file}: {info.filename!r} is no file or directory")
            yield _SdistMember(
                path=info.filename,
                kind="directory" if info.is_dir() else "file",
                executable=mode & 0o111 != 0,
                handle=info,
            )

    def content(self, member: _SdistMember) -> IO[bytes]:
        return self._archive.open(member.handle)


@contextmanager
def _opened(archive: Path, file: str) -> Iterator[_TarMembers | _ZipMembers]:
    if file.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _ZipMembers(zipped, file)
        return
    try:
        # As a stream: nothing is sought, and nothing of what was read is kept.
        with (
            igzip.IGzipFile(archive, "rb") as stream,  # type: ignore[no-untyped-call]
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            yield _TarMembers(tar, file)
    except isal_zlib.error as error:  # type: ignore[misc]
        raise BuildError(f"{file}: not a whole source distribution: {error}") from error


def _parts(path: str, file: str) -> list[str]:
    if path.startswith("/") or "\0" in path or "\\" in path:
        raise BuildError(f"{file}: {path!r} leads out of it")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"{file}: {path!r} leads out of it")
    return parts


def _directory(path: Path, file: str) -> None:
    """Makes ``path``, which has no link in it, as links come last."""
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BuildError(f"{file}: {path.name!r} is a file and a directory") from error


def _file(source: _TarMembers | _ZipMembers, member: _SdistMember, path: Path, left: int, file: str) -> int:
    if path.is_dir():
        raise BuildError(f"{file}: {member.path!r} is a file and a directory")
    with source.content(member) as stream, path.open("wb") as sink:
        while chunk := stream.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise _too_large(file)
            sink.write(chunk)
    path.chmod(0o755 if member.executable else 0o644)
    return left


def _link(directory: Path, top: str, member: _SdistMember, left: int, file: str) -> int:
    path = "/".join(_parts(member.path, file))
    place = directory / path
    start = "" if member.kind == "hardlink" else os.path.dirname(path)  # noqa: PTH120 - of the archive
    target = os.path.normpath(os.path.join(start, member.target))  # noqa: PTH118 - of the archive
    if member.target.startswith("/") or "\0" in target or target.split("/")[0] != top:
        raise BuildError(f"{file}: the link {member.path!r} leads out of it")
    if not place.parent.resolve().is_relative_to((directory / top).resolve()):
        raise BuildError(f"{file}: the link {member.path!r} lies behind another link")
    _directory(place.parent, file)
    if place.is_symlink() or place.exists():
        raise BuildError(f"{file}: it holds {member.path!r} twice")
    if member.kind == "symlink":
        place.symlink_to(member.target)
        return left
    origin = directory / target
    if origin.is_symlink() or not origin.is_file():
        raise BuildError(f"{file}: the link {member.path!r} leads to nothing")
    if not origin.resolve().is_relative_to((directory / top).resolve()):
        raise BuildError(f"{file}: the link {member.path!r} leads out of it")
    left -= origin.stat().st_size
    if left < 0:
        raise _too_large(file)
    shutil.copyfile(origin, place)
    place.chmod(stat.S_IMODE(origin.stat().st_mode))
    return left


def _too_large(file: str) -> BuildError:
    return BuildError(f"{file}: it unpacks to more than a source distribution may have")
