"""Wheels: brought and unpacked by uv, then given to the image in a normalised form.

uv has the cache, the index and the credential settings, and checks the one pinned hash of each file. All
that it adds by itself (its interpreter's path in scripts, ``uv_cache.json``, ``direct_url.json``, modes by
umask) is left out or made anew, so that the entries are a function of the wheel, the prefix and the python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from envbuild.compose.artifacts.sdist.builds import SdistWheels, sdist_builds
from envbuild.compose.artifacts.wheel.archive import unpack_wheel
from envbuild.compose.artifacts.wheel.files import WheelFiles
from envbuild.compose.artifacts.wheel.index import package_indexes
from envbuild.compose.artifacts.wheel.install import (
    UnusualWheel,
    WheelInstall,
    install_options,
    wheel_pin,
)
from envbuild.compose.artifacts.wheel.tree import SHEBANG, DamagedWheel, InstalledWheel, WheelTree
from envbuild.compose.base import ComposeContext, Entry, SourceTarget
from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, PythonPin, glibc_of
from envbuild.plan.model import Artifact
from envbuild.progress import Progress, Silent


@contextmanager
def open_source(context: ComposeContext, target: SourceTarget) -> Iterator[WheelSource]:
    if target.python is None:
        raise BuildError("there are wheels to install, but no python to install them for")
    indexes = package_indexes(context, target)
    options = install_options(target.python, target.platform, glibc_of(target.base), offline=indexes.offline)
    with context.store.scratch() as scratch:
        yield WheelSource(
            scratch,
            python=target.python,
            install=WheelInstall(options=options, indexes=indexes),
            build_wheel=partial(_build_wheel, context, target),
            fetch_wheel=partial(_fetch_wheel, context, target),
            progress=context.progress,
        )


def open_files(context: ComposeContext, target: SourceTarget) -> WheelFiles:
    return WheelFiles(
        context.store,
        context.fetcher(),
        package_indexes(context, target),
        build_wheel=partial(_build_wheel, context, target),
    )


def _build_wheel(context: ComposeContext, target: SourceTarget, pin: PipPin) -> Path:
    return SdistWheels(sdist_builds(context), target.interpreter).fetch(pin)


def _fetch_wheel(context: ComposeContext, target: SourceTarget, pin: PipPin) -> Path:
    return open_files(context, target).fetch_files([Artifact.of(pin)])[pin.sha256]


class WheelSource:
    """An ``ArtifactSource`` of wheels. ``build_wheel`` gives the files of wheels that are built from source
    distributions (``SdistWheels.fetch``), ``fetch_wheel`` those of an index, for wheels that uv doesn't
    install; ``scratch`` outlasts the entries."""

    def __init__(
        self,
        scratch: Path,
        *,
        python: PythonPin,
        install: WheelInstall,
        build_wheel: Callable[[PipPin], Path] | None = None,
        fetch_wheel: Callable[[PipPin], Path] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._scratch = scratch
        self._python = python
        self._build_wheel = build_wheel
        self._fetch_wheel = fetch_wheel
        self._progress = progress or Silent()
        self._install = install
        self._count = 0
        self._claims: dict[str, InstalledWheel] = {}

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        pins = [wheel_pin(artifact) for artifact in artifacts if artifact.sha256 not in self._claims]
        if not pins:
            return
        total = sum(pin.size for pin in pins)
        with self._progress.task("download", _title(pins), total=total) as task:
            built = {pin.sha256: self._from_source(pin) for pin in pins if pin.sdist}
            indexed = [pin for pin in pins if pin.sdist is None]
            self._claims.update({**built, **(self._from_index(indexed) if indexed else {})})
            task.advance(total)

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        claim = self._claims.get(artifact.sha256)
        if claim is None:
            raise BuildError(f"{artifact.name} {artifact.version} was not fetched")
        return claim.entries(self._python)

    def _from_source(self, pin: PipPin) -> InstalledWheel:
        """A wheel that no index has, from its file in the store."""
        if self._build_wheel is None:
            raise BuildError(f"{pin.file} is no file of an index: it has to be built, which nobody does here")
        archive = self._build_wheel(pin)
        directory = self._make_directory()
        # uv takes a wheel's name from its address; the store's files are named by their digests.
        link = directory / pin.file
        link.symlink_to(archive.resolve())
        try:
            # Past uv's cache, where each build's address would leave another copy.
            tree = self._install_tree([replace(pin, url=link.as_uri())], fresh=True)
        except UnusualWheel:
            return self._unpack(pin, archive)
        return self._claim_all(pin, tree, trusted=False)

    def _from_index(self, pins: Sequence[PipPin]) -> dict[str, InstalledWheel]:
        """All of them from one run of uv; those that can't be told apart or aren't whole once more, alone,
        and those that uv refuses without it."""
        try:
            tree = self._install_tree(pins)
        except UnusualWheel as refused:
            unpacked = {pin.sha256: self._unpack(pin, self._fetch(pin)) for pin in refused.pins}
            rest = [pin for pin in pins if pin.sha256 not in unpacked]
            return {**unpacked, **(self._from_index(rest) if rest else {})}
        claims, suspects = {}, []
        shared = tree.shared(pins)
        for pin in pins:
            try:
                if pin.name in shared:
                    raise DamagedWheel(f"{pin.file} shares paths with another wheel")
                claims[pin.sha256] = tree.claim(pin)
            except DamagedWheel:
                suspects.append(pin)
        if not suspects and tree.unclaimed(claims.values()):
            claims, suspects = {}, list(pins)
        for pin in suspects:
            claims[pin.sha256] = self._install_alone(pin)
        return claims

    def _fetch(self, pin: PipPin) -> Path:
        if self._fetch_wheel is None:
            raise BuildError(f"{pin.file}: uv doesn't install it, and nobody here has its file")
        return self._fetch_wheel(pin)

    def _unpack(self, pin: PipPin, archive: Path) -> InstalledWheel:
        """A wheel that uv doesn't install, from its file, whose hash has been checked."""
        prefix = self._make_directory() / "prefix"
        unpack_wheel(archive, pin, self._python, prefix)
        return self._claim_all(pin, WheelTree(prefix, shebang=SHEBANG), trusted=True)

    def _install_alone(self, pin: PipPin) -> InstalledWheel:
        """One wheel in a tree of its own; unpacked anew if what uv's cache holds was changed meanwhile."""
        try:
            return self._claim_all(pin, self._install_tree([pin]), trusted=False)
        except DamagedWheel:
            # The file's own hash is checked again here, so this time its content is what was pinned, even
            # if its RECORD, which nobody else checks, says otherwise.
            return self._claim_all(pin, self._install_tree([pin], fresh=True), trusted=True)

    @staticmethod
    def _claim_all(pin: PipPin, tree: WheelTree, *, trusted: bool) -> InstalledWheel:
        """The only wheel of ``tree``."""
        claim = tree.claim(pin, trusted=trusted)
        stray = tree.unclaimed([claim])
        if stray:
            raise BuildError(
                f"{pin.file} has files that its RECORD doesn't list: {', '.join(stray[:5])}",
                hint=f"the wheel is broken: pin another version of {pin.name}",
            )
        return claim

    def _make_directory(self) -> Path:
        self._count += 1
        directory = self._scratch / str(self._count)
        directory.mkdir(mode=0o700)
        return directory

    def _install_tree(self, pins: Sequence[PipPin], *, fresh: bool = False) -> WheelTree:
        directory = self._make_directory()
        self._install.run(pins, directory, fresh=fresh)
        return WheelTree(directory / "prefix", shebang=f"#!{sys.executable}")


def _title(pins: Sequence[PipPin]) -> str:
    return pins[0].file if len(pins) == 1 else f"{len(pins)} wheels"
