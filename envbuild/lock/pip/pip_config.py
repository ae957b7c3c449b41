"""pip's configuration of this machine: its files, and the places that it names.

Only where to look and how to get there counts: the rest of it (constraints, formats, directories of wheels)
would make a lock that no other machine makes. Variables go before files, and ``[install]`` before
``[global]``, as in pip (*Configuration*, "Precedence").
"""

from __future__ import annotations

import configparser
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from envbuild.http.address import shown
from envbuild.lock.pip.uv_config import config_home, read_config, system_config

_LOG = logging.getLogger(__name__)
_KEYS = ("index-url", "extra-index-url", "no-index", "trusted-host", "cert", "client-cert", "proxy")
_SECTIONS = ("install", "global")


@dataclass(frozen=True, kw_only=True, slots=True)
class PipPlaces:
    """Where this machine's pip looks, and how it gets there. Addresses may hold a login."""

    index: str | None = None
    extra: tuple[str, ...] = ()
    no_index: bool = False
    trusted: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    left_out: tuple[str, ...] = ()
    """Addresses of indexes that are on this machine only: a lock must hold elsewhere."""

    def lines(self, options: Iterable[str] = ()) -> tuple[str, ...]:
        """The indexes as lines of a requirements file. As in pip none of them counts where ``options``, a
        spec's own, name the index or that there is none; that there is none to be asked counts always."""
        if self.no_index:
            return ("--no-index",)
        if names_index(options):
            return ()
        index = (f"--index-url {self.index}",) if self.index else ()
        return (*index, *(f"--extra-index-url {url}" for url in self.extra))


def names_index(options: Iterable[str]) -> bool:
    """Whether a spec's options say which index counts, or that none does."""
    return any(option.split(" ")[0] in ("--index-url", "--no-index") for option in options)


def pip_places(env: Mapping[str, str]) -> PipPlaces:
    """The places that pip's variables and files name."""
    values: dict[str, str] = {}
    for path in reversed(pip_config_files(env)):
        values |= read_pip_config(path)
    for key in _KEYS:
        if text := env.get("PIP_" + key.upper().replace("-", "_")):
            values[key] = text
    # A variable names the index for this one process, as UV_DEFAULT_INDEX does: it counts whatever it names.
    chosen = env.get("PIP_INDEX_URL")
    index, extra = values.get("index-url", "").split()[:1], values.get("extra-index-url", "").split()
    local = tuple(shown(url) for url in (*index, *extra) if not _is_remote(url) and url != chosen)
    for url in local:
        _LOG.debug("pip's index %s is of this machine only, so it doesn't count", url)
    return PipPlaces(
        index=chosen or next(filter(_is_remote, index), None),
        extra=tuple(dict.fromkeys(filter(_is_remote, extra))),
        no_index=values.get("no-index", "").strip().lower() in ("1", "y", "yes", "t", "true", "on"),
        trusted=tuple(values.get("trusted-host", "").split()),
        cert=values.get("cert", "").strip() or None,
        client_cert=values.get("client-cert", "").strip() or None,
        proxy=values.get("proxy", "").strip() or None,
        left_out=local,
    )


def pip_config_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """pip's configuration files, the one that counts most first. A named file that is there takes the place
    of the user's; ``/dev/null`` of all of them."""
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return ()
    home = env.get("HOME")
    user = [
        *(directory / "pip" / "pip.conf" for directory in config_home(env)),
        *([Path(home) / ".pip" / "pip.conf"] if home else []),
    ]
    return (
        *([Path(named)] if named else []),
        Path(sys.prefix) / "pip.conf",
        *([] if named and Path(named).exists() else user),
        Path("/etc/pip.conf"),
        *(directory / "pip" / "pip.conf" for directory in system_config(env)),
    )


def read_pip_config(path: Path) -> dict[str, str]:
    """What holds for ``pip install`` in a file, by the long names of options; a broken file counts as none,
    as its text may be secret."""
    parser = configparser.RawConfigParser()
    try:
        data = read_config(path)
        if data is None:
            return {}
        parser.read_string(data.decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        _LOG.warning("ignoring %s: it can't be read as pip's configuration (%s)", path, type(error).__name__)
        return {}
    return {
        name.lower().replace("_", "-").removeprefix("--"): value
        for section in reversed(_SECTIONS)
        if parser.has_section(section)
        for name, value in parser.items(section)
        if value
    }


def _is_remote(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
