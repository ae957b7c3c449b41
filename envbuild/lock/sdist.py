"""Wheels that are built from source distributions: their pins, and the one form each is brought into.

A backend's wheel holds times, modes and an order that differ from one build to the next. What is locked is
its *canonical form*: entries sorted, the ``.dist-info`` directory last; every time 1980-01-01; modes 0644 and
0755; nothing compressed, as compressors differ between machines; no byte code; RECORD made anew. Equal
content gives equal bytes on every machine.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import stat
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, Sdist
from envbuild.oci.digest import CHUNK

ENTRIES_LIMIT = 200_000
SIZE_LIMIT = 4 << 30
"""Bytes that a wheel may unpack to."""
_SMALL = 1 << 20
_TIME = (1980, 1, 1, 0, 0, 0)
_FILE = re.compile(r"[A-Za-z0-9_.+!-]+\.whl")
_REQUIRED = re.compile(r"([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)==([A-Za-z0-9.!+]+) --hash=sha256:([0-9a-f]{64})")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")


class ImpureWheel(BuildError):
    """The wheel isn't pure Python: it is made for one platform or one interpreter's binary interface."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanonicalWheel:
    """A wheel file in the canonical form."""

    file: str
    size: int
    sha256: str


def source_pin(pin: PipPin) -> PipPin:
    """The pin of the sdist that ``pin`` is built from; ``pin`` itself where it isn't built."""
    if pin.sdist is None:
        return pin
    return replace(pin, file=pin.sdist.file, size=pin.sdist.size, sha256=pin.sdist.sha256, sdist=None)


def built_pin(source: PipPin, wheel: CanonicalWheel, requires: Iterable[PipPin], *, size: int) -> PipPin:
    """The pin of ``wheel``, built from the sdist ``source`` of ``size`` bytes with ``requires``."""
    return replace(
        source,
        file=wheel.file,
        size=wheel.size,
        sha256=wheel.sha256,
        sdist=Sdist(
            file=source.file, size=size, sha256=source.sha256, requires=dump_build_requires(requires)
        ),
    )


def dump_build_requires(pins: Iterable[PipPin]) -> tuple[str, ...]:
    """``name==version --hash=sha256:<hex>`` of each, sorted."""
    return tuple(sorted(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}" for pin in pins))


def load_build_requires(requires: Sequence[str]) -> tuple[PipPin, ...]:
    """The pins that :func:`dump_build_requires` wrote; without file names and sizes, which aren't kept.

    Raises ``BuildError`` for anything else, as these lines are given to an installer."""
    pins = []
    for require in requires:
        match = _REQUIRED.fullmatch(require)
        if match is None:
            raise BuildError(
                f"{require!r} isn't a pinned build requirement", hint="lock again: envbuild lock"
            )
        pins.append(
            PipPin(name=match[1], version=match[2], file=f"{match[1]}-{match[2]}", size=0, sha256=match[3])
        )
    return tuple(pins)


def canonical_wheel(
    source: Path,
    file: str,
    target: Path,
    *,
    name: str,
    version: str,
    entries_limit: int = ENTRIES_LIMIT,
    size_limit: int = SIZE_LIMIT,
) -> CanonicalWheel:
    """Writes the wheel ``source``, which its maker calls ``file``, to ``target`` in the canonical form.

    Nothing is held in memory but one chunk. Raises ``BuildError``: not a wheel of ``name`` ``version``, not
    pure Python (``ImpureWheel``), names that lead out of a prefix, more than the limits."""
    _check_file(file, name, version)
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) > entries_limit:
                raise BuildError(f"{file}: more than {entries_limit} entries")
            kept = _kept_members(file, members)
            info = _info(file, kept, name, version)
            _check_tags(file, _read_member(archive, kept, f"{info}/WHEEL", file))
            _check_identity(file, _read_member(archive, kept, f"{info}/METADATA", file), name, version)
            _write(archive, kept, info, target, _Budget(file, size_limit))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        raise BuildError(f"{file}: not a whole wheel: {error}") from error
    digest, size = hashlib.sha256(), 0
    with target.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return CanonicalWheel(file=file, size=size, sha256=digest.hexdigest())


def _check_file(file: str, name: str, version: str) -> None:
    try:
        own, number, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename as error:
        raise BuildError(f"{file!r} isn't the name of a wheel") from error
    if not _FILE.fullmatch(file) or own != canonicalize_name(name) or not _same_version(str(number), version):
        raise BuildError(f"{file!r} isn't the name of a wheel of {name} {version}")
    if any(tag.abi != "none" or tag.platform != "any" for tag in tags):
        raise ImpureWheel(f"{file} is not pure Python")


def _same_version(version: str, other: str) -> bool:
    try:
        return Version(version) == Version(other)
    except InvalidVersion:
        return version == other


def _kept_members(file: str, members: Iterable[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Path to entry, of those that stay. Raises ``BuildError`` for paths that aren't safe."""
    kept: dict[str, zipfile.ZipInfo] = {}
    directories: set[str] = set()
    for member in members:
        path = member.filename
        parts = path.rstrip("/").split("/")
        if not path or _UNSAFE.search(path) or any(part in ("", ".", "..") for part in parts):
            raise BuildError(f"{file}: it holds {path!r}, which is no path of a wheel")
        if member.is_dir() or path.endswith(".pyc"):
            continue
        if member.flag_bits & 1 or stat.S_ISLNK(member.external_attr >> 16):
            raise BuildError(f"{file}: {path!r} is encrypted or a link")
        if path in kept:
            raise BuildError(f"{file}: it holds {path!r} twice")
        kept[path] = member
        directories.update(str(parent) for parent in PurePosixPath(path).parents)
    both = sorted(directories & set(kept))
    if both:
        raise BuildError(f"{file}: {both[0]!r} is a file and a directory")
    return kept


def _info(file: str, kept: Iterable[str], name: str, version: str) -> str:
    """The one ``.dist-info`` directory."""
    directories = {path.split("/", 1)[0] for path in kept if path.split("/", 1)[0].endswith(".dist-info")}
    if len(directories) == 1:
        (info,) = directories
        stem, _, number = info.removesuffix(".dist-info").partition("-")
        if canonicalize_name(stem) == canonicalize_name(name) and _same_version(number, version):
            return info
    raise BuildError(f"{file}: it has no .dist-info directory of {name} {version}, or more than one")


def _read_member(archive: zipfile.ZipFile, kept: dict[str, zipfile.ZipInfo], path: str, file: str) -> str:
    member = kept.get(path)
    if member is None or member.file_size > _SMALL:
        raise BuildError(f"{file}: it has no {path} of a usual size")
    with archive.open(member) as stream:
        return stream.read(_SMALL).decode("utf-8", "replace")


def _fields(text: str) -> list[tuple[str, str]]:
    """The header fields before the first empty line."""
    head = text.replace("\r\n", "\n").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in head.split("\n") if not line.startswith((" ", "\t")))
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def _check_tags(file: str, text: str) -> None:
    fields = _fields(text)
    tags = [value for key, value in fields if key == "tag"]
    pure = [value.lower() for key, value in fields if key == "root-is-purelib"] == ["true"]
    if not pure or not tags or any(not tag.endswith("-none-any") for tag in tags):
        raise ImpureWheel(f"{file} is not pure Python")


def _check_identity(file: str, text: str, name: str, version: str) -> None:
    fields = dict(reversed(_fields(text)))
    if canonicalize_name(fields.get("name", "")) != canonicalize_name(name) or not _same_version(
        fields.get("version", ""), version
    ):
        raise BuildError(
            f"{file}: its METADATA is of {fields.get('name')} {fields.get('version')}, not {name} {version}"
        )


class _Budget:
    """Bytes that may still be written, whatever the archive's own fields say."""

    def __init__(self, file: str, left: int) -> None:
        self._file = file
        self._left = left

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise BuildError(f"{self._file}: it unpacks to more than a wheel may have")


def _write(
    archive: zipfile.ZipFile, kept: dict[str, zipfile.ZipInfo], info: str, target: Path, budget: _Budget
) -> None:
    made_anew = {f"{info}/RECORD", f"{info}/RECORD.jws", f"{info}/RECORD.p7s"}
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for path in sorted(set(kept) - made_anew, key=lambda path: (path.startswith(f"{info}/"), path)):
            member = kept[path]
            executable = (member.external_attr >> 16) & 0o111 != 0
            entry = _entry(path, executable=executable)
            # What the header says of sizes must be known before the first byte, or it would say "later".
            entry.file_size = member.file_size
            digest, size = hashlib.sha256(), 0
            with archive.open(member) as stream, out.open(entry, "w") as sink:
                while chunk := stream.read(CHUNK):
                    budget.take(len(chunk))
                    digest.update(chunk)
                    size += len(chunk)
                    sink.write(chunk)
            encoded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
            rows.append((path, f"sha256={encoded}", str(size)))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*sorted(rows), (f"{info}/RECORD", "", "")])
        out.writestr(_entry(f"{info}/RECORD", executable=False), text.getvalue().encode())


def _entry(path: str, *, executable: bool) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, _TIME)
    entry.create_system = 3
    entry.compress_type = zipfile.ZIP_STORED
    entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return entry
