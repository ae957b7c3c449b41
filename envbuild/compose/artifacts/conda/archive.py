"""Unpacks a conda package (``.conda`` or ``.tar.bz2``) into scratch space, in constant memory, safely.

Whatever the archive says, nothing is written outside the scratch directory: members are stored under
numbers, and their names are only looked at. Small files go one behind another into one file.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from envbuild.compose.base import EntryKind
from envbuild.errors import BuildError
from envbuild.lock.conda.listing import refuse_damaged, stream
from envbuild.oci.digest import CHUNK

SMALL = 64 << 10
"""Bytes up to which a file's content is given as bytes."""
_ALLOWANCE = 1 << 30
_RATIO = 100
"""An archive may unpack to ``_ALLOWANCE`` bytes and ``_RATIO`` times its size; more is taken for a bomb."""
_INFO_LIMIT = 64 << 20
"""Bytes of one metadata file that is read into memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageMember:
    """One path of an archive. ``store`` holds the content from ``offset`` on, ``size`` bytes of it."""

    kind: EntryKind
    executable: bool = False
    size: int = 0
    sha256: str = ""
    store: Path = Path()
    offset: int = 0
    target: str = ""

    def content(self) -> bytes | Path:
        """Bytes of a small file; the path of a file with just this content, else."""
        return self.read() if self.size <= SMALL else self.store

    def read(self) -> bytes:
        with self.store.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackedPackage:
    """An archive's members by path."""

    label: str
    members: dict[str, PackageMember]

    def metadata(self, path: str) -> bytes | None:
        """The bytes of a small file below ``info/``; None where there is none."""
        member = self.members.get(path)
        if member is None or member.kind is not EntryKind.FILE:
            return None
        if member.size > _INFO_LIMIT:
            raise BuildError(f"{self.label}: {path} has {member.size} bytes")
        return member.read()


def unpack(archive: Path, file_name: str, scratch: Path, label: str) -> UnpackedPackage:
    """All members of ``archive``, whose format ``file_name`` tells. ``label`` names it for people.

    Raises ``BuildError``: damaged, a name or a symlink that leaves the package, one path twice, a
    device, or more bytes than an archive of its size may hold.
    """
    limit = _ALLOWANCE + _RATIO * archive.stat().st_size
    members: dict[str, PackageMember] = {}
    store = scratch / "small"
    with refuse_damaged(label), archive.open("rb") as raw, store.open("wb") as small:
        for tar, info in stream(raw, file_name, limit, label):
            path = normal_path(info.name, label)
            if not path:
                continue
            if path in members:
                if info.isdir() and members[path].kind is EntryKind.DIRECTORY:
                    continue
                raise BuildError(f"{label}: the path {path} is there twice")
            members[path] = _member(tar, info, members, small, store, scratch / str(len(members)), label)
    _check_tree(members, label)
    return UnpackedPackage(label=label, members=members)


def refusal(label: str, why: str) -> BuildError:
    """The error of a package that no honest tool makes. ``label`` names the package."""
    return BuildError(
        f"{label}: refused: {why}", hint="don't use this package: choose another build, and tell its channel"
    )


def normal_path(name: str, label: str) -> str:
    """``name`` without ``./``; empty for the root. Raises ``BuildError`` for one that isn't safe."""
    if name.startswith("/") or "\0" in name:
        raise refusal(label, f"the path {name!r} is absolute or has a NUL")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refusal(label, f"the path {name!r} leaves the prefix")
    if any(part.startswith(".wh.") for part in parts):
        raise refusal(label, f"the path {name!r} would delete a file of an image")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise refusal(label, f"the path {name!r} is not UTF-8") from error
    return "/".join(parts)


def _member(
    tar: tarfile.TarFile,
    info: tarfile.TarInfo,
    members: dict[str, PackageMember],
    small: BinaryIO,
    store: Path,
    own: Path,
    label: str,
) -> PackageMember:
    if info.isdir():
        return PackageMember(kind=EntryKind.DIRECTORY)
    if info.issym():
        return PackageMember(kind=EntryKind.SYMLINK, target=info.linkname)
    if info.islnk():
        linked = members.get(normal_path(info.linkname, label))
        if linked is None or linked.kind is not EntryKind.FILE:
            raise refusal(label, f"{info.name} is a hard link to {info.linkname!r}")
        return linked
    if not info.isreg():
        raise refusal(label, f"{info.name} is a device, a pipe or unknown")
    reader = tar.extractfile(info)
    if reader is None:
        raise BuildError(f"{label}: {info.name} has no content")
    executable = bool(info.mode & 0o111)
    if info.size <= SMALL:
        offset = small.tell()
        data = _exactly(reader, info)
        small.write(data)
        # Readers of small members open the file anew, and metadata is read as soon as all is unpacked.
        return PackageMember(
            kind=EntryKind.FILE,
            executable=executable,
            size=info.size,
            sha256=hashlib.sha256(data).hexdigest(),
            store=store,
            offset=offset,
        )
    digest, left = hashlib.sha256(), info.size
    with own.open("wb") as file:
        while left:
            chunk = reader.read(min(CHUNK, left))
            if not chunk:
                raise EOFError(f"{info.name} is cut short")
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
    return PackageMember(
        kind=EntryKind.FILE, executable=executable, size=info.size, sha256=digest.hexdigest(), store=own
    )


def _exactly(reader: IO[bytes], info: tarfile.TarInfo) -> bytes:
    data = reader.read()
    if len(data) != info.size:
        raise EOFError(f"{info.name} is cut short")
    return data


def _check_tree(members: dict[str, PackageMember], label: str) -> None:
    """No file below a file or a symlink, and no symlink that leads out of the prefix."""
    for path, member in members.items():
        parent = path.rpartition("/")[0]
        while parent:
            above = members.get(parent)
            if above is not None and above.kind is not EntryKind.DIRECTORY:
                raise refusal(label, f"{path} lies below the {above.kind.value} {parent}")
            parent = parent.rpartition("/")[0]
        if member.kind is EntryKind.SYMLINK:
            check_symlink(path, members, label)


def check_symlink(path: str, members: dict[str, PackageMember], label: str) -> None:
    """Raises ``BuildError`` for a symlink that leads out of the prefix, itself or through another."""
    here = path.split("/")[:-1]
    todo = members[path].target.split("/")
    if not members[path].target or members[path].target.startswith("/"):
        raise refusal(label, f"the symlink {path} leads to {members[path].target!r}")
    for _ in range(1000):
        if not todo:
            return
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                break
            here.pop()
            continue
        here.append(part)
        other = members.get("/".join(here))
        if other is not None and other.kind is EntryKind.SYMLINK:
            if other.target.startswith("/"):
                break
            here.pop()
            todo = other.target.split("/") + todo
    raise refusal(label, f"the symlink {path} to {members[path].target!r} leaves the prefix")
