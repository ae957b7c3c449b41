"""Where this machine gets Debian packages from: settings first, else apt's own configuration."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from envbuild.errors import ResolveError
from envbuild.http.address import shown
from envbuild.lock.debian.control import paragraphs
from envbuild.settings import Settings

_LOG = logging.getLogger(__name__)

APT = Path("/etc/apt")
DEBIAN = "debian"
SECURITY = "debian-security"

_SCHEMES = frozenset({"http", "https", "file", "mirror+file"})
_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+)")
_THIRD_PARTY = re.compile(r"/linux/debian/?$")
"""Vendors' own archives (``…/linux/debian``) carry Debian's name and suites, but not its packages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirrors:
    """Roots of the main and the security archive, without trailing slash. They may hold credentials."""

    main: str
    security: str

    def root(self, archive: str) -> str:
        """The root of ``debian`` or ``debian-security``."""
        return self.security if archive == SECURITY else self.main

    def __repr__(self) -> str:
        return f"Mirrors(main={shown(self.main)!r}, security={shown(self.security)!r})"


def known_mirror(settings: Settings, *, apt: Path = APT) -> Mirrors | None:
    """The mirrors of the settings, else of apt's configuration below ``apt``; None where neither knows one.

    Where only the main archive is known, the security archive is looked for beside it, as Debian's own
    layout has it (``…/debian`` and ``…/debian-security``)."""
    main, security = settings.debian_mirror, settings.debian_security_mirror
    if main is None:
        sources = list(_sources(apt))
        main = next((uri for uri in sources if _last(uri) == DEBIAN), None)
        security = security or next(
            (uri for uri in sources if _last(uri) == SECURITY or _is_old_security(uri)), None
        )
    if main is None:
        return None
    main = main.rstrip("/")
    if security is None:
        security = main.rpartition("/")[0] + f"/{SECURITY}" if _last(main) == DEBIAN else f"{main}-security"
    return Mirrors(main=main, security=security.rstrip("/"))


def mirror(settings: Settings, *, apt: Path = APT) -> Mirrors:
    """As :func:`known_mirror`; raises ``ResolveError`` where there is none."""
    mirrors = known_mirror(settings, apt=apt)
    if mirrors is None:
        raise ResolveError(
            f"no Debian archive is known on this machine: nothing in {apt} names one",
            hint="set ENVBUILD_DEBIAN_MIRROR to the root of a Debian archive, or use image: as base",
        )
    return mirrors


def _sources(apt: Path) -> Iterator[str]:
    """Archive roots that apt's configuration names for ``deb`` packages of ``main``, in apt's order."""
    files = [apt / "sources.list"]
    folder = apt / "sources.list.d"
    if folder.is_dir():
        files += sorted(path for path in folder.iterdir() if path.suffix in (".list", ".sources"))
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            _LOG.warning("ignoring %s: %s", path, type(error).__name__)
            continue
        entries = _deb822(text, path) if path.suffix == ".sources" else _one_line(text)
        for uri, components in entries:
            if "main" not in components:
                continue
            yield from _addresses(uri)


def _one_line(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.strip())
        if match:
            yield match["uri"], match["components"].split()


def _deb822(text: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        stanzas = list(paragraphs(text))
    except ValueError as error:
        _LOG.warning("ignoring %s: %s", path, error)
        return
    for fields in stanzas:
        stanza = {name.lower(): value for name, value in fields.items()}
        if stanza.get("enabled", "yes").lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        if "deb" not in stanza.get("types", "").split():
            continue
        for uri in stanza.get("uris", "").split():
            yield uri, stanza.get("components", "").split()


def _addresses(uri: str) -> Iterator[str]:
    """The address, or those of the list that a ``mirror+file:`` names, as Debian's cloud images have it."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return
    if parts.scheme not in _SCHEMES or _THIRD_PARTY.search(parts.path):
        return
    if parts.scheme != "mirror+file":
        yield uri.rstrip("/")
        return
    try:
        lines = Path(parts.path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        words = line.split()
        if words and not words[0].startswith("#") and urlsplit(words[0]).scheme in ("http", "https", "file"):
            yield words[0].rstrip("/")


def _last(uri: str) -> str:
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2]


def _is_old_security(uri: str) -> bool:
    """Whether this is the security archive under its host's root, as releases before bullseye wrote it."""
    parts = urlsplit(uri)
    return (parts.hostname or "").startswith("security.") and parts.path.strip("/") == ""
