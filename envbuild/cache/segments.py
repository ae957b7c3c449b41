"""Compressed segments in registry repositories: a cache that machines share.

Whoever may write to such a repository decides what images hold that are composed from it. What comes is
checked for its form, so it can't break this machine or hide a path, but only ``envbuild verify``, which
composes from packages, finds out whether it is what the packages hold.

Nothing here fails a build: a repository that is away, refuses or sends rubbish is left out, and said so once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from envbuild.cache.manifest import SharedSegment, parse_manifest, tag_of
from envbuild.cache.push import STRIKES, WORKERS, SegmentPush, Standing, link_file
from envbuild.cache.watchdog import Heartbeat, work_through
from envbuild.errors import EnvbuildError, FetchError, UsageError
from envbuild.oci.reference import Reference
from envbuild.progress import Progress
from envbuild.registry.base import Remote
from envbuild.store.content import Store
from envbuild.store.segments import DirectoryRow, Segment, SegmentCache

_log = logging.getLogger(__name__)

RemoteFactory = Callable[[Store, Progress], AbstractContextManager[Remote]]
"""Opens a client whose blobs are in the given store. Its progress is how we know that it lives."""

_FACTOR = 64
_SLACK = 256 << 20
"""A segment has at the most ``_SLACK`` and ``_FACTOR`` times its package's bytes, compressed. What is larger
is made from the package."""
_RATIO = 16
"""How much larger than that bound it may be when it is expanded."""
_LONGER = 4
"""How much more patience there is with a registry that is written: it may be storing what it was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedSegment:
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
        self._standings = {reader.name: Standing() for reader in (*readers, *([writer] if writer else []))}

    @property
    def reads(self) -> bool:
        """Whether there is anything to be asked."""
        return bool(self._readers)

    @property
    def writes(self) -> bool:
        """Whether there is anywhere to write."""
        return self._writer is not None

    # --- reading --------------------------------------------------------------------------------------

    def bring(self, wanted: Sequence[WantedSegment], scratch: Path, take: Callable[[Found], None]) -> None:
        """Hands each wanted segment that a repository has to ``take``, several at once, by threads that may
        outlive the call. ``take`` raises ``EnvbuildError`` for what isn't sound; then the next repository is
        asked."""
        pulse = Heartbeat()
        store = Store(scratch / "brought")
        before = sum(standing.taken for standing in self._standings.values())
        with (
            self._progress.task("download", "cached segments", total=len(wanted), unit="segments") as task,
            self._reading(store, pulse) as remote,
        ):

            def one(segment: WantedSegment) -> None:
                self._bring(remote, store, pulse, segment, take)
                task.advance(1)

            if not work_through(wanted, one, workers=WORKERS, pulse=pulse, patience=self._patience):
                for reader in self._readers:
                    self._standings[reader.name].strikes = STRIKES
                names = ", ".join(reader.name for reader in self._readers)
                self._progress.note(f"segment cache {names}: no answer for {self._patience:g} seconds")
        came = sum(standing.taken for standing in self._standings.values()) - before
        if came:
            self._progress.note(f"{came} of {len(wanted)} segments came from the cache")

    def _bring(
        self,
        remote: Remote,
        store: Store,
        pulse: Heartbeat,
        wanted: WantedSegment,
        take: Callable[[Found], None],
    ) -> None:
        for reader in self._readers:
            standing = self._standings[reader.name]
            if standing.strikes >= STRIKES:
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
        link_file(remote.blob(reader, shared.blob.digest, shared.blob.size), part)
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
        pulse = Heartbeat()
        store = Store(scratch / "shared")
        with (
            self._progress.task("push", "segments", total=len(todo), unit="segments") as task,
            self._writing(store, pulse) as remote,
        ):
            push = SegmentPush(
                remote=remote,
                writer=writer,
                standing=standing,
                mounts=partial(self._mounts, writer),
                store=store,
                cache=cache,
                pulse=pulse,
                patience=_LONGER * self._patience,
            )
            whole = push.run(todo, lambda: task.advance(1))
        if push.sent:
            size = sum(push.sent) / 1e6
            self._progress.note(f"{len(push.sent)} segments, {size:.1f} MB, went to {writer.name}")
        if not whole:
            why = push.errors[0] if push.errors else "it fell silent"
            _log.warning("not all segments went to the cache %s: %s", writer.name, why)

    def _mounts(self, writer: Reference, key: str) -> list[Reference]:
        return [
            reader
            for reader in self._readers
            if reader.registry == writer.registry and key in self._standings[reader.name].has
        ]

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


def _check_size(shared: SharedSegment, wanted: WantedSegment) -> None:
    limit = _SLACK + _FACTOR * wanted.size
    compressed = sum(member[0] for member in shared.members)
    if compressed > limit or sum(member[1] for member in shared.members) > _RATIO * limit:
        raise FetchError(f"{tag_of(shared.key)[:20]} is larger than its package could become")
