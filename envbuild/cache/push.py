"""Segments go to the repository in which machines share them."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.cache.manifest import EMPTY, dump_manifest, empty_descriptor, parse_manifest, tag_of
from envbuild.cache.watchdog import Heartbeat, work_through
from envbuild.errors import EnvbuildError, FetchError
from envbuild.oci.manifest import OCI_MANIFEST
from envbuild.oci.reference import Reference
from envbuild.registry.base import RefusedError, Remote
from envbuild.store.content import Store
from envbuild.store.segments import Segment, SegmentCache

STRIKES = 3
"""Requests that fail before a repository is asked nothing more."""
WORKERS = 8
_PASSES = 3
_RACES = (400, 404)
"""What a registry may answer while another machine is writing the same blob: it is written in steps."""


@dataclass
class Standing:
    """What this process has seen of a repository."""

    strikes: int = 0
    noted: bool = False
    taken: int = 0
    has: set[str] = field(default_factory=set)
    """Keys of segments that are there and sound."""
    unsound: set[str] = field(default_factory=set)
    """Keys of those that are there and not sound."""


@dataclass(kw_only=True)
class SegmentPush:
    """One push of segments to ``writer``. ``store`` is the one that ``remote`` takes blobs from."""

    remote: Remote
    writer: Reference
    standing: Standing
    mounts: Callable[[str], Sequence[Reference]]
    """Repositories of the same registry that have the segment of a key."""
    store: Store
    cache: SegmentCache
    pulse: Heartbeat
    patience: float
    sent: list[int] = field(default_factory=list)
    """Sizes of the segments that were not there, in bytes."""
    errors: list[EnvbuildError | OSError] = field(default_factory=list)
    """Why some are missing; empty where the registry fell silent."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _empty: bool = False

    def run(self, segments: Sequence[Segment], advance: Callable[[], None]) -> bool:
        """Whether the repository has all of ``segments`` now. ``advance`` is called once for each of them."""
        todo = list(segments)
        for _ in range(_PASSES):
            # Machines that write the same ones at once share the work that way, and seldom meet.
            random.shuffle(todo)
            self.errors.clear()
            patient = work_through(
                todo,
                lambda segment: self._one(segment, advance),
                workers=WORKERS,
                pulse=self.pulse,
                patience=self.patience,
            )
            todo = [segment for segment in todo if segment.key not in self.standing.has]
            if not todo or not patient or not all(map(_is_race, self.errors)):
                break
        return not todo

    def _one(self, segment: Segment, advance: Callable[[], None]) -> None:
        if sum(not _is_race(error) for error in self.errors) >= STRIKES:
            return
        try:
            size = segment.size if self._share(segment) else None
        except (EnvbuildError, OSError) as error:
            self.errors.append(error)
            return
        with self._lock:
            self.standing.has.add(segment.key)
            self.sent.extend([] if size is None else [size])
        advance()

    def _share(self, segment: Segment) -> bool:
        """Whether it had to be written. One under the same tag that says something else is replaced."""
        if segment.key not in self.standing.unsound:
            present = self.remote.find_manifest(self.writer, tag_of(segment.key))
            self.pulse.beat()
            if present is not None and _says(present.content, segment):
                return False
        sha = hashlib.sha256()
        for member, _ in self.cache.members(segment):
            sha.update(member)
            self.pulse.beat()
        digest = f"sha256:{sha.hexdigest()}"
        self._push_empty()
        manifest = dump_manifest(segment, digest)
        blob = parse_manifest(manifest, segment.key).blob
        if blob is not None:
            self.remote.push_blobs(
                self.writer,
                [blob],
                mount_from=self.mounts(segment.key),
                fetch=lambda _: link_file(self.cache.data(segment.key), self.store.blob(digest)),
            )
        self.remote.push_manifest(self.writer, manifest, OCI_MANIFEST, tag_of(segment.key))
        return True

    def _push_empty(self) -> None:
        """Makes the repository have the blob that is every segment's config."""
        with self._lock:
            if not self._empty:
                self.store.add_blob(EMPTY)
                self.remote.push_blobs(self.writer, [empty_descriptor()])
                self._empty = True


def link_file(source: Path, target: Path) -> None:
    """Makes ``target`` the same file as ``source``, or a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:
        shutil.copyfile(source, target)


def _is_race(error: EnvbuildError | OSError) -> bool:
    return isinstance(error, RefusedError) and error.status in _RACES


def _says(content: bytes, segment: Segment) -> bool:
    """Whether a manifest says what ours would, without our having to hash the bytes."""
    try:
        shared = parse_manifest(content, segment.key)
    except FetchError:
        return False
    return (shared.members, shared.directories) == (segment.members, segment.directories)
