"""Compressed segments in registry repositories: a cache that machines share.

Whoever may write to such a repository decides what images hold that are composed from it. What comes is
checked for its form, so it can't break this machine or hide a path, but only ``envbuild verify``, which
composes from packages, finds out whether it is what the packages hold.

Nothing here fails a build: a repository that is away, refuses or sends rubbish is left out, and said so once.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.errors import EnvbuildError, FetchError, UsageError
from envbuild.progress import Progress
from envbuild.remote.base import Remote
from envbuild.remote.media import OCI_MANIFEST
from envbuild.remote.patience import Pulse, work_through
from envbuild.remote.reference import Reference
from envbuild.remote.segment_manifest import (
    EMPTY,
    SharedSegment,
    dump_manifest,
    empty_descriptor,
    parse_manifest,
    tag_of,
)
from envbuild.store.content import Store
from envbuild.store.segments import DirectoryRow, Segment, SegmentCache

_log = logging.getLogger(__name__)

RemoteFactory = Callable[[Store, Progress], AbstractContextManager[Remote]]
"""Opens a client whose blobs are in the given store. Its progress is how we know that it lives."""

_STRIKES = 3
"""Requests that fail before a repository is asked nothing more."""
_WORKERS = 8
_FACTOR = 64
_SLACK = 256 << 20
"""A segment has at the most ``_SLACK`` and ``_FACTOR`` times its package's bytes, compressed. What is larger
is made from the package."""
_RATIO = 16
"""How much larger than that bound it may be when it is expanded."""
_LONGER = 4
"""How much more patience there is with a registry that is written: it may be storing what it was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A segment that is looked for. ``size`` is its package's, in bytes."""

    key: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A segment that came, its bytes unchecked. ``part`` is the receiver's, on the store's file system."""

    key: str
    part: Path
    members: tuple[tuple[int, int], ...]
    directories: tuple[DirectoryRow, ...]
    beat: Callable[[], None]
    """To be called while it is being checked, as a sign of life."""


@dataclass
class _Standing:
    """What this process has seen of a repository."""

    strikes: int = 0
    noted: bool = False
    taken: int = 0
    has: set[str] = field(default_factory=set)
    """Keys of segments that are there and sound."""
    unsound: set[str] = field(default_factory=set)
    """Keys of those that are there and not sound."""
    empty: bool = False
    """Whether the empty blob is there."""


class SharedSegments:
    """The repositories of one call: those that are read, in their order, and the one that is written."""

    def __init__(
        self,
        *,
        readers: Sequence[Reference],
        writer: Reference | None,
        reading: RemoteFactory,
        writing: RemoteFactory,
        progress: Progress,
        patience: float = 20.0,
    ) -> None:
        """``patience``: seconds without a sign of life after which a registry is left to itself."""
        self._readers = tuple(readers)
        self._writer = writer
        self._reading = reading
        self._writing = writing
        self._progress = progress
        self._patience = patience
        self._lock = threading.Lock()
        self._standings = {each.name: _Standing() for each in (*readers, *([writer] if writer else []))}

    @property
    def reads(self) -> bool:
        """Whether there is anything to be asked."""
        return bool(self._readers)

    @property
    def writes(self) -> bool:
        return self._writer is not None

    # --- reading --------------------------------------------------------------------------------------

    def bring(self, wanted: Sequence[Wanted], scratch: Path, take: Callable[[Found], None]) -> None:
        """Hands each wanted segment that a repository has to ``take``, several at once, by threads that may
        outlive the call. ``take`` raises ``EnvbuildError`` for what isn't sound; then the next repository is
        asked."""
        pulse = Pulse()
        store = Store(scratch / "brought")
        before = sum(standing.taken for standing in self._standings.values())
        with (
            self._progress.task("download", "cached segments", total=len(wanted), unit="segments") as task,
            self._reading(store, pulse) as remote,
        ):

            def one(each: Wanted) -> None:
                self._bring(remote, store, pulse, each, take)
                task.advance(1)

            if not work_through(wanted, one, workers=_WORKERS, pulse=pulse, patience=self._patience):
                for reader in self._readers:
                    self._standings[reader.name].strikes = _STRIKES
                names = ", ".join(reader.name for reader in self._readers)
                self._progress.note(f"segment cache {names}: no answer for {self._patience:g} seconds")
        came = sum(standing.taken for standing in self._standings.values()) - before
        if came:
            self._progress.note(f"{came} of {len(wanted)} segments came from the cache")

    def _bring(
        self, remote: Remote, store: Store, pulse: Pulse, wanted: Wanted, take: Callable[[Found], None]
    ) -> None:
        for reader in self._readers:
            standing = self._standings[reader.name]
            if standing.strikes >= _STRIKES:
                continue
            try:
                manifest = remote.find_manifest(reader, tag_of(wanted.key))
            except EnvbuildError as error:
                self._strike(reader, error)
                continue
            pulse.beat()
            if manifest is None:
                continue
            try:
                shared = parse_manifest(manifest.content, wanted.key)
                _check_size(shared, wanted)
                part = self._blob(remote, reader, store, shared)
                take(
                    Found(
                        key=wanted.key,
                        part=part,
                        members=shared.members,
                        directories=shared.directories,
                        beat=pulse.beat,
                    )
                )
            except EnvbuildError as error:
                with self._lock:
                    standing.unsound.add(wanted.key)
                self._note(reader, error)
                continue
            with self._lock:
                standing.taken += 1
                standing.has.add(wanted.key)
            return

    def _blob(self, remote: Remote, reader: Reference, store: Store, shared: SharedSegment) -> Path:
        part = store.directory("parts") / shared.key
        # That of another repository, which was refused.
        part.unlink(missing_ok=True)
        if shared.blob is None:
            part.touch()
            return part
        # A link, as two segments may be the same blob, and each is taken away.
        _link(remote.blob(reader, shared.blob.digest, shared.blob.size), part)
        return part

    # --- writing --------------------------------------------------------------------------------------

    def share(self, segments: Mapping[str, Segment], cache: SegmentCache, scratch: Path) -> None:
        """Makes the repository that is written have ``segments``, which are in ``cache``, by key."""
        writer = self._writer
        if writer is None:
            return
        standing = self._standings[writer.name]
        todo = [segments[key] for key in sorted(segments) if key not in standing.has]
        if not todo:
            return
        pulse = Pulse()
        store = Store(scratch / "shared")
        sent: list[int] = []
        failed: list[EnvbuildError | OSError] = []
        with (
            self._progress.task("push", "segments", total=len(todo), unit="segments") as task,
            self._writing(store, pulse) as remote,
        ):

            def one(segment: Segment) -> None:
                if len(failed) < _STRIKES:
                    try:
                        if self._share(remote, writer, store, cache, segment, pulse):
                            sent.append(segment.size)
                        with self._lock:
                            standing.has.add(segment.key)
                    except (EnvbuildError, OSError) as error:
                        failed.append(error)
                task.advance(1)

            largest = sorted(todo, key=lambda segment: -segment.size)
            patience = _LONGER * self._patience
            patient = work_through(largest, one, workers=_WORKERS, pulse=pulse, patience=patience)
        if sent:
            self._progress.note(f"{len(sent)} segments, {sum(sent) / 1e6:.1f} MB, went to {writer.name}")
        if failed:
            _log.warning("not all segments went to the cache %s: %s", writer.name, failed[0])
        elif not patient:
            _log.warning("not all segments went to the cache %s: it fell silent", writer.name)

    def _share(
        self,
        remote: Remote,
        writer: Reference,
        store: Store,
        cache: SegmentCache,
        segment: Segment,
        pulse: Pulse,
    ) -> bool:
        """Whether it had to be written. One under the same tag that says something else is replaced."""
        standing = self._standings[writer.name]
        if segment.key not in standing.unsound:
            present = remote.find_manifest(writer, tag_of(segment.key))
            pulse.beat()
            if present is not None and _says(present.content, segment):
                return False
        sha = hashlib.sha256()
        for member, _ in cache.members(segment):
            sha.update(member)
            pulse.beat()
        digest = f"sha256:{sha.hexdigest()}"
        manifest = dump_manifest(segment, digest)
        if not standing.empty:
            store.add_blob(EMPTY)
            remote.push_blobs(writer, [empty_descriptor()])
            standing.empty = True
        shared = parse_manifest(manifest, segment.key)
        if shared.blob is not None:
            path = store.blob(digest)
            readers = [
                each
                for each in self._readers
                if each.registry == writer.registry and segment.key in self._standings[each.name].has
            ]
            remote.push_blobs(
                writer,
                [shared.blob],
                mount_from=readers,
                fetch=lambda _: _link(cache.data(segment.key), path),
            )
        remote.push_manifest(writer, manifest, OCI_MANIFEST, tag_of(segment.key))
        return True

    # --- what went wrong ------------------------------------------------------------------------------

    def _strike(self, reader: Reference, error: EnvbuildError) -> None:
        with self._lock:
            self._standings[reader.name].strikes += 1
        self._note(reader, error)

    def _note(self, reader: Reference, error: EnvbuildError) -> None:
        with self._lock:
            standing = self._standings[reader.name]
            noted, standing.noted = standing.noted, True
        if not noted:
            self._progress.note(f"segment cache {reader.name}: {error}")


def _link(source: Path, target: Path) -> None:
    """Makes ``target`` the same file as ``source``, or a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        try:
            os.link(source, target)
        except PermissionError:
            shutil.copyfile(source, target)


def cache_repository(text: str) -> Reference:
    """The repository written as ``text``. Raises ``UsageError`` where it has a tag or a digest."""
    reference = Reference.parse(text)
    last = text.strip().rpartition("/")[2]
    if reference.digest or ":" in last:
        raise UsageError(
            f"{text!r} names an image, and a cache of segments is a repository",
            hint=f"leave out the tag: {reference.familiar}",
        )
    return reference


def _check_size(shared: SharedSegment, wanted: Wanted) -> None:
    limit = _SLACK + _FACTOR * wanted.size
    compressed = sum(member[0] for member in shared.members)
    if compressed > limit or sum(member[1] for member in shared.members) > _RATIO * limit:
        raise FetchError(f"{tag_of(shared.key)[:20]} is larger than its package could become")


def _says(content: bytes, segment: Segment) -> bool:
    """Whether a manifest says what ours would, without our having to hash the bytes."""
    try:
        shared = parse_manifest(content, segment.key)
    except FetchError:
        return False
    return (shared.members, shared.directories) == (segment.members, segment.directories)
