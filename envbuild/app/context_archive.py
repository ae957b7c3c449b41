"""A build context as one archive, and back: how a workspace carries it from one machine to another."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from envbuild.errors import WorkspaceError
from envbuild.specs.context import read_context
from envbuild.specs.model import BuildContextSpec, Spec

DIRECTORY = "context"
"""Where the context of a registered version stands, beside its spec."""
_LARGEST = 1 << 30
"""Bytes that an archive may unpack to."""
_MOST = 100_000
"""Entries of an archive."""


def pack_context(spec: Spec) -> bytes:
    """The archive of the build context of ``spec``: equal contexts give equal bytes.

    Raises ``SpecError`` where it can't be read, ``WorkspaceError`` where it changed since the spec was.
    """
    base = spec.base
    assert isinstance(base, BuildContextSpec)
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="envbuild-") as scratch:
        contents = read_context(spec.directory / base.path, base.dockerfile_path, copies=Path(scratch))
        if contents.digest != base.digest:
            raise WorkspaceError(
                f"the build context of {spec.name} was changed while it was read", hint="run it again"
            )
        if sum(entry.size for entry in contents.entries) > _LARGEST:
            raise WorkspaceError(
                f"the build context of {spec.name} is larger than {_LARGEST >> 20} MiB, so it can't be kept",
                hint="leave out what the Dockerfile doesn't need (.dockerignore)",
            )
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for entry in contents.entries:
                member = tarfile.TarInfo(entry.path)
                member.mode = entry.mode
                if entry.directory:
                    member.type = tarfile.DIRTYPE
                elif entry.target is not None:
                    member.type, member.linkname = tarfile.SYMTYPE, entry.target
                if member.isreg():
                    member.size = entry.size
                    with (Path(scratch) / entry.sha256).open("rb") as file:
                        archive.addfile(member, file)
                else:
                    archive.addfile(member)
    return zlib.compress(packed.getvalue(), 6)


def unpack_context(archive: bytes, directory: Path) -> None:
    """Writes what an archive holds below ``directory``, which is made, and nowhere else.

    Links come last, so that nothing is ever written through one. Raises ``WorkspaceError``.
    """
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(archive, _LARGEST + (1 << 28))
        if inflater.unconsumed_tail:
            raise WorkspaceError("a build context of the workspace is larger than any")
        directory.mkdir(parents=True)
        links = []
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as opened:
            for number, member in enumerate(opened):
                path = directory / _inner(member.name)
                if number >= _MOST:
                    raise WorkspaceError("a build context of the workspace has more files than any")
                if member.issym():
                    links.append((path, member.linkname))
                elif member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                elif member.isreg():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = opened.extractfile(member)
                    assert content is not None
                    with path.open("xb") as file:
                        file.write(content.read())
                    path.chmod(0o755 if member.mode & 0o100 else 0o644)
                else:
                    raise WorkspaceError(f"a build context of the workspace holds {member.name!r}, no file")
        for path, target in links:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
    except (zlib.error, tarfile.TarError, OSError, ValueError) as error:
        raise WorkspaceError(f"a build context of the workspace can't be unpacked: {error}") from error


def _inner(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise WorkspaceError(f"a build context of the workspace holds the path {name!r}")
    return path
