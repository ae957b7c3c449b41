"""Standalone builds of python (python-build-standalone's), as uv takes them: its list, its mirrors.

uv's own list comes with uv and has an address for each build, but no hash: that stands beside the archive,
in the release's ``SHA256SUMS``. A list that is named (``--python-downloads-json-url``) has both.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from envbuild.errors import FetchError, ResolveError
from envbuild.http.address import shown, split_credentials
from envbuild.http.base import Download, Fetcher, FilesError
from envbuild.lock.base import PythonRequest
from envbuild.lock.debian.resolver import DEFAULT_SUITE
from envbuild.lock.debian.selection import suite_python
from envbuild.lock.model import PythonBuild, PythonPin
from envbuild.lock.pip.command import find_uv, own_project, uv_environment
from envbuild.lock.pip.runner import Runner, SubprocessRunner
from envbuild.lock.pip.uv_config import load_uv_config, uv_config_files
from envbuild.lock.python.choice import DEBIAN_SUITES, debian_pythons, matches_python
from envbuild.platforms import Platform
from envbuild.settings import Settings
from envbuild.specs.model import STANDALONE

_PUBLISHED = "https://github.com/astral-sh/python-build-standalone/releases/download"
_ROOTS = (
    _PUBLISHED,
    "https://github.com/indygreg/python-build-standalone/releases/download",
    "https://releases.astral.sh/github/python-build-standalone/releases/download",
)
"""What a mirror stands for: where the releases are, were, and what uv asks first."""
_LARGEST_LIST = 64 << 20
_LARGEST_SUMS = 4 << 20
_RELEASED = re.compile(r"3\.\d+\.\d+")
_ARCHIVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+~-]*-install_only(?:_stripped)?\.tar\.gz")
_SUM = re.compile(r"([0-9a-f]{64})(?: [ *](\S+))?")
_DAY = re.compile(r"(?<!\d)(20\d{6})(?!\d)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonDownload:
    """One build of a list."""

    version: str
    machine: str
    url: str
    sha256: str | None = None
    """None: it stands beside the archive."""

    @property
    def file(self) -> str:
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def day(self) -> date | None:
        """Of its release."""
        match = _DAY.search(unquote(urlsplit(self.url).path))
        try:
            return date.fromisoformat(f"{match[1][:4]}-{match[1][4:6]}-{match[1][6:]}") if match else None
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonPlaces:
    """Where this machine looks for standalone pythons."""

    list: str | None = None
    """The address of a list; None: uv's own."""
    mirror: str | None = None
    """What stands for the address that they are published at."""


def python_places(settings: Settings, env: Mapping[str, str]) -> PythonPlaces:
    """What the settings say, else uv's configuration files."""
    said: dict[str, str] = {}
    for table in load_uv_config(uv_config_files(env)):
        for key in ("python-downloads-json-url", "python-install-mirror"):
            if isinstance(table.get(key), str) and table[key]:
                said.setdefault(key, table[key])
    own, mirror = said.get("python-downloads-json-url"), said.get("python-install-mirror")
    if own and own.startswith("/"):
        own = Path(own).as_uri()
    return PythonPlaces(
        list=settings.python_downloads_json_url or own,
        mirror=settings.python_mirror or (mirror.rstrip("/") if mirror else None),
    )


class StandaloneResolver:
    """Turns the python that a spec asks for into a pinned build. ``env`` is this process's environment."""

    name = "standalone"

    def __init__(
        self,
        fetcher: Fetcher,
        places: PythonPlaces,
        *,
        env: Mapping[str, str],
        runner: Runner | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._list = places.list
        self._mirror = places.mirror
        self._env = env
        self._runner = runner or SubprocessRunner()

    def resolve(self, request: PythonRequest) -> dict[Platform, PythonPin]:
        """The newest build that answers, or the preferred ones. An open python is the default Debian
        release's series, where there is a build of it. Archives are fetched, so that what is pinned is there.

        Raises ``ResolveError``: no such python, a list that can't be read, an archive that can't be had."""
        kept = {
            platform: pin
            for platform, pin in request.preferred.items()
            if pin.build is not None and matches_python(request.wanted, pin.version)
        }
        if request.upgrade.allows("python"):
            kept = {}
        versions = {pin.version for pin in kept.values()}
        if len(versions) == 1 and all(platform in kept for platform in request.platforms):
            return {platform: kept[platform] for platform in request.platforms}
        builds = self._downloads(request)
        version = _newest(request, builds, preferred=versions)
        if version is None:
            raise _no_such_python(request, builds)
        chosen = {platform: builds[version, platform.machine] for platform in request.platforms}
        return {
            platform: kept[platform]
            if platform in kept and kept[platform].version == version
            else _pin(self._fetch(download, request.wanted))
            for platform, download in chosen.items()
        }

    def _downloads(self, request: PythonRequest) -> dict[tuple[str, str], PythonDownload]:
        """The builds that may be taken, by version and machine."""
        try:
            listed = list(self._own_list() if self._list is None else self._named_list(self._list))
        except FetchError as error:
            raise ResolveError(
                f"{_asked(request.wanted)}, and the list of standalone builds can't be read: {error.message}",
                hint=f"{_remedy()}; python_downloads_json_url and UV_PYTHON_DOWNLOADS_JSON_URL name the list",
            ) from error
        builds: dict[tuple[str, str], PythonDownload] = {}
        for download in listed:
            late = request.as_of is not None and (download.day is None or download.day > request.as_of)
            if not late:
                builds.setdefault((download.version, download.machine), download)
        return builds

    def _named_list(self, url: str) -> Iterator[PythonDownload]:
        """Those of a list in the format of uv's ``download-metadata.json``."""
        entries = _json(self._fetcher.read(url, limit=_LARGEST_LIST, cache=True), shown(url))
        if not isinstance(entries, dict):
            raise ResolveError(f"{shown(url)} is no list of pythons: it must be an object")
        for entry in entries.values():
            if not isinstance(entry, dict) or entry.get("variant") is not None or entry.get("prerelease"):
                continue
            arch = entry.get("arch")
            if isinstance(arch, dict):
                arch = None if arch.get("variant") else arch.get("family")
            version = ".".join(str(entry.get(part)) for part in ("major", "minor", "patch"))
            sha256 = entry.get("sha256")
            if isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256):
                yield from _download(entry, implementation="name", version=version, arch=arch, sha256=sha256)

    def _own_list(self) -> Iterator[PythonDownload]:
        """Those of the list that this uv was built with."""
        argv = [find_uv(), "python", "list", "--only-downloads", "--all-versions", "--all-platforms"]
        with tempfile.TemporaryDirectory(prefix="envbuild-uv-") as scratch:
            answer = self._runner.run(
                [*argv, "--output-format", "json", "--offline", "--no-config"],
                env=uv_environment(self._env),
                cwd=own_project(Path(scratch)),
            )
        if answer.status != 0:
            raise ResolveError(f"uv doesn't list its pythons: {answer.stderr.strip()[-500:]}")
        entries = _json(answer.stdout.encode(), "uv python list")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("variant") in (None, "default"):
                version, arch = str(entry.get("version")), entry.get("arch")
                yield from _download(
                    entry, implementation="implementation", version=version, arch=arch, sha256=None
                )

    def _fetch(self, download: PythonDownload, wanted: str | None) -> PythonBuild:
        """The build by what its archive is; ``wanted`` is what was asked for."""
        what = f"python {download.version} for {download.machine}"
        try:
            sha256 = download.sha256 or self._stated_sha256(download)
            urls = addresses(download.url, self._mirror)
            path = self._fetcher.files([Download(what=what, urls=urls, sha256=sha256)], stage="resolve")[
                sha256
            ]
            size = path.stat().st_size
        except FetchError as error:
            raise ResolveError(
                f"{_asked(wanted)}, and the standalone build can't be had: {error.message}",
                hint=f"{_remedy()}; ENVBUILD_PYTHON_MIRROR names a mirror of python-build-standalone",
            ) from error
        return PythonBuild(
            version=download.version, url=_without_secrets(download.url), size=size, sha256=sha256
        )

    def _stated_sha256(self, download: PythonDownload) -> str:
        """The hash of an archive as its release states it: in ``SHA256SUMS``, or in a file of its own."""
        failure: FetchError | None = None
        for url in addresses(download.url, self._mirror):
            for stated in (f"{url.rpartition('/')[0]}/SHA256SUMS", f"{url}.sha256"):
                try:
                    text = self._fetcher.read(stated, limit=_LARGEST_SUMS, cache=True).decode(
                        "ascii", "replace"
                    )
                except FilesError as error:
                    failure = failure or error
                    continue
                for line in text.splitlines():
                    match = _SUM.fullmatch(line.strip())
                    if match and match[2] in (None, download.file):
                        return match[1]
        if failure is not None:
            raise failure
        raise ResolveError(
            f"no SHA-256 of {download.file} stands beside it",
            hint="name a list that has the hashes with ENVBUILD_PYTHON_DOWNLOADS_JSON_URL",
        )


def addresses(url: str, mirror: str | None) -> tuple[str, ...]:
    """Where the archive of ``url`` is looked for: on the mirror alone, where it stands for that address."""
    for root in _ROOTS:
        if url.startswith(f"{root}/"):
            path = url.removeprefix(root)
            return (f"{mirror}{path}",) if mirror else tuple(dict.fromkeys((url, f"{_PUBLISHED}{path}")))
    return (url,)


def _download(
    entry: Mapping[str, Any], *, implementation: str, version: str, arch: object, sha256: str | None
) -> Iterator[PythonDownload]:
    """The build that an entry of a list describes, if it is one that an image can have."""
    url = entry.get("url")
    if (entry.get(implementation), entry.get("os"), entry.get("libc")) != ("cpython", "linux", "gnu"):
        return
    if not isinstance(arch, str) or not isinstance(url, str) or not _RELEASED.fullmatch(version):
        return
    try:
        download = PythonDownload(version=version, machine=arch, url=url, sha256=sha256)
        web = urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return
    if web and url.isascii() and url.isprintable() and " " not in url and _ARCHIVE.fullmatch(download.file):
        yield download


def _newest(
    request: PythonRequest, builds: Mapping[tuple[str, str], PythonDownload], *, preferred: set[str]
) -> str | None:
    """The version to take, which every platform has."""
    versions = [
        version
        for version in {version for version, _ in builds}
        if matches_python(request.wanted, version)
        and all((version, platform.machine) in builds for platform in request.platforms)
    ]
    usual = suite_python(DEFAULT_SUITE)
    if request.wanted is None and any(matches_python(usual, version) for version in versions):
        versions = [version for version in versions if matches_python(usual, version)]
    return max(versions, key=lambda version: (version in preferred, _numbers(version)), default=None)


def _no_such_python(request: PythonRequest, builds: Mapping[tuple[str, str], PythonDownload]) -> ResolveError:
    series = sorted({".".join(version.split(".")[:2]) for version, _ in builds}, key=_numbers)
    there = ", ".join(series) if series else "none"
    platforms = ", ".join(map(str, request.platforms))
    bound = f" of {request.as_of} or before" if request.as_of else ""
    return ResolveError(
        f"{_asked(request.wanted)}, and there is no standalone build{bound} of it for {platforms} "
        f"(there are: {there})",
        hint=_remedy(),
    )


def _asked(wanted: str | None) -> str:
    return f"python {wanted or ''} is asked for: {debian_pythons()}".replace("python  is", "a python is")


def _remedy() -> str:
    own = " or ".join(f"'{suite_python(suite)}'" for suite in DEBIAN_SUITES)
    return f"write python: {own}, or python_provider: conda for a python of conda-forge"


def _pin(build: PythonBuild) -> PythonPin:
    series = ".".join(build.version.split(".")[:2])
    return PythonPin(
        version=build.version,
        provider="standalone",
        executable=f"{STANDALONE}/bin/python{series}",
        build=build,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _without_secrets(url: str) -> str:
    """The address without login and query, either of which may be somebody's key."""
    parts = urlsplit(split_credentials(url)[0])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def _json(data: bytes, where: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ResolveError(f"{where} is no list of pythons: {error}") from error
