"""One requirement line in its canonical text, whatever form pip accepts it in.

Canonical: PEP 503 name, sorted extras and specifiers, marker as ``packaging`` prints it; a file or address
without a name gets the one its file name says (``name @ file:wheels/….whl``). Equal requirements have
equal text. Nothing is fetched, no variable is expanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from envbuild.redact import redact
from envbuild.specs.fields import VARIABLE, refuse_credential
from envbuild.specs.git import GIT_PREFIX, parse_git_address
from envbuild.specs.problems import Refused

_NAMED_URL = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?)\s*@\s*(?P<rest>\S.*)", re.DOTALL
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_EXTRAS = re.compile(r"(?P<location>.*[^\]\s])(?P<extras>\[[^\[\]]*\])")
_VCS = re.compile(r"(?:git|hg|svn|bzr)(?:\+[A-Za-z0-9]+)?:", re.IGNORECASE)
ARCHIVE = re.compile(r"\.(?:whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz|tar)$", re.IGNORECASE)
_HASH = re.compile(r"sha256:[0-9a-f]{64}")

BUILD_REMEDY = (
    "build a wheel of it and name the wheel's file, "
    "or write a Dockerfile (build: {path: .}) for the docker engine"
)


@dataclass(frozen=True, slots=True)
class Directories:
    """Where a relative path in a line starts, and what it is rewritten to be relative to."""

    base: Path
    root: Path


def extra_build_dependencies(table: Mapping[str, object]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What builds miss, by the distributions' normalised names: sorted pairs, as a spec has them.

    Raises :class:`Refused` for anything but names and lists of plain requirements."""
    extra: dict[str, set[str]] = {}
    for written, texts in table.items():
        try:
            name = str(canonicalize_name(written, validate=True))
        except InvalidName as error:
            raise Refused(f"{written!r} is no name of a distribution") from error
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refused(f"{written}: must be a list of requirements, each a text")
        for text in texts:
            try:
                requirement = Requirement(text)
            except (InvalidRequirement, RecursionError, ValueError) as error:
                raise Refused(f"{written}: {redact(text)!r} is no requirement") from error
            if requirement.url is not None:
                raise Refused(f"{written}: {redact(text)!r} has an address", "name a version of an index")
            requirement.name = str(canonicalize_name(requirement.name))
            extra.setdefault(name, set()).add(str(requirement))
    return tuple((name, tuple(sorted(texts))) for name, texts in sorted(extra.items()))


def canonical_requirement(text: str, where: Directories) -> tuple[str, tuple[str, ...]]:
    """The canonical text of a requirement and the hashes of its address's fragment (``sha256:<hex>``).

    Raises :class:`Refused` for what is no requirement, a source tree, version control other than git, a
    credential, and a local file that isn't there.
    """
    text = text.strip()
    named = _NAMED_URL.fullmatch(text)
    if named is not None:
        return _direct(named["name"], named["rest"], where)
    if _is_location(text):
        return _direct(None, text, where)
    if VARIABLE.search(text):
        raise Refused(
            f"{redact(text)!r} uses an environment variable outside an address",
            "write the name and version out, or an identity would depend on this machine",
        )
    requirement = _parse(text)
    return _join(requirement, f"{requirement.specifier}", ""), ()


def name_of(text: str) -> str:
    """The name that a requirement's canonical text begins with."""
    return re.split(r"[^a-z0-9-]", text, maxsplit=1)[0]


def canonical_hash(text: str) -> str:
    """``sha256:<hex>`` of a ``--hash`` option's value; raises :class:`Refused` for another algorithm."""
    value = text.strip().replace("=", ":", 1).lower()
    if _HASH.fullmatch(value) is None:
        raise Refused(f"--hash={text} is no SHA-256 hash", "write --hash=sha256: and 64 hex digits")
    return value


def local_path(written: str, where: Directories) -> str:
    """A path of a line as seen from the root, with forward slashes; an absolute one stays as it is."""
    if Path(written).is_absolute():
        return Path(os.path.normpath(written)).as_posix()
    return Path(os.path.relpath(where.base / written, where.root)).as_posix()


def _is_location(text: str) -> bool:
    head = text.split(";")[0].strip()
    if _SCHEME.match(head) and not head.startswith("${"):
        return True
    bare = _EXTRAS.fullmatch(head)
    head = bare["location"] if bare else head
    return head.startswith((".", "/", "~")) or "/" in head or ARCHIVE.search(head) is not None


def _direct(name: str | None, rest: str, where: Directories) -> tuple[str, tuple[str, ...]]:
    location, marker = _split_marker(rest)
    extras = ""
    if name is None and (bare := _EXTRAS.fullmatch(location)) is not None:
        location, extras = bare["location"], bare["extras"]
    if _VCS.match(location):
        return _git(name, location, extras, marker), ()
    address, fragment = _address(location, where)
    hashes = []
    kept = []
    for part in fragment.split("&") if fragment else ():
        key, _, value = part.partition("=")
        if key in ("sha256", "sha384", "sha512", "sha1", "md5"):
            hashes.append(canonical_hash(f"{key}:{value}"))
        elif key != "egg":
            kept.append(part)
    if kept:
        address += "#" + "&".join(kept)
    own = name if name is not None else _name_in(address) + extras
    requirement = _parse(f"{own} @ {address}" + (f" ; {marker}" if marker else ""))
    return _join(requirement, f" @ {address}", " "), tuple(sorted(set(hashes)))


def _git(name: str | None, location: str, extras: str, marker: str) -> str:
    """The canonical text of a git requirement.

    One that names no distribution is called what its repository is; resolving tells where it is wrong."""
    if not location.startswith(GIT_PREFIX):
        raise Refused(
            f"{redact(location)!r} is a version control address of a kind that isn't fetched", BUILD_REMEDY
        )
    address, egg = parse_git_address(location)
    requirement = _parse(
        f"{name or f'{egg or address.repository}{extras}'} @ {address}" + (f" ; {marker}" if marker else "")
    )
    return _join(requirement, f" @ {address}", " ")


def _split_marker(text: str) -> tuple[str, str]:
    """A location and its marker. In an address only a space before ``;`` begins a marker (PEP 508)."""
    separator = re.search(r"\s;|;\s" if _SCHEME.match(text) or text.startswith("${") else r"\s*;", text)
    if separator is None:
        return text.strip(), ""
    return text[: separator.start()].strip(), text[separator.end() :].strip(" ;\t")


def _address(location: str, where: Directories) -> tuple[str, str]:
    """The address to keep, and its fragment."""
    address, _, fragment = location.partition("#")
    scheme = _SCHEME.match(address)
    if scheme is not None and scheme[0].lower() != "file:":
        if scheme[0].lower() not in ("http:", "https:"):
            raise Refused(f"{redact(location)!r}: addresses begin with https:, http: or file:")
        if re.search(r"\s", address):
            raise Refused(f"{redact(location)!r} has a space", "write it as %20")
        refuse_credential(address)
        return address, fragment
    if scheme is None and VARIABLE.match(address):
        refuse_credential(address)
        return address, fragment
    path = address if scheme is None else _path_of(address)
    return "file:" + quote(_checked(path, where), safe="/${}~"), fragment


def _path_of(address: str) -> str:
    path = address[len("file:") :]
    if path.startswith("//"):
        host, slash, path = path[2:].partition("/")
        if host.lower() not in ("", "localhost") or not slash:
            raise Refused(
                f"{redact(address)!r} names a file of another host", "write file:PATH or file:///PATH"
            )
        path = "/" + path
    return unquote(path)


def _checked(written: str, where: Directories) -> str:
    if VARIABLE.search(written):
        raise Refused(
            f"the path {written!r} uses an environment variable", "write the path relative to this file"
        )
    if "\0" in written:
        raise Refused("a path holds a NUL character")
    path = where.base / written
    try:
        directory, there = path.is_dir(), path.is_file()
    except OSError:
        directory, there = False, False
    if directory:
        raise Refused(f"{redact(written)!r} is a source tree: it would have to be built", BUILD_REMEDY)
    if ARCHIVE.search(written) is None:
        raise Refused(f"{redact(written)!r} is neither a requirement nor the file of a wheel")
    if not there:
        raise Refused(f"{redact(written)!r}: no such file")
    relative = local_path(str(path), where) if not Path(written).is_absolute() else None
    if relative is None:
        try:
            relative = path.relative_to(where.root).as_posix()
        except ValueError as error:
            remedy = "write its path relative to this file: a lock holds no path of one machine"
            raise Refused(f"{written!r} is an absolute path", remedy) from error
    return Path(os.path.relpath(where.root / relative, where.root)).as_posix()


def _name_in(address: str) -> str:
    """The distribution's name as the file name at the end of an address says it."""
    file = unquote(urlsplit(address).path.rsplit("/", 1)[-1])
    try:
        if file.endswith(".whl"):
            return str(parse_wheel_filename(file)[0])
        return str(parse_sdist_filename(file)[0])
    except (InvalidWheelFilename, InvalidSdistFilename) as error:
        remedy = "write it as 'name @ address'"
        raise Refused(f"{redact(address)!r} doesn't say which distribution it is", remedy) from error


def _parse(text: str) -> Requirement:
    try:
        return Requirement(text)
    except (InvalidRequirement, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        wrong = re.match(r"[A-Za-z0-9._-]+(?:\[[^\]]*\])?=(?=[^=])", text)
        remedy = "pip's operator is '==' (a single '=' is conda's)" if wrong else None
        raise Refused(f"{redact(text)!r} is no requirement ({redact(reason)})", remedy) from error


def _join(requirement: Requirement, tail: str, gap: str) -> str:
    extras = sorted({canonicalize_name(extra) for extra in requirement.extras})
    text = canonicalize_name(requirement.name) + (f"[{','.join(extras)}]" if extras else "") + tail
    return f"{text}{gap}; {requirement.marker}" if requirement.marker else text
