"""A base from Debian's archive: the closure of its packages, each pinned by SHA-256."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from pathlib import Path

from envbuild.errors import FetchError, ResolveError
from envbuild.http.base import Fetcher
from envbuild.lock.base import BaseRequest, ResolvedBase
from envbuild.lock.debian.closure import RequestedPackage, closure
from envbuild.lock.debian.control import DebianPackage
from envbuild.lock.debian.index import DebianIndex, DebianPackages, kept_index, make_index
from envbuild.lock.debian.keys import Keyring, debian_keys
from envbuild.lock.debian.mirror import APT, DEBIAN, SECURITY, Mirrors, mirror
from envbuild.lock.debian.release import Release, ReleaseTrust, load_release
from envbuild.lock.debian.selection import BASE, python_packages, python_pin, suite_python
from envbuild.lock.debian.version import upstream
from envbuild.lock.model import DebianBase, DebianPin
from envbuild.platforms import Platform
from envbuild.settings import Settings
from envbuild.specs.model import BaseSpec, DebianBaseSpec
from envbuild.store.content import Store

DEFAULT_SUITE = "trixie"

_NAME = re.compile(r"[a-z0-9][a-z0-9+.\-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+:~\-]+")


def _now() -> datetime:
    return datetime.now(timezone.utc)


class DebianResolver:
    """A :class:`envbuild.lock.base.BaseResolver` for ``base: {debian: …}``.

    Looks into the suite, its updates and its security updates; the highest version wins. ``keyrings``
    replace Debian's own keys (for an archive that another key signs); ``clock`` gives the time that
    expiry is judged by."""

    name = "debian"

    def __init__(
        self,
        fetcher: Fetcher,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = _now,
        keyrings: tuple[Keyring, ...] | None = None,
        apt: Path = APT,
    ) -> None:
        self._fetcher = fetcher
        self._store = store
        self._settings = settings
        self._clock = clock
        self._keyrings = keyrings
        self._apt = apt
        self._releases: dict[tuple[str, str], Release] = {}

    def accepts(self, spec: BaseSpec) -> bool:
        return isinstance(spec, DebianBaseSpec)

    def resolve(self, request: BaseRequest) -> ResolvedBase:
        """See the protocol. ``offline`` answers from what was read before, whether it expired or not, and
        wants a fetcher that is offline too."""
        spec, upgrade, as_of, offline = request.spec, request.upgrade, request.as_of, request.offline
        if not isinstance(spec, DebianBaseSpec):
            raise ResolveError("the base is not one of Debian packages")
        kept = request.preferred if isinstance(request.preferred, DebianBase) else None
        suite = spec.suite or (kept.suite if kept else DEFAULT_SUITE)
        suite_python(suite)
        if kept is not None and kept.suite != suite:
            kept = None
        roots = _roots(spec, suite, with_python=request.with_python)
        pins = {} if kept is None or upgrade.everything else {pin.name: pin for pin in kept.packages}
        unpinned = [name for name in pins if upgrade.allows(name)]
        answers = not unpinned and _answers(pins, roots)
        if as_of is not None and self._settings.debian_snapshot is None:
            if answers and kept is not None:
                return _resolved(suite, kept.packages)
            raise ResolveError(
                f"as_of {as_of} can't be kept for the Debian base: a mirror has today's packages only",
                hint="set ENVBUILD_DEBIAN_SNAPSHOT to the root of a snapshot archive, use image: as base, "
                "or leave as_of out",
            )
        try:
            packages = self._packages(suite, request.platform, as_of=as_of, offline=offline)
        except ResolveError:
            if offline and answers and kept is not None:
                return _resolved(suite, kept.packages)
            raise
        chosen = closure(packages, roots, pins=pins, unpinned=unpinned, suite=suite)
        return _resolved(suite, tuple(_pin(package) for package in chosen))

    def _packages(
        self, suite: str, platform: Platform, *, as_of: date | None, offline: bool
    ) -> DebianPackages:
        mirrors, now = self._mirrors(as_of)
        suites = [
            (mirrors.main, DEBIAN, suite),
            (mirrors.main, DEBIAN, f"{suite}-updates"),
            (mirrors.security, SECURITY, f"{suite}-security"),
        ]
        keyrings = self._keyrings if self._keyrings is not None else (debian_keys(suite),)
        trust = ReleaseTrust(keyrings=keyrings, now=now, check_expiry=not offline and as_of is None)

        def load(root: str, archive: str, name: str) -> Release:
            if (root, name) not in self._releases:
                self._releases[root, name] = load_release(
                    self._fetcher,
                    root=root,
                    archive=archive,
                    suite=name,
                    trust=trust,
                )
            return self._releases[root, name]

        with ThreadPoolExecutor(len(suites)) as pool:
            releases = [job.result() for job in [pool.submit(load, *arguments) for arguments in suites]]
        return DebianPackages(self._indexes(releases, platform.debian), platform.debian)

    def _mirrors(self, as_of: date | None) -> tuple[Mirrors, datetime]:
        """The archives to look into, and the time at which they must have been there."""
        snapshot = self._settings.debian_snapshot
        if as_of is None or snapshot is None:
            return mirror(self._settings, apt=self._apt), self._clock()
        # A snapshot archive answers with the last state at or before the given second.
        stamp = f"{as_of:%Y%m%d}T235959Z"
        root = snapshot.rstrip("/")
        end = datetime(as_of.year, as_of.month, as_of.day, 23, 59, 59, tzinfo=timezone.utc)
        mirrors = Mirrors(
            main=f"{root}/archive/{DEBIAN}/{stamp}", security=f"{root}/archive/{SECURITY}/{stamp}"
        )
        return mirrors, min(end, self._clock())

    def _indexes(self, releases: list[Release], architecture: str) -> list[DebianIndex]:
        files = [release.packages(architecture) for release in releases]
        indexes = [
            kept_index(self._store, file.sha256, release.archive)
            for release, file in zip(releases, files, strict=True)
        ]
        missing = [
            release.download(file)
            for release, file, index in zip(releases, files, indexes, strict=True)
            if index is None
        ]
        paths: Mapping[str, Path] = {}
        if missing:
            try:
                paths = self._fetcher.files(missing, stage="resolve")
            except FetchError as error:
                raise ResolveError(
                    f"can't read the Debian archive: {error.message}", hint=error.hint
                ) from error
        return [
            index or make_index(self._store, paths[file.sha256], file.path, file.sha256, release.archive)
            for release, file, index in zip(releases, files, indexes, strict=True)
        ]


def _roots(spec: DebianBaseSpec, suite: str, *, with_python: bool) -> tuple[RequestedPackage, ...]:
    problems: list[str] = []
    requested: dict[str, RequestedPackage] = {}
    for text in spec.packages:
        name, equals, version = text.strip().partition("=")
        if not _NAME.fullmatch(name) or (equals and not _VERSION.fullmatch(version)):
            problems.append(f"base.packages: {text!r} is neither a Debian package's name nor name=version")
        elif name in requested and requested[name].version != version:
            problems.append(f"base.packages asks for {name} twice, in different versions")
        else:
            requested[name] = RequestedPackage(name=name, version=version, by_spec=True)
    if problems:
        raise ResolveError("\n".join(problems), hint="write libgomp1, or libgomp1=14.2.0-19")
    for name in (*BASE, *(python_packages(suite) if with_python else ())):
        requested.setdefault(name, RequestedPackage(name=name))
    return tuple(requested[name] for name in sorted(requested))


def _answers(pins: Mapping[str, DebianPin], roots: tuple[RequestedPackage, ...]) -> bool:
    """Whether the pins hold every root: as far as can be told without an index."""
    return all(root.name in pins and root.version in ("", pins[root.name].version) for root in roots)


def _pin(package: DebianPackage) -> DebianPin:
    return DebianPin(
        name=package.name,
        version=package.version,
        architecture=package.architecture,
        archive=package.archive,
        file=package.file,
        size=package.size,
        sha256=package.sha256,
    )


def _resolved(suite: str, pins: tuple[DebianPin, ...]) -> ResolvedBase:
    libc = next((pin for pin in pins if pin.name == "libc6"), None)
    if libc is None:
        raise ResolveError(f"the packages of Debian {suite} hold no libc6", hint="try another mirror")
    base = DebianBase(suite=suite, packages=pins, glibc=upstream(libc.version))
    return ResolvedBase(base=base, python=python_pin(suite, pins))
