"""What uv unpacked: which file belongs to which wheel, checked, and as entries of an image."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO

from packaging.utils import canonicalize_name

from envbuild.compose.base import Entry
from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, PythonPin
from envbuild.oci.digest import CHUNK
from envbuild.specs.model import PREFIX

INSTALLER = b"envbuild\n"
"""Who installed it (PEP 627). Scanners read METADATA and RECORD; ``pip uninstall`` works all the same."""
_SMALL = 64 << 10
"""Up to here a file's content is held as bytes."""
_RECORD_LIMIT = 64 << 20
_SITE = re.compile(r"lib(?:64)?/python3\.\d+/site-packages/")
_INCLUDE = re.compile(r"include/site/python3\.\d+/")
_INSTALLER_FILES = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"}
"""Files of a ``.dist-info`` that tell of an installation rather than of the wheel."""


class DamagedWheel(Exception):
    """The tree isn't what the wheel's RECORD says; unpacked anew it may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _WheelFile:
    """``path`` is relative to the prefix, for any python of the image; ``sha256`` as RECORD writes it."""

    path: str
    content: bytes | Path
    size: int
    sha256: str
    executable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledWheel:
    """The files of one wheel. ``raw`` are their paths in the tree, with those that are made anew."""

    info: str
    files: tuple[_WheelFile, ...]
    raw: frozenset[str]

    def entries(self, python: PythonPin) -> Iterator[Entry]:
        """Sorted by path. RECORD lists every file but byte code, as after ``pip install --no-compile``."""
        site = f"lib/python{python.short}/site-packages/"
        include = f"include/site/python{python.short}/"
        placed = []
        for file in self.files:
            path = _SITE.sub(site, file.path, count=1) if _SITE.match(file.path) else file.path
            path = _INCLUDE.sub(include, path, count=1) if _INCLUDE.match(path) else path
            placed.append((path, file))
        record = f"{site}{self.info}/RECORD"
        rows = [
            (_relative_to_site(path, site), f"sha256={file.sha256}", str(file.size)) for path, file in placed
        ]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted([*rows, (f"{self.info}/RECORD", "", "")]))
        root = str(PREFIX).lstrip("/")
        entries = [
            Entry(path=f"{root}/{path}", content=file.content, mode=0o755 if file.executable else 0o644)
            for path, file in placed
        ]
        entries.append(Entry(path=f"{root}/{record}", content=text.getvalue().encode()))
        yield from sorted(entries, key=lambda entry: entry.path)


class WheelTree:
    """A prefix that uv installed wheels into. ``shebang`` is the line it writes into their scripts."""

    def __init__(self, prefix: Path, *, shebang: str) -> None:
        self._prefix = prefix
        self._shebang = shebang

    @cached_property
    def _infos(self) -> dict[str, list[str]]:
        """Normalised name to the ``.dist-info`` directories of it, relative to the prefix."""
        infos: dict[str, list[str]] = {}
        for path in sorted(self._prefix.glob("lib*/python3.*/site-packages/*.dist-info")):
            name = canonicalize_name(path.name.removesuffix(".dist-info").rsplit("-", 1)[0])
            infos.setdefault(name, []).append(path.relative_to(self._prefix).as_posix())
        return infos

    def shared(self, pins: Sequence[PipPin]) -> set[str]:
        """The names of wheels that have a path in common with another one of the tree."""
        owner: dict[str, str] = {}
        shared = set()
        for pin in pins:
            for path in {path for path, _, _ in self._record(pin)}:
                first = owner.setdefault(path, pin.name)
                if first != pin.name:
                    shared |= {first, pin.name}
        return shared

    def claim(self, pin: PipPin, *, trusted: bool = False) -> InstalledWheel:
        """The wheel's files, each hashed. Raises ``DamagedWheel`` where one isn't there or isn't what RECORD
        says (unless ``trusted``: then what is there counts), ``BuildError`` where one isn't safe."""
        info = self._info(pin)
        rows = self._record(pin)
        scripts = entry_point_scripts(self._read(f"{info}/entry_points.txt"), pin.file)
        # uv leaves a script in RECORD in whose place it writes the command of an entry point.
        replaced = {f"{info.removesuffix('.dist-info')}.data/scripts/{name}" for name in scripts}
        files, raw = [], set()
        for path, digest, _ in rows:
            raw.add(path)
            if path.startswith(f"{info}/") and path[len(info) + 1 :] in _INSTALLER_FILES:
                continue
            if path.startswith("bin/") and path[4:] in scripts:
                continue
            file = self._read_wheel_file(pin, path)
            if file is None and path in replaced:
                continue
            if file is None:
                if trusted:
                    raise BuildError(f"{pin.file}: its RECORD lists {path}, which it doesn't have")
                raise DamagedWheel(f"{pin.file}: {path} is missing")
            if digest.startswith("sha256=") and digest[7:].rstrip("=") != file.sha256 and not trusted:
                raise DamagedWheel(f"{pin.file}: {path} has changed")
            files.append(self._restore_shebang(file))
        for name, text in scripts.items():
            files.append(_generated_file(f"bin/{name}", text, executable=True))
        files.append(_generated_file(f"{info}/INSTALLER", INSTALLER, executable=False))
        return InstalledWheel(
            info=info.rsplit("/", 1)[-1],
            files=tuple(files),
            raw=frozenset(raw),
        )

    def unclaimed(self, claims: Iterable[InstalledWheel]) -> list[str]:
        """Paths in the tree that none of ``claims`` lists, sorted."""
        known = {path for claim in claims for path in claim.raw} | {".lock"}
        paths = []
        for directory, names, files in os.walk(self._prefix):
            base = Path(directory).relative_to(self._prefix)
            links = [name for name in names if (Path(directory) / name).is_symlink()]
            paths += [path for name in [*files, *links] if (path := (base / name).as_posix()) not in known]
        return sorted(paths)

    def _info(self, pin: PipPin) -> str:
        infos = self._infos.get(pin.name, [])
        if len(infos) != 1:
            raise BuildError(
                f"{pin.file}: it has {len(infos)} .dist-info directories of {pin.name} instead of one",
                hint=f"the wheel is broken: pin another version of {pin.name}",
            )
        return infos[0]

    def _record(self, pin: PipPin) -> list[tuple[str, str, str]]:
        """RECORD's rows, paths relative to the prefix, none twice."""
        info = self._info(pin)
        site = info.rsplit("/", 1)[0]
        data = self._read(f"{info}/RECORD")
        if data is None:
            raise BuildError(f"{pin.file}: it has no RECORD", hint=f"pin another version of {pin.name}")
        rows: dict[str, tuple[str, str, str]] = {}
        try:
            for row in csv.reader(io.StringIO(data.decode())):
                if row:
                    path = path_in_prefix(pin, site, row[0])
                    rows[path] = (path, row[1] if len(row) > 1 else "", row[2] if len(row) > 2 else "")
        except (csv.Error, UnicodeDecodeError) as error:
            raise BuildError(f"{pin.file}: its RECORD can't be read: {error}") from error
        return [rows[path] for path in sorted(rows)]

    def _read(self, path: str) -> bytes | None:
        full = self._prefix / path
        try:
            status = full.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size > _RECORD_LIMIT:
            raise BuildError(f"{path} in a wheel is not a plain file of a sane size")
        return full.read_bytes()

    def _read_wheel_file(self, pin: PipPin, path: str) -> _WheelFile | None:
        full = self._prefix / path
        try:
            status = full.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BuildError(f"{pin.file}: {path}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise BuildError(
                f"{pin.file}: {path} is not a plain file; wheels have nothing else",
                hint="don't use this wheel; report it to its index",
            )
        content: bytes | Path = full
        sha = hashlib.sha256()
        if status.st_size <= _SMALL:
            content = full.read_bytes()
            sha.update(content)
        else:
            with full.open("rb", buffering=0) as stream:
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
        return _WheelFile(
            path=path,
            content=content,
            size=status.st_size,
            sha256=_encode_digest(sha.digest()),
            # uv keeps the wheel's execute bit, and the umask takes bits away from others before the owner.
            executable=bool(status.st_mode & stat.S_IXUSR),
        )

    def _restore_shebang(self, file: _WheelFile) -> _WheelFile:
        """A script with the image's interpreter where uv wrote this machine's."""
        if not file.path.startswith("bin/"):
            return file
        if isinstance(file.content, bytes):
            content = rewrite_shebang(file.content, self._shebang)
            if content == file.content:
                return file
            return _generated_file(file.path, content, executable=file.executable)
        with file.content.open("rb", buffering=0) as source:
            head = source.read(_SMALL)
            restored = rewrite_shebang(head, self._shebang)
            if restored == head:
                return file
            return self._write_script(file, restored, source)

    def _write_script(self, file: _WheelFile, head: bytes, rest: IO[bytes]) -> _WheelFile:
        """``file`` as ``head`` and ``rest``, in a file beside the tree, whose own may be uv's."""
        directory = self._prefix.with_name(f"{self._prefix.name}-scripts")
        directory.mkdir(exist_ok=True)
        sha, size, block = hashlib.sha256(), 0, head
        with tempfile.NamedTemporaryFile(dir=directory, delete=False) as target:
            while block:
                target.write(block)
                sha.update(block)
                size += len(block)
                block = rest.read(CHUNK)
        return replace(file, content=Path(target.name), size=size, sha256=_encode_digest(sha.digest()))


def _generated_file(path: str, content: bytes, *, executable: bool) -> _WheelFile:
    return _WheelFile(
        path=path,
        content=content,
        size=len(content),
        sha256=_encode_digest(hashlib.sha256(content).digest()),
        executable=executable,
    )


def _encode_digest(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _relative_to_site(path: str, site: str) -> str:
    return path[len(site) :] if path.startswith(site) else f"../../../{path}"


def path_in_prefix(pin: PipPin, site: str, text: str) -> str:
    """``text`` of a RECORD in ``site``, relative to the prefix. Raises ``BuildError`` if it leaves that, or
    is a name that no layer can hold (a whiteout's)."""
    parts = [] if text.startswith("/") or not site else site.split("/")
    for part in text.split("/"):
        if part == "..":
            if not parts:
                break
            parts.pop()
        elif part in ("", ".") or "\0" in part or part.startswith(".wh."):
            break
        else:
            parts.append(part)
    else:
        return "/".join(parts)
    raise BuildError(
        f"{pin.file}: it has {text!r}, which is not a path inside of the prefix",
        hint="don't use this wheel; report it to its index",
    )


SHEBANG = f"#!{PREFIX}/bin/python"
_OBJECT_REFERENCE = re.compile(r"(\w+(?:\.\w+)*)\s*:\s*(\w+(?:\.\w+)*)\s*(?:\[[^\]]*\])?\s*")
_SCRIPT_TEMPLATE = """{shebang}
# -*- coding: utf-8 -*-
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({attribute}())
"""


def entry_point_scripts(text: bytes | None, file: str) -> dict[str, bytes]:
    """Name to content of the commands that ``entry_points.txt`` asks for, sorted; none where there is no
    such file. Raises ``BuildError`` (with the wheel's ``file``) for what is no command or no safe name."""
    if text is None:
        return {}
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text.decode("utf-8-sig"))
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise BuildError(f"{file}: its entry_points.txt can't be read: {reason}") from error
    scripts = {}
    for section in ("console_scripts", "gui_scripts"):
        if not parser.has_section(section):
            continue
        for name, value in parser.items(section):
            match = _OBJECT_REFERENCE.fullmatch((value or "").strip())
            # A command may lie in a directory of its own.
            parts = name.split("/")
            if match is None or any(part in ("", ".", "..") or part.startswith(".wh.") for part in parts):
                raise BuildError(
                    f"{file}: its entry point {name!r} = {value!r} can't be made a command",
                    hint="the wheel is broken: pin another version",
                )
            module, attribute = match.groups()
            scripts[name] = _SCRIPT_TEMPLATE.format(
                shebang=SHEBANG, module=module, first=attribute.split(".")[0], attribute=attribute
            ).encode()
    return dict(sorted(scripts.items()))


def rewrite_shebang(content: bytes, installed: str) -> bytes:
    """``content`` with the image's interpreter where its first line is ``installed``, or is the form an
    installer writes when that line is too long for the kernel."""
    first, newline, rest = content.partition(b"\n")
    if first.rstrip(b"\r") == installed.encode():
        return SHEBANG.encode() + newline + rest
    executable = installed.removeprefix("#!")
    long = f"#!/bin/sh\n'''exec' '{executable}' \"$0\" \"$@\"\n' '''\n".encode()
    plain = long.replace(f"'{executable}'".encode(), executable.encode())
    for form in (long, plain):
        if content.startswith(form):
            return SHEBANG.encode() + b"\n" + content[len(form) :]
    return content
