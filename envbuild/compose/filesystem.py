"""The merged file system of an image: who owns each path, which paths go through links, whose directories.

A layer must never write through a symlinked directory of another layer or of its own: an entry
``lib/x`` over ``lib -> usr/lib`` would replace the link in some engines and follow it in others. So every
path is resolved through all symlinks of the image before it is written.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envbuild.errors import BuildError
from envbuild.store.segments import DirectoryRow, Segment

DIRECTORY_MODE = 0o755
MAX_LINKS = 40
"""As the kernel's own limit on symlinks in one path."""

USRMERGE = tuple(
    (name, f"usr/{name}") for name in ("bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin")
)
"""The directory symlinks of every merged-/usr Debian system (Debian Policy §10.1)."""


@dataclass(frozen=True, kw_only=True)
class BaseTree:
    """What an image is composed onto, as far as it matters. Paths have no leading slash."""

    directories: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Every directory: mode, uid, gid."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Every symbolic link and its target as written."""
    prefix: tuple[str, ...] = ()
    """The first paths of what lies in the prefix, wherever links lead it, directories aside."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """A segment in plan order, with a name for people. ``decides`` lets its directories win over others."""

    name: str
    segment: Segment
    decides: bool = False


@dataclass(frozen=True, kw_only=True)
class PathClash:
    """One path that two artifacts own; indices of their contributions, ``first`` in plan order."""

    path: str
    first: int
    second: int


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What must be settled before layers are written, and the table of directories."""

    through: Mapping[int, frozenset[tuple[str, str]]]
    """Contribution to the symlinks its paths go through: it must be made anew with them resolved."""
    clashes: tuple[PathClash, ...]
    blocked: tuple[PathClash, ...]
    """A path that is a file of ``first`` and a directory of ``second``."""
    directories: Mapping[str, tuple[int, int, int]]
    """Mode, uid, gid of each directory that isn't 0755 root."""


def resolve(path: str, links: Mapping[str, str], *, whole: bool = False) -> str:
    """``path`` with every parent that is a symlink followed; with ``whole``, the last part too.

    A target that climbs above the root ends at the root, as in a running container. Raises
    ``BuildError`` for a loop.
    """
    todo = path.split("/")[::-1]
    done: list[str] = []
    followed = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if done:
                done.pop()
            continue
        done.append(part)
        here = "/".join(done)
        if here in links and (todo or whole):
            followed += 1
            if followed > MAX_LINKS:
                raise BuildError(
                    f"{path}: too many symbolic links", hint="the links of the image make a loop"
                )
            target = links[here]
            done = [] if target.startswith("/") else done[:-1]
            todo.extend(target.split("/")[::-1])
    return "/".join(done)


def parents(path: str) -> Iterable[str]:
    """The directories above ``path``, nearest first, without the root."""
    at = path.rfind("/")
    while at > 0:
        path = path[:at]
        yield path
        at = path.rfind("/")


def merge_contributions(contributions: Sequence[Contribution], base: BaseTree) -> MergeResult:
    """Looks at every path of the image once. ``contributions`` are in the order of the plan."""
    holders: dict[str, int] = {}
    clashes: list[PathClash] = []
    for index, contribution in enumerate(contributions):
        for path, _ in contribution.segment.paths:
            first = holders.setdefault(path, index)
            if first != index:
                clashes.append(PathClash(path=path, first=first, second=index))
    links = {path: target for path, target in base.links.items() if path not in holders}
    for contribution in reversed(contributions):
        links.update(contribution.segment.links)
    through: dict[int, set[tuple[str, str]]] = {}
    blocked: dict[tuple[str, int], PathClash] = {}
    seen: dict[str, tuple[str | None, str | None]] = {}
    for index, contribution in enumerate(contributions):
        directories = {posixpath.dirname(path) for path, _ in contribution.segment.paths}
        directories.update(row[0] for row in contribution.segment.directories)
        for directory in directories:
            if directory not in seen:
                seen[directory] = _obstacle(directory, links, holders)
            link, file = seen[directory]
            if link is not None:
                through.setdefault(index, set()).add((link, links[link]))
            elif file is not None:
                blocked[file, index] = PathClash(path=file, first=holders[file], second=index)
    return MergeResult(
        through={index: frozenset(symlinks) for index, symlinks in through.items()},
        clashes=tuple(clashes),
        blocked=tuple(blocked[key] for key in sorted(blocked)),
        directories=_directory_table(contributions, base),
    )


def layer_directories(
    segments: Iterable[Segment], table: Mapping[str, tuple[int, int, int]]
) -> tuple[DirectoryRow, ...]:
    """Every directory above or stated by an entry of ``segments``, sorted, with its metadata."""
    stated: set[str] = set()
    above: set[str] = set()
    for segment in segments:
        stated.update(row[0] for row in segment.directories)
        for path in [*(row[0] for row in segment.directories), *(path for path, _ in segment.paths)]:
            for parent in parents(path):
                if parent in above:
                    break
                above.add(parent)
    return tuple((path, *table.get(path, (DIRECTORY_MODE, 0, 0))) for path in sorted(above | stated))


def _obstacle(
    directory: str, links: Mapping[str, str], holders: Mapping[str, int]
) -> tuple[str | None, str | None]:
    """The topmost symlink, or else the topmost file, on the way into ``directory``."""
    if not directory:
        return None, None
    for path in [*list(parents(directory))[::-1], directory]:
        if path in links:
            return path, None
        if path in holders:
            return None, path
    return None, None


def _directory_table(
    contributions: Sequence[Contribution], base: BaseTree
) -> dict[str, tuple[int, int, int]]:
    """The metadata of directories: what envbuild's own files decide, else the first artifact in plan order
    that says something else than 0755 root, else what the base says."""
    table = dict(base.directories)
    plain = (DIRECTORY_MODE, 0, 0)
    for contribution in reversed(contributions):
        table.update({row[0]: row[1:] for row in contribution.segment.directories if row[1:] != plain})
    for contribution in contributions:
        if contribution.decides:
            table.update({row[0]: row[1:] for row in contribution.segment.directories})
    return table
