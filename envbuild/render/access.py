"""How pip reaches this machine's indexes from inside a build: a ``pip.conf``, a netrc, a CA bundle.

All three are given to a build as secrets, never as files of its context: an address may hold a password. Only
what installing by hash needs is carried over; nothing that would change what is installed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from envbuild.http.address import Netrc, shown
from envbuild.http.auth_file import AuthFile, Bearer, PathToken
from envbuild.lock.pip.command import expand_option, uv_environment
from envbuild.lock.pip.pip_config import pip_config_files, pip_places, read_pip_config
from envbuild.lock.pip.uv_config import index_address, load_uv_config, named_index, uv_config_files
from envbuild.settings import Settings

_LOG = logging.getLogger(__name__)

CERTIFICATES = "/run/secrets/ca-certificates.crt"
"""Where a build step finds the CA bundle."""

_DEFAULT = "https://pypi.org/simple"
"""uv's, where nothing names another."""
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_NETRC_WORD = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class PipAccess:
    """What a build step's pip is given. Its texts may hold credentials, so it is never shown."""

    pip_conf: str
    netrc: str | None = None
    ca_certificates: Path | None = None
    """A file of PEM certificates on this machine."""

    def __repr__(self) -> str:
        return "PipAccess(***)"


@dataclass(kw_only=True, slots=True)
class _Found:
    """What one place says, first come first served within it."""

    index: str | None = None
    extra: list[str] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    trusted: list[str] = field(default_factory=list)
    timeout: str | None = None
    cert: str | None = None
    no_index: bool = False


def pip_access(
    env: Mapping[str, str],
    options: Sequence[str],
    settings: Settings,
    *,
    addresses: Iterable[str] = (),
    uv_files: Sequence[Path] | None = None,
    pip_files: Sequence[Path] | None = None,
) -> PipAccess:
    """The access that the lock's own resolver had, as far as a container can have it.

    The index is the first that is named by the spec's ``options``, uv's variables (``PIP_INDEX_URL`` among
    them, as the resolver is given it), uv's files, pip's variables or pip's files; the others of all these
    places follow it. ``addresses`` are those of direct references, whose hosts may need a login too.
    ``uv_files`` and ``pip_files`` are read in the order given; None: where uv and pip themselves look.
    """
    environ = uv_environment(env)
    uv_paths = uv_config_files(env) if uv_files is None else uv_files
    pip_paths = pip_config_files(env) if pip_files is None else pip_files
    places = [
        _from_options([expand_option(option, env) for option in options]),
        _from_uv_variables(environ),
        *(_from_uv_table(table, environ) for table in load_uv_config(uv_paths)),
        _from_pip_variables(env),
        *(_from_pip_file(path) for path in pip_paths),
    ]
    index = next((place.index for place in places if place.index and _reachable(place.index)), None)
    extra = [url for place in places for url in (place.index, *place.extra) if url and _reachable(url)]
    extra = [url for url in dict.fromkeys(extra) if url != index]
    links = list(dict.fromkeys(url for place in places for url in place.find_links if _reachable(url)))
    trusted = dict.fromkeys(host for place in places for host in place.trusted if _HOST.fullmatch(host))
    bundle = _bundle(env, settings, places)
    timeout = next((place.timeout for place in places if place.timeout), None)
    lines = ["[global]"]
    if any(place.no_index for place in places) or pip_places(env).no_index:
        lines.append("no-index = true")
    elif index:
        lines.append(f"index-url = {index}")
    lines += _several("extra-index-url", extra)
    lines += _several("find-links", links)
    lines += _several("trusted-host", list(trusted))
    if bundle is not None:
        lines.append(f"cert = {CERTIFICATES}")
    if timeout is not None:
        lines.append(f"timeout = {timeout}")
    urls = [url for url in (index, *extra, *links, *addresses) if url]
    return PipAccess(pip_conf="\n".join(lines) + "\n", netrc=_netrc(env, urls), ca_certificates=bundle)


def index_addresses(env: Mapping[str, str], options: Sequence[str] = ()) -> tuple[str, ...]:
    """The indexes that a lock with a spec's ``options`` asks for a name, in uv's order: the main one comes
    last. They may hold a login."""
    named = _named_places(env, options)
    if any(settings.no_index for _, settings in named):
        return ()
    extra = [url for _, settings in named for url in settings.extra if url]
    return tuple(dict.fromkeys((*extra, _main_index(named)[0] or _DEFAULT)))


def index_lines(env: Mapping[str, str], options: Sequence[str] = ()) -> tuple[str, ...]:
    """Every index that counts for a lock with a spec's ``options``, a line each with the place that names it,
    in the order they are asked; then those that don't count. No credentials."""
    named = _named_places(env, options)
    main, first = _main_index(named)
    lines, unused = [], []
    for place, settings in named:
        lines += [f"{place}: {shown(url)}" for url in settings.extra if url]
        lines += [f"{place}: {shown(url)} (links)" for url in settings.find_links if url]
        lines += [f"{place}: no index"] if settings.no_index else []
        if settings.index not in (main, None):
            unused.append(f"{place}: {shown(settings.index)} doesn't count: {first} name the index")
    if main:
        lines.append(f"{first}: {shown(main)}")
    lines += unused
    if not any(settings.index or settings.no_index for _, settings in named):
        lines.append("uv's default index")
    left = pip_places(env).left_out
    local = (f"pip's configuration: {url} doesn't count: only this machine has it" for url in left)
    return tuple(dict.fromkeys((*lines, *local)))


def _named_places(env: Mapping[str, str], options: Sequence[str]) -> list[tuple[str, _Found]]:
    """What each place says of indexes, in the order that uv asks them."""
    environ, own = uv_environment(env, options), [expand_option(option, env) for option in options]
    return [
        ("uv's variables", _from_uv_variables(environ)),
        *(("uv's files", _from_uv_table(table, environ)) for table in load_uv_config(uv_config_files(env))),
        ("pip's configuration", _from_options(pip_places(env).lines(own))),
        ("spec", _from_options(own)),
    ]


def _main_index(named: Iterable[tuple[str, _Found]]) -> tuple[str | None, str]:
    """The main index, and the place that names it: uv asks one, after all others, and its own goes before
    that of a file of requirements."""
    return next(((settings.index, place) for place, settings in named if settings.index), (None, ""))


def _from_options(options: Iterable[str]) -> _Found:
    settings = _Found()
    for option in options:
        name, *rest = re.split(r"[ =]", option, maxsplit=1)
        value = "".join(rest).strip()
        if name in ("--index-url", "-i"):
            settings.index = settings.index or value
        elif name == "--extra-index-url":
            settings.extra.append(value)
        elif name in ("--find-links", "-f"):
            settings.find_links.append(value)
        elif name == "--trusted-host":
            settings.trusted.append(value)
        elif name == "--no-index":
            settings.no_index = True
    return settings


def _from_uv_variables(environ: Mapping[str, str]) -> _Found:
    default = environ.get("UV_DEFAULT_INDEX")
    return _Found(
        index=named_index(default, environ) if default else environ.get("UV_INDEX_URL"),
        extra=[
            *(named_index(part, environ) for part in environ.get("UV_INDEX", "").split()),
            *environ.get("UV_EXTRA_INDEX_URL", "").split(),
        ],
        find_links=re.split(r"[\s,]+", environ.get("UV_FIND_LINKS", "")),
        trusted=re.split(r"[\s,]+", environ.get("UV_INSECURE_HOST", "")),
        timeout=_seconds(environ.get("UV_HTTP_TIMEOUT") or environ.get("UV_REQUEST_TIMEOUT")),
    )


def _from_uv_table(table: Mapping[str, Any], environ: Mapping[str, str]) -> _Found:
    """``[pip]`` counts before the top level, as in uv. An explicit index serves only what names it."""
    settings = _Found()
    pip = table.get("pip")
    for section in (pip if isinstance(pip, dict) else {}, table):
        for entry in _tables(section.get("index")):
            url, name = entry.get("url"), entry.get("name")
            if not isinstance(url, str) or entry.get("explicit") is True:
                continue
            url = index_address(url, name, environ) if isinstance(name, str) else url
            if entry.get("default") is True:
                settings.index = settings.index or url
            elif entry.get("format") == "flat":
                settings.find_links.append(url)
            else:
                settings.extra.append(url)
        settings.index = settings.index or next(iter(_texts(section.get("index-url"))), None)
        settings.extra += _texts(section.get("extra-index-url"))
        settings.find_links += _texts(section.get("find-links"))
        settings.trusted += _texts(section.get("allow-insecure-host"))
        settings.no_index = settings.no_index or section.get("no-index") is True
    return settings


def _from_pip_variables(env: Mapping[str, str]) -> _Found:
    return _Found(
        index=env.get("PIP_INDEX_URL"),
        extra=env.get("PIP_EXTRA_INDEX_URL", "").split(),
        find_links=env.get("PIP_FIND_LINKS", "").split(),
        trusted=env.get("PIP_TRUSTED_HOST", "").split(),
        timeout=_seconds(env.get("PIP_TIMEOUT") or env.get("PIP_DEFAULT_TIMEOUT")),
    )


def _from_pip_file(path: Path) -> _Found:
    """What holds for ``pip install``."""
    values = read_pip_config(path)
    return _Found(
        index=values.get("index-url", "").strip() or None,
        extra=values.get("extra-index-url", "").split(),
        find_links=values.get("find-links", "").split(),
        trusted=values.get("trusted-host", "").split(),
        timeout=_seconds(values.get("timeout") or values.get("default-timeout")),
        cert=values.get("cert", "").strip() or None,
    )


def _reachable(url: str) -> bool:
    """Whether a container may reach the address, and it may stand in a line of a pip.conf."""
    if not url:
        return False
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits or not url.isascii() or not url.isprintable() or " " in url:
        _LOG.debug("%s is left out: a build step can't reach it", shown(url))
        return False
    return True


def _bundle(env: Mapping[str, str], settings: Settings, places: Sequence[_Found]) -> Path | None:
    """The CA bundle that connections of this machine are checked with, where it is one file."""
    named = [env.get(name) for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")]
    for text in (settings.ca_bundle, *named, *(place.cert for place in places)):
        if text:
            path = Path(text).expanduser()
            if path.is_file():
                return path
            _LOG.debug("%s is no file, so no build step is given it as CA bundle", path)
    return None


def _netrc(env: Mapping[str, str], urls: Iterable[str]) -> str | None:
    """The logins of the addresses' hosts, and no others; None where there are none."""
    source = Netrc(env)
    lines: dict[str, str] = {}
    for url in urls:
        try:
            host = urlsplit(url).hostname
        except ValueError:
            continue
        credentials = source.credentials(url) if host and _HOST.fullmatch(host) else None
        if credentials is None or host is None:
            continue
        words = (credentials.user, credentials.password)
        if not all(_NETRC_WORD.fullmatch(word) for word in words):
            _LOG.warning("the login of %s has characters that a build step can't be given", host)
            continue
        user, password = (re.sub(r'([\\"])', r"\\\1", word) for word in words)
        lines[host] = f"machine {host} login {user} password {password}\n"
    return "".join(lines.values()) or None


def _several(key: str, values: Sequence[str]) -> list[str]:
    return [f"{key} =", *(f"    {value}" for value in values)] if values else []


def _seconds(text: str | None) -> str | None:
    """Whole seconds; None for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})(?:\.[0-9]*)?", (text or "").strip())
    return match[1] if match and int(match[1]) else None


def _texts(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def conda_auth(environ: Mapping[str, str], urls: Iterable[str]) -> str | None:
    """The logins of the addresses' hosts in the form of rattler's auth file; None where there are none. They
    are of rattler's own file first, then of netrc: what envbuild's downloads use."""
    file, netrc = AuthFile(environ), Netrc(environ)
    credentials: dict[str, object] = {}
    asked: set[str] = set()
    for url in urls:
        host = (urlsplit(url).hostname or "").lower()
        if not host or host in asked:
            continue
        asked.add(host)
        access = file.access(url) or netrc.credentials(url)
        if isinstance(access, Bearer):
            credentials[host] = {"BearerToken": access.token}
        elif isinstance(access, PathToken):
            credentials[host] = {"CondaToken": access.token}
        elif access is not None:
            credentials[host] = {"BasicHTTP": {"username": access.user, "password": access.password}}
    return json.dumps(credentials, sort_keys=True) if credentials else None
