"""Conda match specs as text: one canonical spacing, no version rewritten."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from envbuild.lazy import lazy
from envbuild.platforms import Platform
from envbuild.redact import redact
from envbuild.specs.fields import refuse_credential
from envbuild.specs.model import ExplicitPackage
from envbuild.specs.problems import Refused

if TYPE_CHECKING:
    import rattler
    from rattler import exceptions as rattler_exceptions
else:
    rattler = lazy("rattler")
    rattler_exceptions = lazy("rattler.exceptions")

_SPEC = re.compile(
    r"(?:(?P<channel>\S+?)\s*::\s*)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.\-]*)\s*(?P<core>[^\[\]]*?)\s*(?P<bracket>\[.*\])?",
    re.DOTALL,
)
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})*(?:(?:a|b|rc)[0-9]{1,9})?(?:\.\*)?"
_OPERATOR = r"(?:==|!=|<=|>=|<|>|=)"
# Canonical specs of this form are surely valid, so that reading the usual file needn't import rattler.
_PLAIN = re.compile(
    rf"(?:[a-z][a-z0-9_-]*(?:/linux-64)?::)?[a-z_][a-z0-9_-]*"
    rf"(?:(?: |{_OPERATOR}){_NUMBER}(?:[,|]{_OPERATOR}?{_NUMBER})*(?:=(?:[a-z0-9_]|\*(?!\*))+)?)?"
)
_VERSION_IN_BRACKET = re.compile(r"""\bversion\s*=\s*(?:'([^']*)'|"([^"]*)"|([^,\]]+))""")


@dataclass(frozen=True, slots=True)
class MatchSpecText:
    """The parts of a match spec; ``version`` and ``build`` as written, None where absent."""

    channel: str | None
    name: str
    version: str | None
    build: str | None


def canonical_match(text: str) -> str:
    """``text`` in one spacing, its name in lower case.

    ``numpy>=1,<2``, ``numpy 1.26.*``, ``channel::name=1.26=build``: no space before an operator, one before
    anything else.

    Raises :class:`Refused` for what rattler can't parse, and for a credential in its channel.
    """
    spec = re.sub(r"(?:^|\s)#.*$", "", text).strip()
    refused = Refused(f"{redact(text)!r} is no match spec of conda", _remedy(spec))
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise refused
    for address in re.findall(r"[a-z]+://[^\s,'\"\]]+", spec):
        refuse_credential(address)
    canonical = (f"{parts['channel']}::" if parts["channel"] else "") + parts["name"].lower()
    core = _tight(parts["core"])
    if core:
        canonical += core if core[0] in "=<>!~" else f" {core}"
    canonical += (parts["bracket"] or "").strip()
    _check(canonical, refused)
    return canonical


def split_match(text: str) -> MatchSpecText:
    """The parts of a canonical match spec."""
    parts = _SPEC.fullmatch(text.strip())
    if parts is None:
        raise Refused(f"{redact(text)!r} is no match spec of conda")
    version, build = _version_and_build(_tight(parts["core"]))
    bracket = _VERSION_IN_BRACKET.search(parts["bracket"] or "")
    if bracket is not None:
        version = next(group for group in bracket.groups() if group is not None).strip()
    return MatchSpecText(parts["channel"], parts["name"].lower(), version, build)


def _tight(core: str) -> str:
    core = re.sub(r"\s*([,|])\s*", r"\1", core.strip())
    return " ".join(re.sub(r"(===|==|>=|<=|!=|~=|=|<|>)\s+", r"\1", core).split())


def _version_and_build(core: str) -> tuple[str | None, str | None]:
    if not core:
        return None, None
    version, _, build = core.partition(" ")
    exact = re.fullmatch(r"(=?[^=<>!~]+)=([^=]+)", version)
    if exact is not None and not build:
        version, build = exact[1], exact[2]
    if version.startswith("=") and not version.startswith("=="):
        version = version[1:]
    return version, build or None


def _check(canonical: str, refused: Refused) -> None:
    if _PLAIN.fullmatch(canonical):
        return

    try:
        build = rattler.MatchSpec(canonical, strict=False).build
    except rattler_exceptions.InvalidMatchSpecError as error:
        reason = redact((str(error).splitlines() or [""])[0])
        raise Refused(f"{refused.what} ({reason})", refused.remedy) from error
    if build is not None and re.search(r"\s", str(build)):
        raise refused


def _remedy(spec: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9_.-]+\[[A-Za-z0-9_,\s-]+\].*", spec):
        return "extras are pip's: write it under 'pip:'"
    if re.match(r"[A-Za-z0-9_.-]+\s*=>|[A-Za-z0-9_.-]+\s*=<", spec):
        return "operators are >= and <="
    return None


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
    hashes: dict[str, str] = {}
    for part in fragment.lower().split(",") if mark else ():
        match = _HASH.fullmatch(part)
        kind = (match[1] or ("sha256" if len(match[2]) == _DIGITS["sha256"] else "md5")) if match else ""
        if match is None or len(match[2]) != _DIGITS[kind] or kind in hashes:
            raise Refused(f"{redact(text)!r}: '#' is followed by no hash", "write #sha256: and 64 hex digits")
        hashes[kind] = match[2]
    if not hashes:
        raise Refused(f"{redact(url)!r} has no hash", "write #sha256: and 64 hex digits after it")
    return ExplicitPackage(platform=platform, url=url, sha256=hashes.get("sha256"), md5=hashes.get("md5"))


def explicit_text(package: ExplicitPackage) -> str:
    """The line that :func:`explicit_package` reads as ``package``."""
    hashes = (("sha256", package.sha256), ("md5", package.md5))
    return package.url + "#" + ",".join(f"{kind}:{value}" for kind, value in hashes if value is not None)


def explicit_match(package: ExplicitPackage) -> str:
    """The match spec of a package: ``name=version=build``, without its channel and hash."""
    file = unquote(urlsplit(package.url).path.rsplit("/", 1)[-1])
    name, version, build = re.sub(r"\.(?:conda|tar\.bz2)$", "", file).rsplit("-", 2)
    return f"{name}={version}={build}"
