"""What layers hold, entry by entry, and what differs between two of them: streamed, and bounded."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import BuildError, FetchError
from envbuild.inspect.model import PathDifference
from envbuild.oci.digest import CHUNK
from envbuild.oci.image import Layer
from envbuild.oci.layer import open_layer
from envbuild.store.content import Store

_ENTRIES = 3_000_000
_CHARACTERS = 256 << 20
"""Of all paths of an image together."""
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Node:
    """One entry as far as it shows in a file system."""

    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: float
    content: bytes
    """SHA-256 of a file; where a link leads; the numbers of a device."""

    @property
    def is_directory(self) -> bool:
        return self.kind == tarfile.DIRTYPE

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic one."""
        return self.kind == tarfile.SYMTYPE


def layer_entries(layer: Layer, store: Store) -> dict[str, Node]:
    """All entries of a layer by their path, whiteouts as they are. Raises ``BuildError``."""
    bounds = _Bounds()
    return dict(_entries(store.blob(layer.digest), layer.media_type, bounds))


def merged(layers: Sequence[Layer], store: Store) -> dict[str, Node]:
    """What a container sees of ``layers``, lowest first, whiteouts obeyed. Raises ``BuildError``."""
    bounds, seen = _Bounds(), dict[str, Node]()
    for layer in layers:
        new, hidden, emptied = dict[str, Node](), set[str](), set[str]()
        for path, node in _entries(store.blob(layer.digest), layer.media_type, bounds):
            directory, _, name = path.rpartition("/")
            if name == _OPAQUE:
                emptied.add(directory)
            elif name.startswith(_WHITEOUT):
                hidden.add(posixpath.join(directory, name.removeprefix(_WHITEOUT)))
            elif path:
                new[path] = node
        # What isn't a directory any more has nothing below it.
        hidden |= {path for path, node in new.items() if path in seen and not node.is_directory}
        if hidden or emptied:
            seen = {
                path: node
                for path, node in seen.items()
                if path not in hidden and not _below(path, hidden) and not _below(path, emptied)
            }
        seen.update((path, _resolved(node, new, seen)) for path, node in new.items())
    return seen


def _resolved(node: Node, new: Mapping[str, Node], seen: Mapping[str, Node]) -> Node:
    """A hard link is the file that it leads to: which of several names is the first doesn't show."""
    for _ in range(8):
        if node.kind != tarfile.LNKTYPE:
            return node
        target = _normal(node.content.decode("utf-8", "surrogateescape"))
        further = new.get(target) or seen.get(target)
        if further is None or further is node:
            return node
        node = further
    return node


def differences(
    before: Mapping[str, Node],
    after: Mapping[str, Node],
    *,
    gone: str,
    new: str,
    times: bool,
    limit: int,
) -> tuple[tuple[PathDifference, ...], int]:
    """The first ``limit`` paths that differ, sorted, and how many more there are. ``gone`` and ``new`` are
    the words for what only one side has; ``times``: whether the times of files count."""
    differing = []
    for path in before.keys() | after.keys():
        reasons = _reasons(before.get(path), after.get(path), gone, new, times)
        if reasons:
            differing.append(PathDifference(path=path, reasons=reasons))
    differing.sort()
    return tuple(differing[:limit]), max(0, len(differing) - limit)


def _reasons(before: Node | None, after: Node | None, gone: str, new: str, times: bool) -> tuple[str, ...]:
    if before is None:
        return (new,)
    if after is None:
        return (gone,)
    if before == after:
        return ()
    if before.kind != after.kind:
        return ("kind",)
    linked = before.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
    reasons = {
        "link" if linked else "content": before.content != after.content,
        "mode": before.mode != after.mode,
        "owner": (before.uid, before.gid) != (after.uid, after.gid),
        "mtime": times and before.mtime != after.mtime,
    }
    return tuple(reason for reason, differs in reasons.items() if differs)


def _below(path: str, directories: Iterable[str]) -> bool:
    """Whether ``path`` lies somewhere below one of ``directories``."""
    if "" in directories:
        return True
    position = path.rfind("/")
    while position > 0:
        if path[:position] in directories:
            return True
        position = path.rfind("/", 0, position)
    return False


@dataclass(slots=True)
class _Bounds:
    entries: int = 0
    characters: int = 0

    def count(self, path: str) -> None:
        self.entries += 1
        self.characters += len(path)
        if self.entries > _ENTRIES or self.characters > _CHARACTERS:
            raise BuildError("the image has more entries than any")


def _entries(blob: Path, media_type: str, bounds: _Bounds) -> Iterator[tuple[str, Node]]:
    try:
        with open_layer(blob, media_type) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]
                bounds.count(member.name)
                yield _normal(member.name), _node(archive, member)
    except FetchError as error:
        raise BuildError(error.message, hint=error.hint) from error
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise BuildError(f"the layer sha256:{blob.name} can't be read: {error}") from error


def _node(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Node:
    kind = tarfile.REGTYPE if member.isreg() else member.type
    if member.issym() or member.islnk():
        content = member.linkname.encode("utf-8", "surrogateescape")
    elif member.isreg():
        content = _digest(archive, member)
    else:
        content = f"{member.devmajor}:{member.devminor}".encode() if member.isdev() else b""
    return Node(kind, member.mode & 0o7777, member.uid, member.gid, member.mtime, content)


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    digest = hashlib.sha256()
    file = archive.extractfile(member)
    if file is not None:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.digest()


def _normal(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")
