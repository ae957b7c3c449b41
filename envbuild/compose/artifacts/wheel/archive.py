"""A wheel unpacked here: for those that pip installs and uv doesn't.

uv refuses directories among scripts, an ``entry_points.txt`` that begins with a byte order mark, commands
with a slash and names with characters that don't show. The wheel's file, whose hash was checked, is then
spread as the specification of binary distributions says, into a tree of the form that uv leaves.
"""

from __future__ import annotations

import csv
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name

from envbuild.compose.artifacts.wheel.tree import SHEBANG, path_in_prefix
from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, PythonPin
from envbuild.oci.digest import CHUNK

_SCRIPT = b"#!python"
"""What the first line of a script begins with whose interpreter the installer fills in."""


def unpack_wheel(archive: Path, pin: PipPin, python: PythonPin, prefix: Path) -> None:
    """Spreads ``archive``, the wheel of ``pin``, below ``prefix`` and writes a RECORD of what is there.

    Raises ``BuildError`` for one that isn't whole or has a path outside of the prefix."""
    site = f"lib/python{python.short}/site-packages"
    try:
        with zipfile.ZipFile(archive) as wheel:
            info = _info_directory(wheel, pin)
            paths = set()
            for member in wheel.infolist():
                if member.is_dir():
                    continue
                path = _installed_path(pin, site, python, member.filename, info)
                paths.add(path)
                _write(wheel, member, prefix / path, script=path.startswith("bin/"))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BuildError(
            f"{pin.file}: it is no whole wheel: {error}", hint=f"pin another version of {pin.name}"
        ) from error
    except OSError as error:
        raise BuildError(f"{pin.file}: it can't be unpacked: {error.strerror}") from error
    record = f"{site}/{info}/RECORD"
    with (prefix / record).open("w", encoding="utf-8", newline="") as file:
        rows = ([relative, "", ""] for relative in _relative_paths({*paths, record}, site))
        csv.writer(file, lineterminator="\n").writerows(rows)


def _info_directory(wheel: zipfile.ZipFile, pin: PipPin) -> str:
    tops = {name.partition("/")[0] for name in wheel.namelist() if "/" in name}
    infos = [
        top
        for top in sorted(tops)
        if top.endswith(".dist-info")
        and canonicalize_name(top.removesuffix(".dist-info").rsplit("-", 1)[0]) == pin.name
    ]
    if len(infos) != 1:
        raise BuildError(
            f"{pin.file}: it has {len(infos)} .dist-info directories of {pin.name} instead of one",
            hint=f"the wheel is broken: pin another version of {pin.name}",
        )
    return infos[0]


def _installed_path(pin: PipPin, site: str, python: PythonPin, name: str, info: str) -> str:
    """Where the member ``name`` goes, relative to the prefix."""
    stem = info.removesuffix(".dist-info")
    top, _, rest = name.partition("/")
    if top != f"{stem}.data":
        return path_in_prefix(pin, site, name)
    scheme, _, rest = rest.partition("/")
    places = {
        "purelib": site,
        "platlib": site,
        "scripts": "bin",
        "headers": f"include/site/python{python.short}/{pin.name}",
        "data": "",
    }
    if scheme not in places or not rest:
        raise BuildError(
            f"{pin.file}: {name!r} is of no kind of data that wheels have",
            hint=f"the wheel is broken: pin another version of {pin.name}",
        )
    place = places[scheme]
    return path_in_prefix(pin, "", f"{place}/{rest}" if place else rest)


def _write(wheel: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, *, script: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with wheel.open(member) as source, target.open("wb") as file:
        if script:
            first = source.readline(CHUNK)
            file.write(SHEBANG.encode() + b"\n" if first.startswith(_SCRIPT) else first)
        shutil.copyfileobj(source, file, CHUNK)
    executable = script or bool(member.external_attr >> 16 & 0o111)
    target.chmod(0o755 if executable else 0o644)


def _relative_paths(paths: set[str], site: str) -> Iterator[str]:
    for path in sorted(paths):
        yield path[len(site) + 1 :] if path.startswith(f"{site}/") else f"../../../{path}"
