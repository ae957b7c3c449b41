"""Exact conda packages as text: the addresses of conda's explicit lists, each with its hash.

``https://…/name-1.0-h0_0.conda#sha256:<hex>``; conda's own form, a bare MD5 after ``#``, is read too.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from envbuild.platforms import Platform
from envbuild.redact import redact
from envbuild.specs.credentials import refuse_credential
from envbuild.specs.model import ExplicitPackage
from envbuild.specs.problems import Refused

_FILE = re.compile(r"[^/\s]+-[^-/\s]+-[^-/\s]+\.(?:conda|tar\.bz2)")
_HASH = re.compile(r"(?:(sha256|md5):)?([0-9a-f]+)")
_DIGITS = {"sha256": 64, "md5": 32}


def explicit_package(text: str, platform: Platform) -> ExplicitPackage:
    """The package that one line names.

    Raises :class:`Refused`: no address of a conda package, a credential in it, no hash or a malformed one.
    """
    url, mark, fragment = text.strip().partition("#")
    refuse_credential(url)
    place = urlsplit(url)
    if place.scheme not in ("https", "http", "file") or not _FILE.fullmatch(place.path.rsplit("/", 1)[-1]):
        raise Refused(
            f"{redact(url)!r} is no address of a conda package", "write https://…/name-version-build.conda"
        )
    if re.search(r"[\s\0]", url):
        raise Refused(f"{redact(url)!r} has a space", "write it as %20")
    found: dict[str, str] = {}
    for part in fragment.lower().split(",") if mark else ():
        match = _HASH.fullmatch(part)
        kind = (match[1] or ("sha256" if len(match[2]) == _DIGITS["sha256"] else "md5")) if match else ""
        if match is None or len(match[2]) != _DIGITS[kind] or kind in found:
            raise Refused(f"{redact(text)!r}: '#' is followed by no hash", "write #sha256: and 64 hex digits")
        found[kind] = match[2]
    if not found:
        raise Refused(f"{redact(url)!r} has no hash", "write #sha256: and 64 hex digits after it")
    return ExplicitPackage(platform=platform, url=url, sha256=found.get("sha256"), md5=found.get("md5"))


def explicit_text(package: ExplicitPackage) -> str:
    """The line that :func:`explicit_package` reads as ``package``."""
    hashes = (("sha256", package.sha256), ("md5", package.md5))
    return package.url + "#" + ",".join(f"{kind}:{value}" for kind, value in hashes if value is not None)


def explicit_match(package: ExplicitPackage) -> str:
    """The match spec of a package: ``name=version=build``, without its channel and hash."""
    file = unquote(urlsplit(package.url).path.rsplit("/", 1)[-1])
    name, version, build = re.sub(r"\.(?:conda|tar\.bz2)$", "", file).rsplit("-", 2)
    return f"{name}={version}={build}"
