"""Addresses: what a person may see of one, and the credentials it or netrc brings."""

from __future__ import annotations

import logging
import netrc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

_LOG = logging.getLogger(__name__)
_TOKEN = re.compile(r"(?<!/pool/main)(?<!/pool/updates/main)/t/[^/]+/")
"""Conda channels carry a token as ``/t/<token>/`` in the path; in Debian's pool, tar lies in ``/t/tar/``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressLogin:
    """A user name and a password; never shown."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(***)"


def shown(url: str) -> str:
    """The address without credentials: no user, no password, no query, no conda token."""
    try:
        parts = urlsplit(url)
        bare = urlunsplit((parts.scheme, _host(parts), parts.path, "", ""))
    except ValueError:
        return "an address that can't be read"
    return _TOKEN.sub("/t/***/", bare)


def split_credentials(url: str) -> tuple[str, AddressLogin | None]:
    """The address without user and password, and these two. Raises ``ValueError`` for no address at all."""
    parts = urlsplit(url)
    bare = urlunsplit((parts.scheme, _host(parts), parts.path, parts.query, ""))
    if parts.username is None:
        return bare, None
    return bare, AddressLogin(user=unquote(parts.username), password=unquote(parts.password or ""))


def same_host(one: str, other: str) -> bool:
    """Whether two addresses are of one scheme, host and port."""
    a, b = urlsplit(one), urlsplit(other)
    return (a.scheme, _host(a).lower()) == (b.scheme, _host(b).lower())


def local_path(url: str) -> Path | None:
    """The path a ``file:`` address names on this machine, or None for any other address."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"a file: address can't name the host {parts.hostname}")
    return Path(unquote(parts.path))


class Netrc:
    """What the machine's netrc says; read once, when first asked. A broken file counts as none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._named = environ.get("NETRC")
        self._home = environ.get("HOME")
        self._read: netrc.netrc | None = None
        self._done = False

    def credentials(self, url: str) -> AddressLogin | None:
        """The credentials of the address's host, if netrc has some."""
        if not self._done:
            self._read = self._load()
            self._done = True
        host = urlsplit(url).hostname
        authenticators = self._read.authenticators(host) if self._read and host else None
        if not authenticators:
            return None
        login, _, password = authenticators
        return AddressLogin(user=login or "", password=password or "")

    def _load(self) -> netrc.netrc | None:
        if self._named:
            candidates = [Path(self._named)]
        else:
            home = Path(self._home) if self._home else Path.home()
            candidates = [home / ".netrc", home / "_netrc"]
        for path in candidates:
            try:
                return netrc.netrc(str(path))
            except FileNotFoundError:
                continue
            except netrc.NetrcParseError as error:
                # The parser's message can quote a token of the file, so only the line is told.
                _LOG.warning("ignoring %s: it can't be read as netrc (line %s)", path, error.lineno)
            except (OSError, UnicodeDecodeError) as error:
                _LOG.warning("ignoring %s: %s", path, type(error).__name__)
        return None


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
