"""Distributions that another tool's lock pins, as requirements that are all there is.

What an index has is pinned by version and hashes, because an index's address is a setting of the machine.
What comes from elsewhere is pinned by its address. Nothing here trusts a text of the lock: each becomes a
requirement through the same checks as a line that people write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from envbuild.platforms import LINUX_AMD64, Platform
from envbuild.redact import redact
from envbuild.specs.fields import refuse_credential
from envbuild.specs.git import GIT_PREFIX
from envbuild.specs.importers.pip.requirement import (
    BUILD_REMEDY,
    Directories,
    canonical_hash,
    canonical_requirement,
    local_path,
)
from envbuild.specs.model import Origin, PipRequirement, PipSpec
from envbuild.specs.problems import Refused

_PUBLIC = re.compile(r"/packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[^/]+")
"""Where the default index keeps a file, and every mirror of it: by the digest of its content."""
_NOT_A_FILE = re.compile(r"(?:git|hg|svn|bzr)\+|.*\.git(?:[@#?]|$)", re.IGNORECASE)


def pinned(
    name: str, version: str, hashes: Iterable[str], origin: Origin, *, marker: str = ""
) -> PipRequirement:
    """``name==version`` with the hashes of its files (``sha256:<hex>``). Raises :class:`Refused`."""
    try:
        text = f"{canonicalize_name(name, validate=True)}=={Version(version)}"
    except (InvalidName, InvalidVersion) as error:
        raise Refused(
            f"{redact(name)!r} {redact(version)!r} is no distribution's name and version"
        ) from error
    return PipRequirement(text=with_marker(text, marker), hashes=_hashes(hashes), origin=origin)


def direct(
    name: str, address: str, hashes: Iterable[str], origin: Origin, where: Path, *, marker: str = ""
) -> PipRequirement:
    """``name @ address``; a path is one from ``where``, the spec's directory. Raises :class:`Refused`."""
    if _NOT_A_FILE.match(address) and not address.startswith(GIT_PREFIX):
        raise Refused(
            f"{redact(address)!r} is a repository: it would have to be cloned and built", BUILD_REMEDY
        )
    try:
        written = f"{canonicalize_name(name, validate=True)} @ {address}"
    except InvalidName as error:
        raise Refused(f"{redact(name)!r} is no name of a distribution") from error
    text, more = canonical_requirement(written, Directories(where, where))
    # What another tool hashed of a repository is no file that is had here: the commit says what it is.
    kept = () if f" @ {GIT_PREFIX}" in text else _hashes((*hashes, *more))
    return PipRequirement(text=with_marker(text, marker), hashes=kept, origin=origin)


def is_public(address: str) -> bool:
    """Whether a file's address is one of the default index or of a mirror: whichever index a machine is set
    to then has it."""
    try:
        return _PUBLIC.search(urlsplit(address).path) is not None
    except ValueError:
        return False


def by_address(
    name: str | None, address: str, hashes: Iterable[str], origin: Origin, where: Path
) -> PipRequirement:
    """What a file at ``address`` pins: a version of the default index's, or the address itself.

    ``name`` is None where only the file says it. Raises :class:`Refused`."""
    file = file_name(address)
    stated = _stated(file)
    if name is None:
        if stated is None:
            raise Refused(
                f"{redact(address)!r} is no wheel and no source archive: it would have to be built",
                BUILD_REMEDY,
            )
        name = stated[0]
    if stated is not None and is_public(address):
        if stated[0] != canonicalize_name(name):
            raise Refused(f"{redact(address)!r} is no file of {name!r}")
        return pinned(name, stated[1], hashes, origin)
    return direct(name, address, hashes, origin, where)


def file_name(address: str) -> str:
    """The file at the end of an address or path; raises :class:`Refused` for what is no address at all."""
    try:
        path = urlsplit(address).path
    except ValueError as error:
        raise Refused(f"{redact(address)!r} is no address") from error
    return unquote(path).rsplit("/", 1)[-1]


def on_platforms(by_platform: Mapping[Platform, Sequence[PipRequirement]]) -> tuple[PipRequirement, ...]:
    """One list of the lists of several platforms: what isn't the same on all of them gets a marker."""
    lines: dict[tuple[str, tuple[str, ...]], tuple[PipRequirement, list[Platform]]] = {}
    for platform, requirements in sorted(by_platform.items()):
        for requirement in requirements:
            lines.setdefault(requirement.canonical, (requirement, []))[1].append(platform)
    result = []
    for line, platforms in lines.values():
        if len(set(platforms)) == len(by_platform):
            result.append(line)
            continue
        for platform in dict.fromkeys(platforms):
            text = with_marker(line.text, f'platform_machine == "{platform.machine}"')
            result.append(PipRequirement(text=text, hashes=line.hashes, origin=line.origin))
    return tuple(sorted(result, key=lambda requirement: requirement.canonical))


def image_platforms(fitting: tuple[Platform, ...]) -> tuple[Platform, ...]:
    """Those of a lock that doesn't say which images are wanted: amd64 where it fits, else all that fit."""
    return (LINUX_AMD64,) if LINUX_AMD64 in fitting else fitting


def all_there_is(
    requirements: Iterable[PipRequirement], registries: Mapping[str, bool], options: Iterable[str]
) -> PipSpec:
    """The requirements sorted; as options the indexes they are from (see ``index_options``), then
    ``options``."""
    ordered = tuple(sorted(requirements, key=lambda requirement: requirement.canonical))
    return PipSpec(
        requirements=ordered, options=(*index_options(registries), *options), complete=bool(ordered)
    )


def index_address(text: str) -> str:
    """The address of a lock's index, without a slash at its end. Raises :class:`Refused`: none, or one with a
    credential."""
    refuse_credential(text)
    if not re.fullmatch(r"(?:https?|file)://[^\s'\"\\#]+", text) or not text.isprintable():
        raise Refused(f"{redact(text)!r} is no address of an index")
    return text.rstrip("/")


def links_option(directory: str, where: Path) -> str:
    """The option that names a directory of distributions; a path from ``where``. Raises :class:`Refused`."""
    if not re.fullmatch(r"[^\s'\"\\#${}]+", directory) or not directory.isprintable():
        raise Refused(f"the directory {directory!r} can't be named in an option", "rename it")
    try:
        there = (where / directory).is_dir()
    except OSError:  # A name that is too long.
        there = False
    if not there:
        raise Refused(f"{directory[:200]!r}: no such directory")
    return f"--find-links {local_path(directory, Directories(where, where))}"


def index_options(registries: Mapping[str, bool]) -> tuple[str, ...]:
    """The options that name a lock's indexes, in its order: address to whether all of its files are public.

    Such an index isn't named, as its address is a setting of the machine; another that is the only one takes
    its place."""
    others = [registry for registry, public in registries.items() if not public]
    option = "--extra-index-url" if len(others) < len(registries) else "--index-url"
    return tuple(
        f"{option if number == 0 else '--extra-index-url'} {other}" for number, other in enumerate(others)
    )


def with_marker(text: str, marker: str) -> str:
    """A requirement's canonical text with a marker; an address is parted from it by a space."""
    if not marker:
        return text
    return f"{text}{' ' if ' @ ' in text else ''}; {marker}"


def _hashes(hashes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({canonical_hash(digest) for digest in hashes}))


def _stated(file: str) -> tuple[str, str] | None:
    """Name and version that a file's name says."""
    try:
        name_and_version = (
            parse_wheel_filename(file)[:2] if file.endswith(".whl") else parse_sdist_filename(file)
        )
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return str(name_and_version[0]), str(name_and_version[1])
