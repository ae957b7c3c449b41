"""A closed list of conda packages as pins: found by their addresses, without a solve.

The records come from the present lock, from the channels' metadata, or, where a channel has no such record
any more, from the archives themselves. What the list states of a package's hashes must hold.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from envbuild.errors import FetchError, ResolveError
from envbuild.http.base import Download, Fetcher
from envbuild.lazy import lazy
from envbuild.lock.base import CondaRequest, CondaTarget
from envbuild.lock.conda.channels import without_credentials
from envbuild.lock.conda.records import pin_of
from envbuild.lock.conda.satisfied import unsatisfied_conda
from envbuild.lock.model import CondaPin
from envbuild.platforms import Platform
from envbuild.specs.model import ExplicitPackage

if TYPE_CHECKING:
    import zstandard
    from conda_package_streaming import package_streaming  # type: ignore[import-untyped]
else:
    package_streaming = lazy("conda_package_streaming.package_streaming")
    zstandard = lazy("zstandard")

ARCHIVE_LIMIT = 1 << 30
"""Bytes of an archive that is read only to learn its SHA-256."""
_INDEX_LIMIT = 4 << 20
_MEMBERS_LIMIT = 100_000
"""Members of an archive that are passed over before its metadata."""
_SHOWN = 20
_log = logging.getLogger(__name__)

Records = Callable[[str, Platform, Sequence[str]], Iterable[CondaPin]]
"""All packages of these names that a channel (its address) has for a platform; raises ``ResolveError``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplicitList:
    """Finds the packages of a list. ``records`` asks a channel; ``fetcher`` gets archives, if it is there."""

    records: Records
    fetcher: Fetcher | None

    def resolve(self, request: CondaRequest) -> dict[Platform, tuple[CondaPin, ...]]:
        """The pins of exactly the packages listed for each target, sorted by name.

        Raises ``ResolveError``: a platform that the list doesn't know, packages that are nowhere, hashes
        that don't hold, packages newer than ``as_of``, a base whose glibc is too old."""
        return {target.platform: self._pin_listed(request, target) for target in request.targets}

    def _pin_listed(self, request: CondaRequest, target: CondaTarget) -> tuple[CondaPin, ...]:
        spec, before = request.spec, request.before
        listed = [package for package in spec.explicit if package.platform == target.platform]
        if not listed:
            known = ", ".join(
                str(platform) for platform in sorted({package.platform for package in spec.explicit})
            )
            raise ResolveError(
                f"the list of conda packages has none for {target.platform}, only for {known}",
                hint=f"leave {target.platform} out of platforms, or list its packages too",
            )
        present = {pin.url: pin for pin in request.preferred.get(target.platform, ())}
        pinned: dict[str, CondaPin] = {}
        problems: list[str] = []
        missing = []
        for package in listed:
            pin = present.get(package.url)
            if pin is not None and not _contradictions(package, pin) and _states(package, pin):
                pinned[package.url] = pin
            else:
                missing.append(package)
        self._from_channels(missing, pinned, problems)
        nowhere = [package for package in missing if package.url not in pinned]
        if nowhere and not problems:
            self._from_archives(nowhere, pinned, problems, request.offline)
        pins = sorted(pinned.values(), key=lambda pin: pin.name)
        for pin, other in pairwise(pins):
            if pin.name == other.name:
                problems.append(f"{pin.name} is listed twice: {pin.file} and {other.file}")
        if before is not None:
            problems += [
                f"{pin.file} is not older than as_of"
                for pin in pins
                if pin.timestamp is None or pin.timestamp > before.timestamp() * 1000
            ]
        if not problems:
            problems = unsatisfied_conda(spec, pins, target)
        if problems:
            more = len(problems) - _SHOWN
            shown = [*problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
            raise ResolveError(
                f"the list of conda packages for {target.platform} can't be used:\n" + "\n".join(shown),
                hint="nothing else is taken in their place: correct the list, or make it anew",
            )
        return tuple(pins)

    def _from_channels(
        self, missing: Sequence[ExplicitPackage], pinned: dict[str, CondaPin], problems: list[str]
    ) -> None:
        channels: dict[str, list[ExplicitPackage]] = {}
        for package in missing:
            channels.setdefault(package.url.rsplit("/", 2)[0], []).append(package)
        for channel, packages in channels.items():
            names = sorted({_package_name(package.url) for package in packages})
            try:
                records = {
                    (pin.subdir, pin.file): pin for pin in self.records(channel, packages[0].platform, names)
                }
            except ResolveError as error:
                # The archives may be there all the same.
                _log.debug("no metadata from a channel: %s", error)
                continue
            for package in packages:
                _, subdir, file = package.url.rsplit("/", 2)
                record = records.get((subdir, file))
                if record is None:
                    continue
                wrong = _contradictions(package, record)
                if wrong:
                    problems.append(f"{package.url}: {wrong}")
                elif _states(package, record):
                    pinned[package.url] = replace(record, url=package.url, channel=channel)

    def _from_archives(
        self,
        packages: Sequence[ExplicitPackage],
        pinned: dict[str, CondaPin],
        problems: list[str],
        offline: bool,
    ) -> None:
        if self.fetcher is None or (offline and any(package.sha256 is None for package in packages)):
            problems += [f"{package.url}: the channel's metadata has no such package" for package in packages]
            return
        for package in packages:
            try:
                pinned[package.url] = _archived(package, self.fetcher)
            except (ResolveError, FetchError) as error:
                problems.append(error.message)


def _states(package: ExplicitPackage, pin: CondaPin) -> bool:
    """Whether at least one stated hash could be compared with the pin's."""
    return package.sha256 is not None or bool(package.md5 and pin.md5)


def _contradictions(package: ExplicitPackage, pin: CondaPin) -> str | None:
    if package.sha256 is not None and package.sha256 != pin.sha256:
        return f"the list says SHA-256 {package.sha256}, the channel {pin.sha256}"
    if package.md5 is not None and pin.md5 and package.md5 != pin.md5:
        return f"the list says MD5 {package.md5}, the channel {pin.md5}"
    return None


def _package_name(url: str) -> str:
    """The package's name in ``…/name-version-build.conda``."""
    return url.rsplit("/", 1)[-1].rsplit("-", 2)[0]


def _archived(package: ExplicitPackage, fetcher: Fetcher) -> CondaPin:
    """The pin that the archive itself tells."""
    shown, file = without_credentials(package.url), package.url.rsplit("/", 1)[-1]
    what = f"conda package {file}"
    source: Path | bytes
    if package.sha256 is not None:
        download = Download(what=what, urls=(package.url,), sha256=package.sha256)
        source = fetcher.files([download])[package.sha256]
    else:
        source = fetcher.read(package.url, limit=ARCHIVE_LIMIT)
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as archive:
        sha256, md5, size = _hashes(archive)
        if package.md5 is not None and package.md5 != md5:
            raise ResolveError(f"{shown}: the list says MD5 {package.md5}, the archive has {md5}")
        archive.seek(0)
        index = _index(archive, file, shown)
    stated = f"{index.get('name')}-{index.get('version')}-{index.get('build')}"
    if stated != file.removesuffix(".conda").removesuffix(".tar.bz2"):
        raise ResolveError(f"{shown}: the archive says that it is {stated:.200}")
    try:
        return pin_of(
            {
                **index,
                "subdir": package.url.rsplit("/", 2)[1],
                "url": package.url,
                "sha256": sha256,
                "md5": md5,
                "size": size,
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ResolveError(f"{shown}: the archive's info/index.json can't be read: {error}") from error


def hash_archive(url: str, md5: str, fetcher: Fetcher) -> tuple[str, int]:
    """SHA-256 and size of the archive at ``url``, whose MD5 a channel states. Raises ``ResolveError``."""
    shown = without_credentials(url)
    try:
        sha256, own, size = _hashes(io.BytesIO(fetcher.read(url, limit=ARCHIVE_LIMIT)))
    except FetchError as error:
        raise ResolveError(error.message, hint=error.hint) from error
    if own != md5:
        raise ResolveError(f"{shown}: the channel says MD5 {md5}, the archive has {own}")
    return sha256, size


def _hashes(archive: IO[bytes]) -> tuple[str, str, int]:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    while chunk := archive.read(1 << 20):
        sha256.update(chunk)
        md5.update(chunk)
        size += len(chunk)
    return sha256.hexdigest(), md5.hexdigest(), size


def _index(archive: IO[bytes], file: str, shown: str) -> dict[str, Any]:
    damaged = (
        tarfile.TarError,
        zipfile.BadZipFile,
        zstandard.ZstdError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
    )
    try:
        with closing(package_streaming.stream_conda_info(file, archive)) as members:
            for number, (tar, member) in enumerate(members):
                if member.name == "info/index.json" and member.isfile() and member.size <= _INDEX_LIMIT:
                    index = json.load(tar.extractfile(member))
                    if isinstance(index, dict):
                        return index
                if number > _MEMBERS_LIMIT:
                    break
    except (*damaged, RuntimeError) as error:  # The last: an archive that is encrypted, or no JSON at all.
        raise ResolveError(f"{shown}: damaged archive: {error}") from error
    raise ResolveError(f"{shown}: the archive has no info/index.json")
