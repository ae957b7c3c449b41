"""uv's configuration of this machine: its files, and the addresses of indexes with their logins.

uv reads all this itself. It is read here for what uv doesn't do: downloads by address, and builds elsewhere.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LOG = logging.getLogger(__name__)
_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)")
LARGEST = 1 << 20
"""Bytes of a settings file that is believed to be one."""


def uv_config_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """uv's files in the order they count: the named one alone, else the user's and the system's."""
    if env.get("UV_CONFIG_FILE"):
        return (Path(env["UV_CONFIG_FILE"]),)
    if env.get("UV_NO_CONFIG", "").lower() in ("1", "t", "true", "y", "yes", "on"):
        return ()
    return (
        *(directory / "uv" / "uv.toml" for directory in config_home(env)),
        *(directory / "uv" / "uv.toml" for directory in system_config(env)),
        Path("/etc/uv/uv.toml"),
    )


def config_home(env: Mapping[str, str]) -> Iterator[Path]:
    """The user's directory for configuration, where there is one (XDG base directories)."""
    if env.get("XDG_CONFIG_HOME", "").startswith("/"):
        yield Path(env["XDG_CONFIG_HOME"])
    elif env.get("HOME"):
        yield Path(env["HOME"]) / ".config"


def system_config(env: Mapping[str, str]) -> Iterator[Path]:
    """The system's directories for configuration (XDG base directories)."""
    for directory in (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        if directory:
            yield Path(directory)


def load_uv_config(files: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    """What the files say, of those that are there. A broken one counts as none, as its text may be secret."""
    for file in files:
        data = read_config(file)
        if data is None:
            continue
        try:
            yield tomllib.loads(data.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            _LOG.warning("ignoring %s: it can't be read as uv's settings (%s)", file, type(error).__name__)


def read_config(file: Path) -> bytes | None:
    """The start of a configuration file; None where it can't be read."""
    try:
        with file.expanduser().open("rb") as source:
            return source.read(LARGEST)
    except OSError:
        return None


def named_index(text: str, env: Mapping[str, str]) -> str:
    """The address of an index as variables have it, ``url`` or ``name=url``, with the login of its name."""
    match = _NAMED.fullmatch(text)
    return index_address(match[2], match[1], env) if match else text


def index_address(url: str, name: str, env: Mapping[str, str]) -> str:
    """``url`` with the login that variables have for the index ``name``, before any of the address's own."""
    key = re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = (env.get(f"UV_INDEX_{key}_{part}", "") for part in ("USERNAME", "PASSWORD"))
    if not name or not (user or password):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))
