"""Wheels as the files that an index has.

uv keeps only what wheels hold. It says where each file of a version lies, with this machine's index, proxy
and credential settings; the file is then fetched from there, and is what was pinned or is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from envbuild.compose.artifacts.wheel.index import IndexLogins, PackageIndexes
from envbuild.compose.artifacts.wheel.install import file_names, wheel_pin
from envbuild.errors import BuildError, FetchError, ResolveError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.model import PipPin
from envbuild.lock.pip.pylock import Resolved, load_pylock
from envbuild.lock.pip.runner import Completed
from envbuild.oci.digest import digest_file
from envbuild.plan.model import Artifact
from envbuild.store.content import Store

_LOG = logging.getLogger(__name__)
_ANY_PYTHON = "3.99"
"""What uv is told for wheels that any later python loads: newer than every python they may ask for."""
_READERS = 4


class WheelFiles:
    """An ``ArtifactFiles`` of wheels. ``build_wheel`` gives the file of a pin that envbuild builds itself."""

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        indexes: PackageIndexes,
        *,
        build_wheel: Callable[[PipPin], Path] | None = None,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._indexes = indexes
        self._build_wheel = build_wheel

    def fetch_files(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        """See ``ArtifactFiles``. Nobody is asked for what the store has."""
        pins = {pin.sha256: pin for pin in map(wheel_pin, artifacts)}
        with ThreadPoolExecutor(_READERS) as pool:
            stored = dict(zip(pins, pool.map(self._store.verified_artifact, pins), strict=True))
        files = {sha256: path for sha256, path in stored.items() if path is not None}
        missing = [pin for sha256, pin in pins.items() if sha256 not in files]
        files.update({pin.sha256: self._build(pin) for pin in missing if pin.sdist is not None})
        indexed = [pin for pin in missing if pin.sdist is None]
        if indexed:
            files.update(self._fetch(indexed))
        return {sha256: files[sha256] for sha256 in pins}

    def _build(self, pin: PipPin) -> Path:
        if self._build_wheel is None:
            raise BuildError(f"{pin.file} is no file of an index: it has to be built, which nobody can here")
        path = self._build_wheel(pin)
        if digest_file(path) != f"sha256:{pin.sha256}":
            raise BuildError(
                f"{pin.file} was built, but isn't what is pinned",
                hint=f"lock again: envbuild lock --upgrade-package {pin.name}",
            )
        return path

    def _fetch(self, pins: Sequence[PipPin]) -> dict[str, Path]:
        if self._indexes.offline:
            return self._fetcher.files([_download(pin) for pin in pins])
        stated = {pin.sha256: url for pin in pins if (url := self._indexes.address(pin))}
        indexed = [pin for pin in pins if not pin.url]
        # Where uv remembers the index's pages from a lock or a build, asking again only takes time.
        known = self._look_up(indexed, remembered=True)
        if len(known) < len(indexed):
            return self._download(pins, {**stated, **self._look_up_all(indexed)})
        try:
            return self._download(pins, {**stated, **known})
        except FetchError as error:
            # An index may have moved its files since, or sign addresses for a time.
            moved = self._look_up_moved(indexed, known)
            if moved is None:
                raise
            _LOG.info("%s; asking the index again", error.message)
        return self._download(pins, {**stated, **moved})

    def _look_up_moved(self, pins: Sequence[PipPin], known: Mapping[str, str]) -> dict[str, str] | None:
        """The addresses as the index has them now; None where they are those ``known``, or it is silent."""
        try:
            addresses = self._look_up_all(pins)
        except FetchError:
            return None
        return None if addresses == known else addresses

    def _look_up_all(self, pins: Sequence[PipPin]) -> dict[str, str]:
        """Addresses from the index itself, of all pins. Raises ``FetchError``."""
        addresses = self._look_up(pins, remembered=False)
        lost = [pin for pin in pins if pin.sha256 not in addresses]
        if lost:
            raise FetchError(
                "\n".join(
                    f"can't get {pin.file}: the index lists no file of {pin.name} {pin.version} with the "
                    "SHA-256 that is pinned"
                    for pin in lost
                ),
                hint="it may have left the index: envbuild lock "
                + " ".join(f"--upgrade-package {pin.name}" for pin in lost)
                + ", or set the index it came from",
            )
        return addresses

    def _download(self, pins: Sequence[PipPin], addresses: Mapping[str, str]) -> dict[str, Path]:
        logins = IndexLogins(self._indexes)
        access = logins.host_access()
        downloads = [_download(pin, logins.add_login(addresses[pin.sha256])) for pin in pins]
        return self._fetcher.files([replace(download, access=access) for download in downloads])

    def _look_up(self, pins: Sequence[PipPin], *, remembered: bool) -> dict[str, str]:
        """The address of each pinned file, as far as known. ``remembered``: only to uv itself."""
        addresses: dict[str, str] = {}
        for python, group in _groups(pins):
            wanted = {pin.sha256 for pin in group}
            with self._store.scratch() as directory:
                answer = self._indexes.compile_pins(
                    group,
                    [
                        *("--only-binary", ":all:"),
                        # Files for all machines: which one was pinned is known by its hash.
                        *("--universal", "--python-version", python),
                        # A page that uv takes for fresh may be older than the lock.
                        "--offline" if remembered else "--refresh",
                    ],
                    directory,
                )
                if answer.status != 0 and not remembered:
                    raise self._failure(answer, group, directory)
                if answer.status != 0:
                    continue
                text = (directory / "pylock.toml").read_text(encoding="utf-8")
            addresses.update(
                {
                    file.sha256: file.url
                    for package in _packages(text)
                    for file in package.files
                    if file.url and file.sha256 in wanted
                }
            )
        return addresses

    def _failure(self, answer: Completed, pins: Sequence[PipPin], directory: Path) -> FetchError:
        reason = re.sub(r"^error: ", "", self._indexes.explanation(answer.stderr, directory))
        reason = reason or f"uv ended with status {answer.status}"
        if re.search(r"error sending request|tcp connect|dns error|timed out|Failed to fetch", reason):
            hint = "check the network, the proxy and the index (UV_INDEX_URL)"
        else:
            hint = (
                "it may have left the index: envbuild lock --upgrade-package, or set the index it came from"
            )
        return FetchError(f"can't find out where to get {file_names(pins)}: {reason}", hint=hint)


def _packages(text: str) -> tuple[Resolved, ...]:
    try:
        return load_pylock(text)
    except ResolveError as error:
        raise FetchError(error.message, hint=error.hint) from error


def _groups(pins: Sequence[PipPin]) -> Iterator[tuple[str, list[PipPin]]]:
    """The pins that uv can be asked for at once: for one python, and one version of each name."""
    groups: dict[tuple[str, int], list[PipPin]] = {}
    seen: dict[str, int] = {}
    for pin in pins:
        count = seen[pin.name] = seen.get(pin.name, -1) + 1
        groups.setdefault((_python(pin), count), []).append(pin)
    for (python, _), group in groups.items():
        yield python, group


def _python(pin: PipPin) -> str:
    """A version of python that loads the wheel: uv leaves out what no version it is told of can load."""
    try:
        tags = parse_wheel_filename(pin.file)[3]
    except InvalidWheelFilename:
        return _ANY_PYTHON
    exact = []
    for tag in tags:
        match = re.fullmatch(r"cp(\d)(\d+)", tag.interpreter)
        if match is None or tag.abi == "abi3":
            return _ANY_PYTHON
        exact.append((int(match[1]), int(match[2])))
    return "{}.{}".format(*max(exact))


def _download(pin: PipPin, url: str | None = None) -> Download:
    return Download(what=pin.file, urls=(url,) if url else (), sha256=pin.sha256, size=pin.size or None)
