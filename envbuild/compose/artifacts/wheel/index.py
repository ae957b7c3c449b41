"""Package indexes: uv as it is asked about pinned files, and the credentials for their addresses.

uv knows who it is to an index but gives addresses without that. What it reads from its variables and its
configuration is read here alike, is put on an address in memory only, and on none of another host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from envbuild.compose.base import ComposeContext, SourceTarget
from envbuild.http.address import same_host
from envbuild.http.base import HostAccess
from envbuild.lock.base import PipTarget
from envbuild.lock.model import PipPin, glibc_of
from envbuild.lock.pip.command import (
    expand,
    find_uv,
    index_options,
    own_project,
    python_options,
    secrets,
    uv_environment,
)
from envbuild.lock.pip.package_index import open_address, own_indexes, write_project
from envbuild.lock.pip.runner import Completed, Runner, SubprocessRunner
from envbuild.lock.pip.uv_config import index_address, load_uv_config, named_index, uv_config_files
from envbuild.redact import clean
from envbuild.specs.model import PackageIndex
from envbuild.specs.paths import located_address

_TLS = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_PROXIES = tuple(
    form for name in ("http", "https", "all", "no") for form in (f"{name}_proxy", f"{name}_proxy".upper())
)
_LISTS = (
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    "PIP_EXTRA_INDEX_URL",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageIndexes:
    """Where the pinned files of Python packages are looked for. ``env`` is the environment of this process,
    from which uv's own settings are taken."""

    env: Mapping[str, str]
    options: tuple[str, ...] = ()
    """The spec's (``--index-url``…): where to look is no part of a lock."""
    own: Mapping[str, PackageIndex] = field(default_factory=dict)
    """The indexes of single distributions, by the names of these."""
    more: tuple[str, ...] = ()
    """The spec's options for indexes that may have any file that is pinned."""
    locate: Callable[[str], str] = str
    """Makes the address that a pin states an absolute one."""
    offline: bool = False
    """Only what is in the store and in uv's cache."""
    runner: Runner = field(default_factory=SubprocessRunner)
    executable: str | None = None
    """uv's, where it isn't the one that its distribution brought."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Where to look for files that are pinned, for a requirements file."""
        return index_options((*self.options, *self.more), self.env)

    @property
    def open_lines(self) -> tuple[str, ...]:
        """Where to look for what isn't pinned."""
        return index_options(self.options, self.env)

    def address(self, pin: PipPin) -> str | None:
        """Where ``pin`` itself says that its file is."""
        return self.locate(expand(pin.url, self.env)) if pin.url else None

    def run_uv(self, arguments: Sequence[str], directory: Path, *, log: str | None = None) -> Completed:
        """Runs uv in ``directory``. ``log`` says what of its work it is to tell (``RUST_LOG``)."""
        env = uv_environment(self.env, self.options)
        if log is not None:
            env["RUST_LOG"] = log
        argv = [self.executable or find_uv(), *arguments]
        return self.runner.run(argv, env=env, cwd=own_project(directory))

    def compile_pins(self, pins: Sequence[PipPin], options: Sequence[str], directory: Path) -> Completed:
        """Has uv write into ``directory/pylock.toml`` which files the indexes have of the versions ``pins``.

        Without dependencies it needs no metadata, for which it would run an sdist's own code."""
        files = self.write_pins(pins, directory, hashes=False)
        return self.run_uv(
            [
                *("pip", "compile", *files, "--quiet", "--no-header", "--no-deps"),
                *python_options(),
                # The lock says which file it is, so any index may have it.
                *("--index-strategy", "unsafe-best-match"),
                *options,
                *("--format", "pylock.toml", "--output-file", "pylock.toml"),
            ],
            directory,
        )

    def write_pins(self, pins: Sequence[PipPin], directory: Path, *, hashes: bool) -> tuple[str, ...]:
        """The files, below ``directory``, that ask uv for ``pins``; with ``hashes`` their hashes too, where
        the last file holds constraints if there are several.

        They say ``===``: two signs would let another index's 2.9.0+cpu stand for 2.9.0."""
        indexed: dict[str, list[str]] = {}
        lines, hashed = list(self.lines), []
        for pin in pins:
            url = self.address(pin)
            text = f"{pin.name} @ {url}" if url else f"{pin.name}==={pin.version}"
            line = f"{text} --hash=sha256:{pin.sha256}" if hashes else text
            if pin.name in self.own and not url:
                indexed[pin.name] = [text]
                hashed.append(line)
            else:
                lines.append(line)
        # Read by uv from files that nobody else can read: addresses may hold credentials.
        directory.chmod(0o700)
        (directory / "requirements.in").write_text("\n".join(lines) + "\n", encoding="utf-8")
        files = ("requirements.in", *write_project(directory, indexed, self.own, self.env))
        if not (hashes and indexed):
            return files
        (directory / "hashes.txt").write_text("\n".join(hashed) + "\n", encoding="utf-8")
        return (*files, "hashes.txt")

    def explanation(self, log: str, directory: Path, addresses: Sequence[str] = ()) -> str:
        """What uv wrote, without secrets (those in ``addresses`` neither) and paths of ``directory``."""
        hidden = secrets(
            [*self.options, *self.more, *(index.url for index in self.own.values()), *addresses], self.env
        )
        return clean(log, hidden).replace(f"{directory}/", "")


def package_indexes(context: ComposeContext, target: SourceTarget | None = None) -> PackageIndexes:
    """The indexes for what is pinned for ``target``. Of a target that isn't known those with a marker may
    have any file."""
    indexes, own = context.inputs.package_indexes, None
    if target is not None and target.python is not None:
        python, glibc = target.python.version, glibc_of(target.base)
        own = own_indexes(indexes, PipTarget(platform=target.platform, python=python, glibc=glibc))
    return PackageIndexes(
        env=context.environ,
        options=context.inputs.pip_options,
        own=own if own is not None else own_indexes(indexes, None),
        more=tuple(index.option for index in indexes) if own is None else (),
        locate=partial(located_address, directory=context.inputs.directory),
        offline=context.settings.offline,
    )


class IndexLogins:
    """The credentials that this machine and the spec's options state for indexes."""

    def __init__(self, indexes: PackageIndexes) -> None:
        self._env = uv_environment(indexes.env)
        self._usual = indexes.env
        self._reached = uv_environment(indexes.env, indexes.options)
        self._options = indexes.lines
        self._own = tuple(indexes.own.values())
        self._runner = indexes.runner
        self._addresses: list[str] | None = None
        self._passwords: dict[tuple[str, str], str | None] = {}

    def add_login(self, url: str) -> str:
        """``url`` with the user and password of the index it is of, where one is known; else as it is, and
        netrc may know more."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            return url
        if self._addresses is None:
            self._addresses = [index for index in self._list_indexes() if _has_login(index)]
        near = [index for index in self._addresses if same_host(index, url)]
        for index in sorted(near, key=lambda index: _shared_parts(index, url), reverse=True):
            login = self._login(index)
            if login:
                return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))
        return url

    def host_access(self) -> HostAccess | None:
        """How uv reaches the indexes, where it isn't how everything else is reached: by settings of uv and
        pip, and a spec's trusted hosts. Its client certificate is for the hosts of indexes that are named."""
        given, usual = self._reached, self._usual
        names = [name for name in (*_TLS, *_PROXIES) if name in given]
        cert = given.get("SSL_CLIENT_CERT")
        hosts = re.split(r"[\s,]+", given.get("UV_INSECURE_HOST", "").lower())
        access = HostAccess(
            variables=tuple((name, given[name]) for name in names),
            client_cert=Path(cert).expanduser() if cert else None,
            client_hosts=frozenset(filter(None, map(_tls_host, self._list_indexes())))
            if cert
            else frozenset(),
            insecure=frozenset(filter(None, hosts)),
        )
        plain = not cert and not access.insecure and all(usual.get(name) == given[name] for name in names)
        return None if plain else access

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
            if key not in self._passwords:
                self._passwords[key] = self._ask_keyring(*key)
            password = self._passwords[key]
            if password:
                return f"{user}:{quote(password, safe='')}"
        return None

    def _ask_keyring(self, service: str, user: str) -> str | None:
        try:
            answer = self._runner.run(["keyring", "get", service, user], env=self._env, cwd=Path("/"))
        except OSError:
            return None
        return answer.stdout.rstrip("\r\n") if answer.status == 0 else None

    def _list_indexes(self) -> Iterator[str]:
        """Addresses of indexes, each with the credentials that uv would use for it."""
        yield from (open_address(index, self._env) for index in self._own)
        for option in self._options:
            yield re.split(r"[ =]", option, maxsplit=1)[-1].strip()
        for variable in _LISTS:
            for text in self._env.get(variable, "").split():
                yield named_index(text, self._env)
        for settings in load_uv_config(uv_config_files(self._env)):
            for table in (settings, settings.get("pip")):
                yield from self._configured_indexes(table if isinstance(table, dict) else {})

    def _configured_indexes(self, table: Mapping[str, Any]) -> Iterator[str]:
        for index in table.get("index") or ():
            if isinstance(index, dict) and isinstance(index.get("url"), str):
                yield index_address(index["url"], str(index.get("name") or ""), self._env)
        extra = table.get("extra-index-url")
        for url in (table.get("index-url"), *(extra if isinstance(extra, list) else ())):
            if isinstance(url, str):
                yield url


def _tls_host(index: str) -> str | None:
    """``HOST[:PORT]`` of an index that TLS leads to, without a port that goes without saying."""
    try:
        parts = urlsplit(index)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host if port in (None, 443) else f"{host}:{port}"


def _has_login(index: str) -> bool:
    """Whether the address names a user. One that can't be read doesn't: uv has said what is wrong with it."""
    try:
        return "@" in urlsplit(index).netloc
    except ValueError:
        return False


def _shared_parts(index: str, url: str) -> int:
    """How many parts of their paths two addresses share from the start: who is asked on a shared host."""
    pairs = zip(urlsplit(index).path.split("/"), urlsplit(url).path.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
