"""Wheels: brought and unpacked by uv, then given to the image in a normalised form.

uv has the cache, the index and the credential settings, and checks the one pinned hash of each file. All
that it adds by itself (its interpreter's path in scripts, ``uv_cache.json``, ``direct_url.json``, modes by
umask) is left out or made anew, so that the entries are a function of the wheel, the prefix and the python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from envbuild.compose.artifacts.wheel.install import WheelInstall, install_options, wheel_pin
from envbuild.compose.artifacts.wheel.tree import Claim, Damage, WheelTree
from envbuild.compose.base import Entry
from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, PythonPin
from envbuild.lock.pip.runner import Runner, SubprocessRunner
from envbuild.plan.model import Artifact
from envbuild.platforms import Platform
from envbuild.progress import Progress, Silent
from envbuild.settings import Settings
from envbuild.store.content import Store


class WheelSource:
    """An ``ArtifactSource`` of wheels.

    ``address`` makes the address a pin states (relative to its spec) an absolute one. ``built`` gives the
    files of wheels that are built from source distributions (``SdistWheels.archive``).
    ``options`` are those of the spec (``--index-url``…): where to look is no part of a lock. ``env`` is the
    environment of this process, from which uv's own settings are taken."""

    def __init__(
        self,
        store: Store,
        *,
        python: PythonPin,
        platform: Platform,
        glibc: str,
        settings: Settings,
        env: Mapping[str, str],
        options: Sequence[str] = (),
        address: Callable[[str], str] = str,
        built: Callable[[PipPin], Path] | None = None,
        runner: Runner | None = None,
        progress: Progress | None = None,
        executable: str | None = None,
    ) -> None:
        self._store = store
        self._python = python
        self._built = built
        self._progress = progress or Silent()
        self._install = WheelInstall(
            argv=install_options(python, platform, glibc, offline=settings.offline),
            env=env,
            options=tuple(options),
            runner=runner or SubprocessRunner(),
            executable=executable,
            offline=settings.offline,
            address=address,
        )
        self._stack = ExitStack()
        self._scratch: Path | None = None
        self._count = 0
        self._claims: dict[str, Claim] = {}

    def __enter__(self) -> WheelSource:
        self._scratch = self._stack.enter_context(self._store.scratch())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch = None
        self._claims.clear()
        self._stack.close()

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        pins = [wheel_pin(artifact) for artifact in artifacts if artifact.sha256 not in self._claims]
        if not pins:
            return
        total = sum(pin.size for pin in pins)
        with self._progress.task("download", _title(pins), total=total) as task:
            found = self._bring(pins)
            task.advance(total)
        self._claims.update(found)

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        claim = self._claims.get(artifact.sha256)
        if claim is None:
            raise BuildError(f"{artifact.name} {artifact.version} was not fetched")
        return claim.entries(self._python)

    def _bring(self, pins: Sequence[PipPin]) -> dict[str, Claim]:
        """All of them from one run of uv; those that can't be told apart or aren't whole once more, alone."""
        found = {pin.sha256: self._from_source(pin) for pin in pins if pin.sdist}
        pins = [pin for pin in pins if pin.sdist is None]
        if not pins:
            return found
        return {**found, **self._from_index(pins)}

    def _from_source(self, pin: PipPin) -> Claim:
        """A wheel that no index has, from its file in the store."""
        if self._built is None:
            raise BuildError(f"{pin.file} is no file of an index: it has to be built, which nobody does here")
        archive = self._built(pin)
        directory = self._directory()
        # uv takes a wheel's name from its address; the store's files are named by their digests.
        place = directory / pin.file
        place.symlink_to(archive.resolve())
        # Past uv's cache, where each build's address would leave another copy.
        return self._whole(pin, self._tree([replace(pin, url=place.as_uri())], fresh=True), trusted=False)

    def _from_index(self, pins: Sequence[PipPin]) -> dict[str, Claim]:
        tree = self._tree(pins)
        found, suspects = {}, []
        shared = tree.shared(pins)
        for pin in pins:
            try:
                if pin.name in shared:
                    raise Damage(f"{pin.file} shares paths with another wheel")
                found[pin.sha256] = tree.claim(pin)
            except Damage:
                suspects.append(pin)
        if not suspects and tree.unclaimed(found.values()):
            found, suspects = {}, list(pins)
        for pin in suspects:
            found[pin.sha256] = self._alone(pin)
        return found

    def _alone(self, pin: PipPin) -> Claim:
        """One wheel in a tree of its own; unpacked anew if what uv's cache holds was changed meanwhile."""
        try:
            return self._whole(pin, self._tree([pin]), trusted=False)
        except Damage:
            # The file's own hash is checked again here, so this time its content is what was pinned, even
            # if its RECORD, which nobody else checks, says otherwise.
            return self._whole(pin, self._tree([pin], fresh=True), trusted=True)

    @staticmethod
    def _whole(pin: PipPin, tree: WheelTree, *, trusted: bool) -> Claim:
        """The only wheel of ``tree``."""
        claim = tree.claim(pin, trusted=trusted)
        stray = tree.unclaimed([claim])
        if stray:
            raise BuildError(
                f"{pin.file} has files that its RECORD doesn't list: {', '.join(stray[:5])}",
                hint=f"the wheel is broken: pin another version of {pin.name}",
            )
        return claim

    def _directory(self) -> Path:
        if self._scratch is None:
            raise RuntimeError("a WheelSource is used as a context manager")
        self._count += 1
        directory = self._scratch / str(self._count)
        directory.mkdir(mode=0o700)
        return directory

    def _tree(self, pins: Sequence[PipPin], *, fresh: bool = False) -> WheelTree:
        directory = self._directory()
        self._install.run(pins, directory, fresh=fresh)
        return WheelTree(directory / "prefix", shebang=f"#!{sys.executable}")


def _title(pins: Sequence[PipPin]) -> str:
    return pins[0].file if len(pins) == 1 else f"{len(pins)} wheels"
