"""Values that several formats share, checked one at a time. Each raises :class:`Refused` with its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from envbuild.errors import UsageError
from envbuild.platforms import PLATFORMS, Platform
from envbuild.specs.problems import Refused

NAME_PATTERN = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}"
VERSION_PATTERN = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}"
VARIABLE_PATTERN = "[A-Za-z_][A-Za-z0-9_]*"
PYTHON_PATTERN = r"(===?|!=|<=|>=|~=|=|<|>)?\s*[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.?\*)?"
USER_PATTERN = r"[0-9]{1,10}(:[0-9]{1,10})?|root(:root)?"

# File names that say which format a file has and nothing about what it describes.
_GENERIC = frozenset(
    {
        "conda",
        "conda_dependencies",
        "conda_env",
        "conda-env",
        "conda-lock",
        "env",
        "environment",
        "envbuild",
        "pixi",
        "requirements",
    }
)


def name(text: str) -> str:
    if re.fullmatch(NAME_PATTERN, text) is None:
        raise Refused(
            f"{text!r} is no name of an environment",
            "a letter or digit, then up to 254 letters, digits, '.', '_' or '-'",
        )
    return text


def fit_name(text: str) -> str:
    """``text`` with everything a name can't hold replaced, never empty."""
    cleaned = re.sub(r"[^a-zA-Z0-9._-]+", "-", text).lstrip("._-").rstrip("-")
    return cleaned[:255] or "environment"


def default_name(path: Path) -> str:
    """The name of a spec that gives none: its file's stem, or its directory's name.

    The directory counts where the stem says only the format (``environment.yml``, ``requirements.txt``).
    """
    path = path.absolute()
    return fit_name(path.parent.name if path.stem.lower() in _GENERIC else path.stem)


def variable_name(text: str) -> str:
    if re.fullmatch(VARIABLE_PATTERN, text) is None:
        raise Refused(
            f"{text!r} is no name of an environment variable", "letters, digits and '_', not a digit first"
        )
    return text


def python(text: str) -> str:
    """A version or constraint as written, without outer spaces."""
    parts = [part.strip() for part in re.split(r"[,|]", text)]
    if not all(re.fullmatch(PYTHON_PATTERN, part) for part in parts):
        raise Refused(f"{text!r} is no version of Python", "write 3.11, 3.11.*, or >=3.10,<3.13")
    return text.strip()


def debian_package(text: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", text) is None:
        raise Refused(
            f"{text!r} is no name of a Debian package",
            "the name alone: the lock pins its version and architecture",
        )
    return text


def user(text: str) -> str:
    """``uid:gid`` in plain decimal; a bare uid is its own group."""
    if re.fullmatch(USER_PATTERN, text) is None:
        raise Refused(
            f"{text!r} is no user",
            "write uid:gid in numbers (1000:1000): names would need a look into the base",
        )
    uid, _, gid = text.replace("root", "0").partition(":")
    numbers = int(uid), int(gid or uid)
    if max(numbers) > 0xFFFFFFFE:
        raise Refused(f"{text!r} is no user", "uid and gid are at most 4294967294")
    return f"{numbers[0]}:{numbers[1]}"


def platforms(texts: Iterable[str]) -> tuple[Platform, ...]:
    """Platforms in the order written; refuses unknown ones, one named twice, and none at all."""
    found: list[Platform] = []
    for text in texts:
        try:
            platform = Platform.parse(text)
        except UsageError as error:
            known = ", ".join(f"{each} ({each.subdir})" for each in PLATFORMS)
            raise Refused(f"unknown platform {text!r}", f"known: {known}") from error
        if platform in found:
            raise Refused(f"{text!r} names {platform} a second time")
        found.append(platform)
    if not found:
        raise Refused("names no platform", "leave it out for linux/amd64")
    return tuple(found)
