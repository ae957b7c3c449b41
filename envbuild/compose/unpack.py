"""Layers of an image unpacked into a directory, by the owner of that directory, root or not."""

# An image has tens of thousands of entries; plain strings spare most of the time that paths would cost.
# ruff: noqa: PTH101, PTH102, PTH108
# ruff: noqa: PTH112, PTH114, PTH115, PTH208, PTH211

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.errors import BuildError, FetchError
from envbuild.oci.digest import CHUNK
from envbuild.oci.layer import open_layer

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_LINKS = 40
"""Symbolic links followed in one path, as the kernel has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackLimits:
    """What an image may unpack to; more is taken for an attack."""

    entries: int = 3_000_000
    size: int = 256 << 30
    """Bytes of all files together."""


def unpack_layers(
    layers: Sequence[tuple[Path, str]], directory: Path, *, limits: UnpackLimits | None = None
) -> None:
    """Unpacks layers, lowest first, into the empty ``directory``: pairs of a blob's file and media type.

    Whiteouts are obeyed (OCI image-spec, layer). Nothing outside of ``directory`` is ever read, written
    or linked to, whatever the layers say: links are followed within it as a chroot would. All files
    belong to the caller and can be read by them; set-user-id bits, devices, pipes and sockets are left
    out. Times are those of the archive. Raises ``BuildError`` for an archive that is damaged,
    unsafe or beyond ``limits``.
    """
    tree = _UnpackedTree(root=os.path.realpath(directory), limits=limits or UnpackLimits())
    for blob, media_type in layers:
        tree.begin_layer()
        try:
            with open_layer(blob, media_type) as archive:
                for member in archive:
                    # The archive would remember every member for its whole life.
                    archive.members = []  # type: ignore[attr-defined]
                    tree.add(member, archive)
        except FetchError as error:
            raise BuildError(error.message, hint=error.hint) from error
        except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
            raise BuildError(f"the layer {blob.name} is damaged: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise BuildError(f"the layer {blob.name} is damaged: {error}") from error
    tree.finish()


@dataclass(kw_only=True, slots=True)
class _UnpackedTree:
    """The directory while layers go into it. All paths are absolute and free of links but the last part."""

    root: str
    limits: UnpackLimits
    entries: int = 0
    size: int = 0
    written: set[str] = field(default_factory=set)
    """What this layer put there, with all directories above: whiteouts don't touch it."""
    parents: dict[str, str] = field(default_factory=dict)
    """Directory as named by the archive to where it really is; cleared whenever something is removed."""
    modes: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Mode and time of directories, given at the end: one without write permission must still be filled."""

    def begin_layer(self) -> None:
        self.written.clear()

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise BuildError(f"the image has more than {self.limits.entries} entries")
        name = _normal(member.name)
        if name == ".":
            if member.isdir():
                self.modes[self.root] = (member.mode, member.mtime)
            return
        parent, _, base = name.rpartition("/")
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, base)
            return
        path = posixpath.join(self._directory(parent), base)
        if member.isdir():
            self._add_directory(path, member)
        elif member.isreg():
            self._add_file(path, member, archive)
        elif member.issym():
            self._clear(path)
            os.symlink(member.linkname, path)
        elif member.islnk():
            self._add_link(path, member)
        else:
            return  # A device, pipe or socket: nothing that a run of ours could use.
        while path not in self.written and len(path) > len(self.root):
            self.written.add(path)
            path = posixpath.dirname(path)

    def finish(self) -> None:
        for path, (mode, mtime) in sorted(self.modes.items(), reverse=True):
            if not os.path.islink(path) and os.path.isdir(path):
                os.chmod(path, stat.S_IMODE(mode) & 0o1777 | 0o700)
                os.utime(path, (mtime, mtime))

    def _add_directory(self, path: str, member: tarfile.TarInfo) -> None:
        if not _is_directory(path):
            self._clear(path)
            os.mkdir(path, 0o755)
        self.modes[path] = (member.mode, member.mtime)

    def _add_file(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self.size += member.size
        if self.size > self.limits.size:
            raise BuildError(f"the image's files have more than {self.limits.size} bytes")
        source = archive.extractfile(member)
        if source is None:
            raise BuildError(f"{member.name}: no content in the archive")
        self._clear(path)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as sink:
            left = member.size
            while left:
                piece = source.read(min(left, CHUNK))
                if not piece:
                    raise BuildError(f"{member.name}: the archive ends within the file")
                left -= len(piece)
                view = memoryview(piece)
                while view:
                    view = view[sink.write(view) :]
            os.fchmod(handle, member.mode & 0o777 | 0o400)
            os.utime(handle, (member.mtime, member.mtime))

    def _add_link(self, path: str, member: tarfile.TarInfo) -> None:
        target = _normal(member.linkname)
        parent, _, base = target.rpartition("/")
        source = posixpath.join(self._directory(parent), base)
        try:
            mode = os.lstat(source).st_mode
        except FileNotFoundError:
            raise BuildError(f"{member.name}: links to {member.linkname}, which isn't there") from None
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise BuildError(f"{member.name}: links to {member.linkname}, which is no file")
        if source != path:
            self._clear(path)
            os.link(source, path, follow_symlinks=False)

    def _whiteout(self, parent: str, base: str) -> None:
        directory = self._resolve(parent, create=False)
        if directory is None:
            return
        if base == _OPAQUE:
            self._remove_lower(directory)
            return
        victim = base.removeprefix(_WHITEOUT)
        if victim in ("", ".", ".."):
            raise BuildError(f"a whiteout of {victim!r} in {parent or '/'}")
        path = posixpath.join(directory, victim)
        if path not in self.written:
            self._clear(path)
        elif _is_directory(path):
            self._remove_lower(path)

    def _remove_lower(self, directory: str) -> None:
        """Removes what lower layers put below ``directory``, and leaves what this one did."""
        for name in os.listdir(directory):
            path = posixpath.join(directory, name)
            if path not in self.written:
                self._clear(path)
            elif _is_directory(path):
                self._remove_lower(path)

    def _clear(self, path: str) -> None:
        """Removes what is at ``path``, if anything."""
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
            self.parents.clear()
        else:
            os.unlink(path)
            if stat.S_ISLNK(mode):
                self.parents.clear()

    def _directory(self, name: str) -> str:
        """Where the archive's directory ``name`` is, links followed within the root; made if need be."""
        known = self.parents.get(name)
        if known is None:
            known = self.parents[name] = self._resolve(name, create=True) or self.root
        return known

    def _resolve(self, name: str, *, create: bool) -> str | None:
        """Walks ``name`` part by part. None where a part isn't there (or is no directory), unless it may
        be made."""
        here = self.root
        todo = [part for part in reversed(name.split("/")) if part]
        followed = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                here = here if here == self.root else posixpath.dirname(here)
                continue
            path = posixpath.join(here, part)
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                mode = 0
            if stat.S_ISLNK(mode):
                followed += 1
                if followed > _LINKS:
                    raise BuildError(f"{name}: too many symbolic links")
                target = os.readlink(path)
                if target.startswith("/"):
                    here = self.root
                todo.extend(filter(None, reversed(target.split("/"))))
                continue
            if not stat.S_ISDIR(mode):
                if not create:
                    return None
                self._clear(path)
                os.mkdir(path, 0o755)
            here = path
        return here


def _normal(name: str) -> str:
    """A member's name without leading slashes, ``.`` and empty parts; ``.`` for the root itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"an entry of the image leaves it: {name!r}")
    return "/".join(parts) or "."


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
