"""What the store takes up, and what may go.

Images are kept or not by their last use; whatever no kept image needs and no live lease names may go. While
builds work, nothing goes that was written or marked as used after the oldest of them began; runs and services
that go on after their build hold only what they name. Unpacked trees that no lease names always go, since
they are made again from blobs or packages, and so does what dead processes left behind.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from envbuild.errors import BuildError
from envbuild.store.content import Store, blob_name
from envbuild.store.images import ImageIndex, StoredImage
from envbuild.store.layers import LayerCache
from envbuild.store.leases import InUse, in_use
from envbuild.store.locks import discard, leftovers, sweep
from envbuild.store.names import NamedImage, Names

_AREAS = ("blobs", "images", "segments", "artifacts", "rootfs", "layers", "names", "metadata", "scratch")
_TREES = "rootfs"


@dataclass(frozen=True, kw_only=True, slots=True)
class AreaUsage:
    """One area of the store: how many files, and bytes on disk."""

    area: str
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneReport:
    """What went, or would go: sorted names below the store's root, their files and bytes; bytes left."""

    removed: tuple[str, ...]
    images: tuple[str, ...]
    """Manifest digests of the images that went."""
    files: int
    bytes: int
    left: int

    @property
    def trees(self) -> tuple[str, ...]:
        """The unpacked root file systems among ``removed``."""
        return tuple(name for name in self.removed if name.startswith(f"{_TREES}/"))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """Something that is removed as a whole: its name as leases know it, its files, bytes, last use."""

    name: str
    paths: tuple[Path, ...]
    files: int
    size: int
    used: float
    tree: bool = False
    """Whether it is a directory that is used as a whole, and named before it is looked for."""


def usage(store: Store) -> tuple[AreaUsage, ...]:
    """What each area holds. Changes nothing."""
    areas = []
    for name in _AREAS:
        sizes = [_disk_size(path) for path in _files(store.root / name)]
        areas.append(AreaUsage(area=name, files=len(sizes), bytes=sum(sizes)))
    return tuple(areas)


def prune(
    store: Store,
    *,
    clock: Callable[[], float] = time.time,
    keep_last: int | None = None,
    max_age: timedelta | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """Removes what may go and says what it was.

    Without a limit: blobs that no image needs, unpacked trees that nothing runs, and what dead processes left
    in ``scratch``. These go with a limit as well. ``keep_last`` keeps that many images, the most recently
    used, and the caches they were made with; ``max_age`` lets images and caches go that were not used for
    longer; ``max_bytes`` lets caches go, then images, the least recently used first, until the store is no
    larger.
    """
    seconds = None if max_age is None else max_age.total_seconds()
    with in_use(store) as busy:
        report = _Pruning(store, busy, clock, dry_run).run(keep_last, seconds, max_bytes)
    # What was discarded is large: no build has to wait while it goes.
    if not dry_run:
        sweep(store.root / "scratch")
    return report


class _Pruning:
    def __init__(self, store: Store, busy: InUse, clock: Callable[[], float], dry_run: bool) -> None:
        self.store = store
        self.busy = busy
        self.now = clock()
        self.dry_run = dry_run
        self.index = ImageIndex(store, clock)
        self.names = Names(store, clock)
        self.removed: list[str] = []
        self.images: list[str] = []
        self.files = 0
        self.freed = 0

    def run(self, keep_last: int | None, max_age: float | None, max_size: int | None) -> PruneReport:
        for path in leftovers(self.store.root / "scratch"):
            self._count(_item(f"scratch/{path.name}", path))
        kept: list[StoredImage] = []
        for place, stored in enumerate(self.index.entries()):
            old = max_age is not None and self.now - stored.used > max_age
            surplus = keep_last is not None and place >= keep_last
            if (old or surplus) and self._forget(stored):
                continue
            kept.append(stored)
        blobs = {item.name: item for item in self._blobs()}
        caches = {item.name: item for item in self._caches()}
        for name in sorted(blobs.keys() - self._needed(kept)):
            if self._remove(blobs[name]):
                del blobs[name]
        self._forget_layers(frozenset(blobs))
        wanted = {name for stored in kept for name in stored.uses}
        for name, item in sorted(caches.items()):
            stale = max_age is not None and self.now - item.used > max_age
            surplus = keep_last is not None and name not in wanted
            if (item.tree or stale or surplus) and self._remove(item):
                del caches[name]
        if max_size is not None:
            self._shrink(max_size, kept, blobs, caches)
        self._forget_names(kept)
        left = sum(item.size for item in (*blobs.values(), *caches.values()))
        return PruneReport(
            removed=tuple(sorted(self.removed)),
            images=tuple(sorted(self.images)),
            files=self.files,
            bytes=self.freed,
            left=left,
        )

    def _shrink(
        self, limit: int, kept: list[StoredImage], blobs: dict[str, _Item], caches: dict[str, _Item]
    ) -> None:
        left = sum(item.size for item in (*blobs.values(), *caches.values()))
        for item in sorted(caches.values(), key=lambda item: (item.used, item.name)):
            if left <= limit:
                return
            if self._remove(item):
                left -= item.size
                del caches[item.name]
        while kept and left > limit:
            stored = kept.pop()
            if not self._forget(stored):
                continue
            for name in sorted(set(blobs) - self._needed(kept)):
                if self._remove(blobs[name]):
                    left -= blobs[name].size
                    del blobs[name]

    def _needed(self, kept: list[StoredImage]) -> set[str]:
        """The blobs of the images that are kept, and of what is named and consists of such images."""
        images = {blob_name(digest) for stored in kept for digest in stored.image.blobs}
        named = (entry for entry in self.names.entries() if _is_whole(entry, kept))
        return images | {blob_name(digest) for image in named for digest in (image.digest, *image.others)}

    def _forget_names(self, kept: list[StoredImage]) -> None:
        """Removes the names of images that went; they are too small to be counted. A name that a running
        build gave may be of an image that wasn't there when this began."""
        for named in self.names.entries():
            new = self.busy.since is not None and _changed(self.names.path(named.name)) >= self.busy.since
            if not _is_whole(named, kept) and not new and not self.dry_run:
                self.names.drop(named.name)

    def _forget(self, stored: StoredImage) -> bool:
        path = self.index.path(stored.key)
        item = _Item(
            name=f"images/{stored.key}", paths=(path,), files=1, size=_disk_size(path), used=stored.used
        )
        if not self._remove(item):
            return False
        self.images.append(stored.image.digest)
        return True

    def _forget_layers(self, blobs: frozenset[str]) -> None:
        """Removes records of layers whose blob is gone; they are too small to be counted."""
        cache = LayerCache(self.store)
        for path in _files(self.store.root / "layers"):
            layer = cache.get(path.stem)
            if (layer is None or blob_name(layer.digest) not in blobs) and not self.dry_run:
                path.unlink(missing_ok=True)

    def _remove(self, item: _Item) -> bool:
        if item.name in self.busy.names:
            return False
        since = self.busy.since
        if since is not None and not item.tree and any(_changed(path) >= since for path in item.paths):
            return False
        if not self.dry_run and not self._take_away(item):
            return False
        self._count(item)
        return True

    def _take_away(self, item: _Item) -> bool:
        """Whether the item is gone. A tree goes in one step: a prune that is killed leaves no half of it."""
        for path in item.paths:
            if item.tree:
                try:
                    discard(path, self.store.directory("scratch"))
                except (OSError, BuildError):
                    return False
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        return True

    def _count(self, item: _Item) -> None:
        self.removed.append(item.name)
        self.files += item.files
        self.freed += item.size

    def _blobs(self) -> Iterator[_Item]:
        for path in _files(self.store.root / "blobs" / "sha256"):
            yield _item(f"blobs/sha256/{path.name}", path)

    def _caches(self) -> Iterator[_Item]:
        root = self.store.root
        for key in sorted({path.stem for path in _files(root / "segments")}):
            # The record comes first: without it, what is left is nothing.
            paths = tuple(
                path for end in ("json", "tar") if (path := root / "segments" / f"{key}.{end}").exists()
            )
            yield _item(f"segments/{key}", *paths)
        for path in _files(root / "artifacts"):
            yield _item(f"artifacts/{path.name}", path)
        trees = root / _TREES
        for path in sorted(trees.iterdir()) if trees.is_dir() else ():
            yield _item(f"{_TREES}/{path.name}", path, tree=True)


def _is_whole(named: NamedImage, kept: list[StoredImage]) -> bool:
    there = {stored.image.digest for stored in kept}
    return there.issuperset(named.images)


def _item(name: str, *paths: Path, tree: bool = False) -> _Item:
    files = [file for path in paths for file in _files(path)]
    return _Item(
        name=name,
        paths=paths,
        files=len(files),
        size=sum(map(_disk_size, files)),
        used=max(map(_changed, paths), default=0.0),
        tree=tree,
    )


def _files(path: Path) -> list[Path]:
    """Every file below ``path`` (or itself), sorted; no symlink is followed."""
    if path.is_symlink() or path.is_file():
        return [path]
    paths: list[Path] = []
    for directory, _, names in os.walk(path):
        paths.extend(Path(directory, name) for name in names)
    return sorted(paths)


def _disk_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
