"""Debian packages as entries of an image, unpacked without running maintainer scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from envbuild.compose.artifacts.deb.archive import UnsafeArchive, control_files, data_entries
from envbuild.compose.artifacts.deb.policy import (
    MADE_OF,
    derived_files,
    keep_entries,
    scanner_files,
    script_files,
)
from envbuild.compose.base import ComposeContext, Entry, SourceTarget
from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download, Fetcher, FilesError
from envbuild.lock.debian.control import paragraphs
from envbuild.lock.debian.mirror import APT, Mirrors, known_mirror
from envbuild.lock.model import Base, DebianBase, DebianPin
from envbuild.plan.model import Artifact
from envbuild.settings import Settings
from envbuild.store.content import Store

_LOOKUP = 1 << 20
"""Bytes a snapshot archive's answer may have."""


@contextmanager
def open_source(context: ComposeContext, target: SourceTarget) -> Iterator[DebianSource]:
    with context.store.scratch() as scratch:
        yield DebianSource(
            context.fetcher(), context.store, context.settings, scratch=scratch, base=target.base
        )


class DebianSource:
    """An :class:`envbuild.compose.base.ArtifactSource` for pinned .deb files.

    Looked for in the store, on the mirror, then in the snapshot archive if one is set. ``mirrors``
    replaces what settings and apt say. ``base`` is where the packages are found that another's files are
    made of."""

    def __init__(
        self,
        fetcher: Fetcher,
        store: Store,
        settings: Settings,
        *,
        scratch: Path,
        mirrors: Mirrors | None = None,
        apt: Path = APT,
        base: Base | None = None,
    ) -> None:
        pins = base.packages if isinstance(base, DebianBase) else ()
        self._others = {pin.name: pin for pin in pins if pin.name in MADE_OF.values()}
        self._fetcher = fetcher
        self._store = store
        self._snapshot = settings.debian_snapshot.rstrip("/") if settings.debian_snapshot else None
        self._mirrors = mirrors or known_mirror(settings, apt=apt)
        self._scratch = scratch

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        """See the protocol. A pin that is nowhere is an error that names the way to leave it behind."""
        self._fetch_pins([_pin(artifact) for artifact in artifacts])

    def _fetch_pins(self, pins: Sequence[DebianPin]) -> None:
        try:
            self._fetcher.files([self._download(pin) for pin in pins])
            return
        except FilesError as error:
            failed = error
        except FetchError as error:
            raise BuildError(error.message, hint=error.hint) from error
        by_hash = {pin.sha256: pin for pin in pins}
        gone = [by_hash[failure.download.sha256] for failure in failed.failures if failure.gone]
        if len(gone) < len(failed.failures):
            raise BuildError(failed.message, hint=self._remedy(failed)) from failed
        self._fetch_gone(gone, failed)

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        """See the protocol. Files too large for memory are below ``scratch``."""
        pin = _pin(artifact)
        deb = self._store.artifact(pin.sha256)
        folder = self._scratch / pin.sha256
        try:
            folder.mkdir(exist_ok=True)
            control = control_files(deb)
            _check_control(pin, control)
            whole = data_entries(deb, folder)
            entries = keep_entries(whole)
            made = [
                *script_files(pin.name, whole),
                *derived_files(pin.name, self._ingredients(pin, folder / "other")),
            ]
            for entry in (*made, *scanner_files(pin.name, control, entries)):
                if entry.path in entries:
                    raise UnsafeArchive(f"it has {entry.path!r}, which envbuild makes itself")
                entries[entry.path] = entry
        except UnsafeArchive as error:
            raise BuildError(
                f"the Debian package {pin.name} {pin.version} can't be unpacked: {error}",
                hint=f"pin another version: envbuild lock --upgrade-package {pin.name}",
            ) from error
        except FileNotFoundError as error:
            raise BuildError(f"the Debian package {pin.name} {pin.version} was not fetched") from error
        except OSError as error:
            raise BuildError(
                f"can't unpack the Debian package {pin.name} {pin.version}: {error.strerror or error}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error
        return iter([entries[path] for path in sorted(entries)])

    def _ingredients(self, pin: DebianPin, folder: Path) -> dict[str, Entry]:
        """The files of the package that some of this one's are made of, fetched if need be."""
        other = self._others.get(MADE_OF.get(pin.name, ""))
        if other is None:
            return {}
        self._fetch_pins([other])
        folder.mkdir(exist_ok=True)
        return data_entries(self._store.artifact(other.sha256), folder)

    def _download(self, pin: DebianPin, urls: tuple[str, ...] | None = None) -> Download:
        if urls is None:
            # A pool file's name may hold a character that has a meaning in addresses (+, ~ have none).
            mirrored = (
                f"{self._mirrors.root(pin.archive)}/{quote(pin.file, safe='/+~:')}" if self._mirrors else None
            )
            urls = (mirrored,) if mirrored else ()
        return Download(what=f"{pin.name} {pin.version}", urls=urls, sha256=pin.sha256, size=pin.size)

    def _fetch_gone(self, pins: Sequence[DebianPin], failed: FilesError) -> None:
        """From the snapshot archive, what every mirror has dropped."""
        hint = "pin what the mirror has now: " + " ".join(
            ["envbuild lock", *(f"--upgrade-package {pin.name}" for pin in pins)]
        )
        if self._snapshot is None:
            hint += "; or set ENVBUILD_DEBIAN_SNAPSHOT to the root of a snapshot archive"
            raise BuildError(f"{failed.message}\n(the mirror has dropped it)", hint=hint) from failed
        try:
            self._fetcher.files([self._download(pin, self._snapshot_urls(pin)) for pin in pins])
        except FetchError as error:
            raise BuildError(
                f"{failed.message}\nand the snapshot archive doesn't have it either: {error.message}",
                hint=hint,
            ) from error

    def _snapshot_urls(self, pin: DebianPin) -> tuple[str, ...]:
        """Where a snapshot archive may have the file: as its machine-readable interface says
        (``/mr/binary/NAME/VERSION/binfiles``), else in a plain tree of archives."""
        root = self._snapshot
        urls = [f"{root}/{pin.archive}/{quote(pin.file, safe='/+~:')}"]
        lookup = f"{root}/mr/binary/{quote(pin.name)}/{quote(pin.version, safe='+~:')}/binfiles?fileinfo=1"
        try:
            answer = json.loads(self._fetcher.read(lookup, limit=_LOOKUP, cache=True))
            for file in answer["result"]:
                if file["architecture"] == pin.architecture and re.fullmatch(r"[0-9a-f]{40}", file["hash"]):
                    urls.insert(0, f"{root}/file/{file['hash']}")
        except (FetchError, ValueError, KeyError, TypeError):
            # An archive without that interface; the error, if any, names the address tried in the end.
            pass
        return tuple(urls)

    def _remedy(self, failed: FilesError) -> str | None:
        if self._mirrors is None:
            return "set ENVBUILD_DEBIAN_MIRROR to the root of a Debian archive"
        return failed.hint


def _pin(artifact: Artifact) -> DebianPin:
    if not isinstance(artifact.pin, DebianPin):
        raise TypeError(f"{artifact.name} is no Debian package")
    return artifact.pin


def _check_control(pin: DebianPin, control: dict[str, bytes]) -> None:
    try:
        (fields,) = paragraphs(control["control"].decode())
        name, version = fields["Package"], fields["Version"]
    except (ValueError, KeyError) as error:
        raise UnsafeArchive("its control file can't be read") from error
    if (name, version) != (pin.name, pin.version):
        raise UnsafeArchive(f"it is {name} {version}, which isn't what the lock says")
