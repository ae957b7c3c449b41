"""Credentials of Python package indexes, put on the addresses of their files.

uv knows who it is to an index but gives addresses without that. What it reads from its variables and its
configuration is read here alike, is put on an address in memory only, and on none of another host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from envbuild.http.address import same_host
from envbuild.lock.pip.command import uv_environment
from envbuild.lock.pip.runner import Runner
from envbuild.lock.pip.uv_config import index_address, load_uv_config, named_index, uv_config_files

_LISTS = (
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    "PIP_EXTRA_INDEX_URL",
)


class IndexLogins:
    """Knows the indexes of this machine and of ``options``. ``env`` is the environment of this process."""

    def __init__(self, env: Mapping[str, str], options: Sequence[str], runner: Runner) -> None:
        self._env = uv_environment(env)
        self._options = options
        self._runner = runner
        self._indexes: list[str] | None = None
        self._asked: dict[tuple[str, str], str | None] = {}

    def applied(self, url: str) -> str:
        """``url`` with the user and password of the index it is of, where one is known; else as it is, and
        netrc may know more."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            return url
        if self._indexes is None:
            self._indexes = [each for each in self._known() if _has_login(each)]
        near = [index for index in self._indexes if same_host(index, url)]
        for index in sorted(near, key=lambda each: _shared(each, url), reverse=True):
            login = self._login(index)
            if login:
                return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))
        return url

    def _login(self, index: str) -> str | None:
        """``user:password`` of an index's address, quoted; the keyring is asked for a password it lacks."""
        info = urlsplit(index).netloc.rpartition("@")[0]
        user, colon, _ = info.partition(":")
        if colon or self._env.get("UV_KEYRING_PROVIDER") != "subprocess":
            return info
        parts = urlsplit(index)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        for service in (bare, urlsplit(bare).netloc):
            key = (service, unquote(user))
            if key not in self._asked:
                self._asked[key] = self._ask(*key)
            password = self._asked[key]
            if password:
                return f"{user}:{quote(password, safe='')}"
        return None

    def _ask(self, service: str, user: str) -> str | None:
        try:
            answer = self._runner.run(["keyring", "get", service, user], env=self._env, cwd=Path("/"))
        except OSError:
            return None
        return answer.stdout.rstrip("\r\n") if answer.status == 0 else None

    def _known(self) -> Iterator[str]:
        """Addresses of indexes, each with the credentials that uv would use for it."""
        for option in self._options:
            yield re.split(r"[ =]", option, maxsplit=1)[-1].strip()
        for variable in _LISTS:
            for text in self._env.get(variable, "").split():
                yield named_index(text, self._env)
        for settings in load_uv_config(uv_config_files(self._env)):
            for table in (settings, settings.get("pip")):
                yield from self._configured(table if isinstance(table, dict) else {})

    def _configured(self, table: Mapping[str, Any]) -> Iterator[str]:
        for index in table.get("index") or ():
            if isinstance(index, dict) and isinstance(index.get("url"), str):
                yield index_address(index["url"], str(index.get("name") or ""), self._env)
        extra = table.get("extra-index-url")
        for url in (table.get("index-url"), *(extra if isinstance(extra, list) else ())):
            if isinstance(url, str):
                yield url


def _has_login(index: str) -> bool:
    """Whether the address names a user. One that can't be read doesn't: uv has said what is wrong with it."""
    try:
        return "@" in urlsplit(index).netloc
    except ValueError:
        return False


def _shared(index: str, url: str) -> int:
    """How many parts of their paths two addresses share from the start: who is asked on a shared host."""
    pairs = zip(urlsplit(index).path.split("/"), urlsplit(url).path.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
