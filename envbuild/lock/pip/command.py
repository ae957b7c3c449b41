"""How uv is called: its executable, its environment, the platform's name, and its words cleaned."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from envbuild.errors import ResolveError, UsageError
from envbuild.lazy import lazy
from envbuild.lock.pip.pip_config import names_index, pip_places
from envbuild.lock.pip.uv_config import named_index
from envbuild.platforms import Platform

if TYPE_CHECKING:
    import uv
else:
    uv = lazy("uv")

_GLIBCS = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
"""Minor versions of glibc 2 that uv has a platform for; a newer base loads what is made for the newest."""

_KEPT = re.compile(
    r"UV_(?:INDEX(?:_.*)?|DEFAULT_INDEX|EXTRA_INDEX_URL|FIND_LINKS|KEYRING_PROVIDER|CREDENTIALS_DIR"
    r"|CACHE_DIR|NO_CACHE|OFFLINE|HTTP_.*|REQUEST_TIMEOUT|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST"
    r"|CONCURRENT_.*|CONFIG_FILE|NO_CONFIG)"
)
"""uv's settings about this machine. All others could change what a lock says, so they stay out."""

INDEXES = {"--index-url", "--extra-index-url", "--find-links", "--no-index"}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


NO_GIT = {"GIT_ALLOW_PROTOCOL": "none"}
"""Lets a resolver's own git speak no protocol: what a package asks for is cloned with this user's settings.
The spec's repositories are ours to fetch (``lock.git``)."""
NO_GIT_HINT = (
    "a package asks for a repository by itself, and only those that the spec names are fetched: build a "
    "wheel of it, or take a version of the package that needs none"
)


def find_uv() -> str:
    """The path of the uv executable that the ``uv`` distribution brought."""
    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise UsageError("the uv executable isn't there", hint="reinstall the package uv") from error


def glibc_minor(glibc: str) -> int:
    """The newest minor version of glibc 2 that uv knows and that ``glibc`` (``2.41``) can load."""
    match = re.match(r"2\.(\d+)", glibc)
    if match is None or int(match[1]) < _GLIBCS[0]:
        raise ResolveError(
            f"glibc {glibc} of the base is older than any that wheels are made for",
            hint="take a base with glibc 2.17 or newer (musl-based images have none)",
        )
    return max(glibc for glibc in _GLIBCS if glibc <= int(match[1]))


def uv_platform(platform: Platform, glibc: str) -> str:
    """uv's name of the target: ``x86_64-manylinux_2_40``."""
    return f"{platform.machine}-manylinux_2_{glibc_minor(glibc)}"


def uv_environment(env: Mapping[str, str], options: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a uv process: this machine's index, cache, proxy and certificate settings, and
    nothing that would change a result. pip's certificates, trusted hosts and proxy count where uv has none,
    ``PIP_INDEX_URL`` where ``options``, a spec's own, name no index either; pip's other indexes are lines
    (``index_options``). The hosts that a spec trusts are trusted too."""
    places = pip_places(env)
    kept = {
        key: value
        for key, value in env.items()
        if not key.startswith(("UV_", "PYTHON", "VIRTUAL_ENV", "CONDA_")) or _KEPT.fullmatch(key)
    }
    of_uv = any(key in kept for key in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_CONFIG_FILE"))
    own = of_uv or places.no_index or names_index(options)
    if env.get("PIP_INDEX_URL") and places.index and not own:
        kept["UV_DEFAULT_INDEX"] = places.index
    if places.cert and not env.get("SSL_CERT_FILE"):
        kept["SSL_CERT_FILE"] = places.cert
    if places.client_cert and not env.get("SSL_CLIENT_CERT"):
        kept["SSL_CLIENT_CERT"] = places.client_cert
    trusted = [option.split(" ")[1] for option in options if option.startswith("--trusted-host ")]
    trusted += (env.get("UV_INSECURE_HOST") or " ".join(places.trusted)).split()
    if trusted:
        kept["UV_INSECURE_HOST"] = " ".join(dict.fromkeys(trusted))
    if places.proxy and not any(env.get(name) or env.get(name.upper()) for name in _PROXIES):
        kept["ALL_PROXY"] = places.proxy
    kept["UV_PYTHON_DOWNLOADS"] = "never"
    kept["UV_NO_PROGRESS"] = "1"
    kept["NO_COLOR"] = "1"
    return {**kept, **NO_GIT}


def own_project(directory: Path) -> Path:
    """``directory``, made a project of its own for a uv that runs in it: uv looks for ``uv.toml`` and
    ``pyproject.toml`` from there upwards, and among temporary files anyone could leave one with an index."""
    (directory / "uv.toml").touch()
    return directory


def python_options() -> list[str]:
    """The interpreter uv asks: this one. Looking for one takes uv longer than resolving does."""
    return ["--python", sys.executable]


def expand(text: str, env: Mapping[str, str]) -> str:
    """``text`` with ``${VAR}`` replaced, as pip does; unset variables stay as written."""
    return _VARIABLE.sub(lambda match: env.get(match[1]) or match[0], text)


def expand_option(option: str, env: Mapping[str, str]) -> str:
    """``option`` with the variables of ``env`` filled in, for an index that has a name also its login."""
    name, _, value = option.partition(" ")
    return f"{name} {named_index(expand(value, env), env)}" if value else expand(option, env)


def option_name(option: str) -> str:
    """``--index-url`` of ``--index-url https://…`` and of ``--index-url=https://…``."""
    return re.split(r"[ =]", option, maxsplit=1)[0]


def index_options(options: Iterable[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Where to look, as lines of a requirements file: what the machine's pip is set to, then those of pip's
    ``options`` that say so, with the variables of ``env`` filled in."""
    own = tuple(expand_option(option, env) for option in options if option_name(option) in INDEXES)
    return (*pip_places(env).lines(own), *own)


def secrets(texts: Iterable[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The values of the variables that ``texts`` refer to: none of them may be shown."""
    names = {name for text in texts for name in _VARIABLE.findall(text)}
    values = {env[name] for name in names if len(env.get(name, "")) > 2}
    return tuple(sorted(values, key=len, reverse=True))


def write_provided(directory: Path, provided: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Constraint lines that name a stand-in in ``directory``, and the names that must be left out of the
    resolution altogether because their version isn't one of Python's (PEP 440)."""
    constraints, excluded = [], []
    directory.mkdir(mode=0o700)
    for name, text in sorted(provided.items()):
        try:
            version = str(Version(text))
        except InvalidVersion:
            excluded.append(name)
            continue
        stem = f"{name.replace('-', '_')}-{version}"
        path = directory / f"{stem}-py3-none-any.whl"
        info = f"{stem}.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: envbuild\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        constraints.append(f"{name} @ {path.as_uri()}")
    return constraints, excluded
