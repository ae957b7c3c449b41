"""Values that several formats share, checked one at a time. Each raises :class:`Refused` with its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from envbuild.errors import UsageError
from envbuild.platforms import PLATFORMS, Platform
from envbuild.redact import SECRET_PARAMETERS, redact
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
        "pipfile",
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
    chosen: list[Platform] = []
    for text in texts:
        try:
            platform = Platform.parse(text)
        except UsageError as error:
            known = ", ".join(f"{platform} ({platform.subdir})" for platform in PLATFORMS)
            raise Refused(f"unknown platform {text!r}", f"known: {known}") from error
        if platform in chosen:
            raise Refused(f"{text!r} names {platform} a second time")
        chosen.append(platform)
    if not chosen:
        raise Refused("names no platform", "leave it out for linux/amd64")
    return tuple(chosen)


VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
"""A reference to an environment variable, in the one form pip and uv expand in requirements files."""

REMEDY = (
    "keep it in netrc, the keyring or the tool's own credential settings, "
    "or write an environment variable as ${VAR}"
)

_TOKEN = re.compile(r"/t/(?!\$\{)[^/\s]+")
_SECRET_PARAMETER = re.compile(SECRET_PARAMETERS, re.IGNORECASE)

# These user names say which keyring entry or token helper to ask; they are no secret by themselves.
_PUBLIC_USERS = frozenset({"__token__", "aws", "oauth2accesstoken", "VssSessionToken"})


def refuse_credential(url: str) -> None:
    """Raises :class:`Refused` if ``url`` holds a user's password, a token, or a signature of its own.

    ``${VAR}`` in their place is accepted: the text is kept, the value is never read here.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Refused(f"{redact(url)!r} is no address: it can't be split into its parts") from error
    user_info, at, _ = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    secret_user = not password and user not in _PUBLIC_USERS and not _is_variable(user)
    if at and (secret_user or (password and not _is_variable(password))):
        raise Refused(f"a credential stands in {redact(url)!r}", REMEDY)
    # A directory may be called t.
    if _TOKEN.search(parts.path) and parts.scheme != "file" and not url.startswith("/"):
        raise Refused(f"a token stands in {redact(url)!r}", REMEDY)
    for name, value in parse_qsl(parts.query):
        if _SECRET_PARAMETER.fullmatch(name) and not _is_variable(value):
            raise Refused(f"a signature or token stands in {redact(url)!r}", REMEDY)


def _is_variable(text: str) -> bool:
    return VARIABLE.fullmatch(text) is not None


_SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|API_?KEY|(?:ACCESS|PRIVATE|ACCOUNT)_KEY)(?:_|$)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
VALUE_LIMIT = 32 << 10
"""Characters."""


def carried(
    variables: Iterable[tuple[str, str]],
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The variables that can be written down, sorted, and a line for each that can't.

    Nobody chose to write them down here, so one that may hold a credential isn't: by its name, or by an
    address in its value.
    """
    kept: dict[str, str] = {}
    lines: list[str] = []
    for name, value in variables:
        try:
            variable_name(name)
            if len(value) > VALUE_LIMIT or "\0" in value:
                raise Refused("its value is longer than any that is meant")
            if _SECRET.search(name):
                raise Refused("may hold a credential: give it when a container is run")
            for address in _ADDRESS.findall(value):
                refuse_credential(address)
        except Refused as refused:
            lines.append(f"environment variable {name[:100]!r}: {refused.what}")
            continue
        kept[name] = value
    return tuple(sorted(kept.items())), tuple(lines)
