"""Credentials that rattler, pixi and rattler-build keep: the file ``RATTLER_AUTH_FILE`` names, else
``~/.rattler/credentials.json``.

Hosts to one method each: ``BearerToken``, ``BasicHTTP`` or ``CondaToken``; ``*.example.org`` stands for all
hosts below. Source: rattler's ``rattler_networking::authentication_storage``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from envbuild.http.address import AddressLogin

_LOG = logging.getLogger(__name__)
_LARGEST = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Bearer:
    """A token sent as ``Authorization: Bearer``; never shown."""

    token: str

    def __repr__(self) -> str:
        return "Bearer(***)"


@dataclass(frozen=True, kw_only=True, slots=True)
class PathToken:
    """A token that conda's servers take in the path, ``/t/<token>/``; never shown."""

    token: str

    def __repr__(self) -> str:
        return "PathToken(***)"

    def applied(self, url: str) -> str:
        """``url`` with the token in it, unless one is there."""
        parts = urlsplit(url)
        if parts.path.startswith("/t/"):
            return url
        path = f"/t/{quote(self.token, safe='')}{parts.path or '/'}"
        return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


Access = AddressLogin | Bearer | PathToken


class AuthFile:
    """Reads the file once, when first asked. One that is broken counts as none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._named = environ.get("RATTLER_AUTH_FILE")
        self._home = environ.get("HOME")
        self._hosts: Mapping[str, Any] | None = None

    def access(self, url: str) -> Access | None:
        """What the file has for the address's host: its own name first, then the nearest wildcard."""
        if self._hosts is None:
            self._hosts = self._load()
        host = (urlsplit(url).hostname or "").lower()
        for name in _names(host):
            if name in self._hosts:
                return _access(self._hosts[name])
        return None

    def _load(self) -> Mapping[str, Any]:
        home = Path(self._home) if self._home else Path.home()
        path = Path(self._named) if self._named else home / ".rattler" / "credentials.json"
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_LARGEST))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            # The text of a parser's error could quote a token.
            _LOG.warning(
                "ignoring %s: it can't be read as rattler's auth file (%s)", path, type(error).__name__
            )
            return {}
        return (
            {str(name).lower(): value for name, value in document.items()}
            if isinstance(document, dict)
            else {}
        )


def _names(host: str) -> Iterator[str]:
    yield host
    rest = host
    while rest:
        yield f"*.{rest}"
        rest = rest.partition(".")[2]


def _access(stated: object) -> Access | None:
    if not isinstance(stated, dict):
        return None
    for key, value in stated.items():
        kind = str(key).lower()
        if kind == "bearertoken" and isinstance(value, str):
            return Bearer(token=value)
        if kind == "condatoken" and isinstance(value, str):
            return PathToken(token=value)
        if kind == "basichttp" and isinstance(value, dict):
            return AddressLogin(user=str(value.get("username", "")), password=str(value.get("password", "")))
    return None
