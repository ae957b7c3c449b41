"""A suite's signed statement of what its indexes hash to (``dists/<suite>/InRelease``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from envbuild.errors import FetchError, ResolveError
from envbuild.http.address import shown
from envbuild.http.base import Download, Fetcher
from envbuild.lock.debian.control import paragraphs
from envbuild.lock.debian.keys import Keyring, signed_text

_LIMIT = 4 << 20
"""Bytes an InRelease may have; trixie's has 140 kB."""

_SKEW = timedelta(days=1)
"""How far this machine's clock may lag behind the archive's."""

_COMPRESSIONS = (".gz", ".xz", "")
"""By preference: gzip is a third larger than xz, but takes a tenth of the time to expand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFile:
    """One compressed ``Packages`` file: where it is, and what it hashes to."""

    path: str
    """Below the suite's directory."""
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A verified release. ``root`` is the archive's root, ``suite`` the directory below ``dists``."""

    root: str
    archive: str
    suite: str
    date: datetime
    by_hash: bool
    files: Mapping[str, IndexFile]

    @property
    def directory(self) -> str:
        return f"{self.root}/dists/{self.suite}"

    def packages(self, architecture: str) -> IndexFile:
        """The best compressed index of main for Debian's ``architecture``; raises ``ResolveError``."""
        for suffix in _COMPRESSIONS:
            file = self.files.get(f"main/binary-{architecture}/Packages{suffix}")
            if file is not None:
                return file
        raise ResolveError(f"{shown(self.directory)} has no packages for {architecture}")

    def download(self, index: IndexFile) -> Download:
        """How to get an index: by its hash first, so that a mirror being updated doesn't matter."""
        folder, _, _ = index.path.rpartition("/")
        urls = [f"{self.directory}/{index.path}"]
        if self.by_hash:
            urls.insert(0, f"{self.directory}/{folder}/by-hash/SHA256/{index.sha256}")
        what = f"package index of {self.suite}"
        return Download(what=what, urls=tuple(urls), sha256=index.sha256, size=index.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseTrust:
    """What a release must hold against."""

    keyrings: tuple[Keyring, ...]
    now: datetime
    """The clock's time, aware."""
    check_expiry: bool
    """False for a snapshot, and offline, where an old answer is what was asked for."""


def load_release(
    fetcher: Fetcher,
    *,
    root: str,
    archive: str,
    suite: str,
    trust: ReleaseTrust,
    cache: bool = True,
) -> Release:
    """The verified release of ``suite`` below ``root``. Raises ``ResolveError``: not there, not signed,
    expired, of another suite, from the future."""
    now = trust.now
    url = f"{root}/dists/{suite}/InRelease"
    where = shown(url)
    try:
        document = fetcher.read(url, limit=_LIMIT, cache=cache)
    except FetchError as error:
        raise ResolveError(f"can't read the Debian archive: {error.message}", hint=error.hint) from error
    text = signed_text(document, trust.keyrings, where)
    try:
        (fields,) = paragraphs(text)
        date = _time(fields["Date"])
        files = _files(fields["SHA256"])
        expiry = _time(fields["Valid-Until"]) if "Valid-Until" in fields else None
    except KeyError as error:
        raise ResolveError(f"{where} has no field {error.args[0]}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise ResolveError(f"{where} can't be understood: {error}") from error
    names = {fields.get("Codename", ""), fields.get("Suite", "")}
    if suite not in names:
        raise ResolveError(
            f"{where} is the release of {fields.get('Codename', '?')}, not of {suite}",
            hint="the mirror serves another suite under this name; try another mirror",
        )
    if date > now + _SKEW:
        raise ResolveError(
            f"{where} is dated {date:%Y-%m-%d %H:%M}, which is in the future",
            hint="check this machine's clock",
        )
    if trust.check_expiry and expiry is not None and expiry < now:
        raise ResolveError(
            f"{where} was valid until {expiry:%Y-%m-%d %H:%M} UTC only",
            hint="the mirror is no longer updated, or this machine's clock is wrong; try another mirror",
        )
    by_hash = fields.get("Acquire-By-Hash", "no").lower() == "yes"
    return Release(root=root, archive=archive, suite=suite, date=date, by_hash=by_hash, files=files)


def _files(text: str) -> dict[str, IndexFile]:
    files = {}
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not re.fullmatch(r"[0-9a-f]{64}", words[0]) or not words[1].isdigit():
            raise ValueError(f"not a line of SHA256: {line[:80]!r}")
        files[words[2]] = IndexFile(path=words[2], sha256=words[0], size=int(words[1]))
    return files


def _time(text: str) -> datetime:
    time = parsedate_to_datetime(text)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
