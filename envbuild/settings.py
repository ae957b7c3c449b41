"""Settings: flag > ``ENVBUILD_*`` > ``pyproject.toml [tool.envbuild]`` or ``envbuild.toml`` > XDG config.

Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and credentials aren't settings: the libraries that make the
connections read them where the field keeps them.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from envbuild.errors import UsageError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_log = logging.getLogger(__name__)

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(
    rf"(?:localhost|(?=[^/]*[.:]){_HOST}|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?(?:/{_PART})*"
)
_REPOSITORY_MARKS = (".git", ".hg", ".jj")
"""What the root of a repository has: git's, Mercurial's, Jujutsu's."""
_LARGEST_OF_STRANGERS = 1 << 20
"""Bytes of somebody else's file that are looked at, to tell whether it has settings."""
_PINNED = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,400}@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything about this machine and this call that is not in a spec. Never part of an identity,
    but for ``compression``, ``layer_budget`` and ``source_date_epoch``, which the plan carries."""

    cache_dir: Path
    debian_mirror: str | None = None
    """Root of a Debian archive (``https://…/debian``); None: from the machine's apt configuration."""
    debian_security_mirror: str | None = None
    debian_snapshot: str | None = None
    """Root of a snapshot archive, tried when a pinned .deb has left the mirror, and by ``as_of``."""
    debian_keyring: Path | None = None
    """File of the OpenPGP public keys that sign the mirror; None: Debian's own archive keys."""
    maven_repository: str = "https://repo1.maven.org/maven2"
    """Root of the Maven repository that is asked after those of a spec."""
    python_downloads_json_url: str | None = field(default=None, repr=False)
    """The list of standalone pythons, as uv's ``--python-downloads-json-url`` has it; None: uv's own."""
    python_mirror: str | None = field(default=None, repr=False)
    """Stands for the root of python-build-standalone's releases; the address may hold a login."""
    offline: bool = False
    workers: int | None = None
    """Parallel workers; None: one a core."""
    layer_budget: int = 40
    compression: str = "gzip"
    pip_engine: str = "uv"
    conda_engine: str = "rattler"
    conda_channel_alias: str | None = field(default=None, repr=False)
    """Stands for the public root of named channels; may hold a token. None: conda's own configuration."""
    conda_default_channels: tuple[str, ...] = ()
    """What ``defaults`` stands for."""
    conda_mirrors: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Pairs of a channel's address and what is asked in its place."""
    conda_channel_priority: str | None = None
    index_strategy: str | None = None
    """Counts in place of the spec's, and so is part of its definition; None: the spec's."""
    engine: str = "auto"
    """What builds images: ``native``, ``docker``, ``buildx``, or the first that can."""
    template_dir: Path | None = None
    """Templates of Dockerfiles that go before the shipped ones of the same name."""
    micromamba_image: str | None = None
    """Image by digest whose micromamba installs conda packages in a Dockerfile; None: py-rattler does."""
    lock_dir: Path | None = None
    """Where lock directories stand; None: ``lockfiles/`` beside the spec."""
    source_date_epoch: int = 0
    """Seconds since the epoch; SOURCE_DATE_EPOCH."""
    ca_bundle: Path | None = None
    """SSL_CERT_FILE; None: the system's."""
    workspace: str | Path | None = field(default=None, repr=False)
    """File or SQLAlchemy URL of the workspace, which may hold a password; None: there is none."""
    record: bool = True
    """Whether builds are recorded in the workspace."""
    attest: bool = True
    """Whether a push attaches bills of materials and provenance."""
    sign_key: Path | None = None
    """File of the private key that signs what is pushed; None: nothing is signed."""
    registry: str | None = None
    """``HOST[:PORT][/PATH]``: below it images are looked for before they are built, and pushed where a name
    has no host."""
    cache_from: tuple[str, ...] = ()
    """Registry repositories whose segments are taken instead of packages, in this order."""
    cache_to: str | None = None
    """The registry repository that composed segments are written to."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a value was written: its name for messages, and what relative paths are relative to."""

    name: str
    directory: Path
    home: Path | None
    strings: bool
    """True where every value is text (flags, environment); a TOML file has types and must use them."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """The values of one source, keyed by the field's name."""

    source: _Source
    values: Mapping[str, object] = field(default_factory=dict)


class _Misfit(Exception):
    """A value doesn't fit; the text completes "must be …"."""


def load_settings(
    flags: Mapping[str, object], env: Mapping[str, str], cwd: Path, *, start: Path | None = None
) -> Settings:
    """The settings that hold for this call.

    ``flags`` are by field name, None where not given. A project's file is looked for from ``start``
    (the directory of the spec; None: ``cwd``) up to the root of the repository, or only there where there is
    no repository; the nearest one counts, and none that belongs to another user (a warning names it).
    Relative paths in a file are relative to that file, all others to ``cwd``. Raises ``UsageError`` with all
    problems at once.
    """
    home = Path(env["HOME"]) if env.get("HOME") else None
    problems: list[str] = []
    given = {key: value for key, value in flags.items() if value is not None}
    layers = [
        _Layer(_Source("", cwd, home, True), given),
        _environment(env, cwd, home),
        *_files(env, (start or cwd), home, problems),
    ]
    chosen: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.values.items():
            if key not in _READERS:
                problems.append(_unknown(key, layer.source))
                continue
            try:
                read = _READERS[key](value, layer.source)
            except _Misfit as misfit:
                problems.append(f"{_named(key, layer.source)} must be {misfit}")
                continue
            chosen.setdefault(key, read)
    if problems:
        raise UsageError("\n".join(problems), hint="docs/cli.md lists all settings and their values")
    if "cache_dir" not in chosen:
        chosen["cache_dir"] = _xdg(env, home, "XDG_CACHE_HOME", ".cache") / "envbuild"
    if "workspace" not in chosen:
        chosen["workspace"] = data_directory(env) / "workspace.db"
    return Settings(**chosen)


def data_directory(env: Mapping[str, str]) -> Path:
    """Where envbuild keeps what is its user's: the workspace, unless another is named, and logs of runs."""
    home = Path(env["HOME"]) if env.get("HOME") else None
    return _xdg(env, home, "XDG_DATA_HOME", ".local/share") / "envbuild"


def _environment(env: Mapping[str, str], cwd: Path, home: Path | None) -> _Layer:
    values: dict[str, object] = {}
    for variable, key in _WELL_KNOWN.items():
        if env.get(variable):
            values[key] = env[variable]
    source = _Source("environment", cwd, home, True)
    for variable in sorted(env):
        if not variable.startswith("ENVBUILD_") or not env[variable]:
            continue
        key = variable.removeprefix("ENVBUILD_").lower()
        if key in _READERS:
            values[key] = env[variable]
        elif variable not in _OTHERS:
            # Not an error: a script may keep a variable of its own under this prefix.
            _log.warning("%s is not a setting of envbuild%s", variable, did_you_mean(variable, _variables()))
    return _Layer(source, values)


def _files(env: Mapping[str, str], start: Path, home: Path | None, problems: list[str]) -> list[_Layer]:
    layers = []
    project = _project_file(start, _owners(env), problems)
    if project is not None:
        path, values = project
        layers.append(_Layer(_Source(str(path), path.parent, home, False), values))
    config = _xdg(env, home, "XDG_CONFIG_HOME", ".config") / "envbuild" / "config.toml"
    table = _toml(config, problems)
    if table is not None:
        layers.append(_Layer(_Source(str(config), config.parent, home, False), _normal(table)))
    return layers


def _project_file(
    start: Path, owners: frozenset[int], problems: list[str]
) -> tuple[Path, dict[str, object]] | None:
    for directory in _project_directories(start):
        own = _project_toml(directory / "envbuild.toml", owners, problems)
        project = _project_toml(directory / "pyproject.toml", owners, problems)
        shared = _tool_table(project) if project is not None else None
        if own is not None:
            if shared is not None:
                _log.warning("%s: envbuild.toml counts, [tool.envbuild] of pyproject.toml doesn't", directory)
            return directory / "envbuild.toml", _normal(own)
        if shared is not None:
            if not isinstance(shared, dict):
                problems.append(f"{directory / 'pyproject.toml'}: tool.envbuild must be a table")
                return None
            return directory / "pyproject.toml", _normal(shared)
    return None


def _project_directories(start: Path) -> tuple[Path, ...]:
    """``start`` and the directories above it, up to the root of its repository; without one, ``start`` alone.

    Links are followed first: what is above a directory is above the place where it really is.
    """
    start = Path(os.path.realpath(start))
    directories = (start, *start.parents)
    for count, directory in enumerate(directories, start=1):
        # In a worktree and in a submodule, .git is a file.
        if any(os.path.lexists(directory / mark) for mark in _REPOSITORY_MARKS):
            return directories[:count]
    return (start,)


def _owners(env: Mapping[str, str]) -> frozenset[int]:
    """The users whose files in a project are read: this one and root, who can do all anyway. Under sudo
    also the one who called it, as git has it (``safe.directory``)."""
    user = os.geteuid()
    caller = env.get("SUDO_UID", "")
    called = user == 0 and caller.isascii() and caller.isdecimal() and len(caller) < 12
    return frozenset({0, user, int(caller)} if called else {0, user})


def _project_toml(path: Path, owners: frozenset[int], problems: list[str]) -> dict[str, object] | None:
    """The table of a project's file; None if it isn't there, and where it belongs to none of ``owners``: then
    a warning says so, if it has settings."""
    entry = None
    try:
        entry = path.lstat()
        # Whoever may write in that directory could leave a pipe there, which would never be opened.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            # A link decides which file is read, so its owner counts as well.
            stranger = next((uid for uid in (entry.st_uid, status.st_uid) if uid not in owners), None)
            data = file.read(-1 if stranger is None else _LARGEST_OF_STRANGERS)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        # A directory above the spec may be closed to us; git and ruff pass it by too.
        return None
    except OSError as error:
        if entry is None or entry.st_uid in owners:
            problems.append(f"{path}: {error.strerror}")
        return None
    if stranger is None:
        return _parse_toml(path, data, problems)
    if path.name == "envbuild.toml" or _tool_table(_parse_toml(path, data, []) or {}) is not None:
        _log.warning(
            "%s is skipped: it belongs to %s; make it yours (chown), or give its settings as options or as "
            "ENVBUILD_ variables",
            path,
            _user_name(stranger),
        )
    return None


def _tool_table(project: Mapping[str, object]) -> object:
    """What ``[tool.envbuild]`` of a ``pyproject.toml`` is; None where there is none."""
    tools = project.get("tool")
    return tools.get("envbuild") if isinstance(tools, dict) else None


def _user_name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _toml(path: Path, problems: list[str]) -> dict[str, object] | None:
    """The file's table; None if it isn't there. A damaged file is a problem, not an absence."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return None
    return _parse_toml(path, data, problems)


def _parse_toml(path: Path, data: bytes, problems: list[str]) -> dict[str, object] | None:
    try:
        table: dict[str, object] = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        problems.append(f"{path}: not valid TOML: {error}")
        return None
    return table


def _normal(table: Mapping[str, object]) -> dict[str, object]:
    """Keys as field names: ``cache-dir`` and ``cache_dir`` are the same setting."""
    return {key.replace("-", "_"): value for key, value in table.items()}


def _xdg(env: Mapping[str, str], home: Path | None, variable: str, default: str) -> Path:
    """The XDG base directory; a relative value is ignored, as the specification says."""
    given = env.get(variable, "")
    if given.startswith("/"):
        return Path(given)
    return (home or Path.home()) / default


def _named(key: str, source: _Source) -> str:
    if not source.name:
        return "--" + key.replace("_", "-")
    if source.name == "environment":
        return "ENVBUILD_" + key.upper()
    return f"{source.name}: {key.replace('_', '-')}"


def _unknown(key: str, source: _Source) -> str:
    names = [name.replace("_", "-") for name in _READERS]
    return f"{_named(key, source)} is not a setting{did_you_mean(key.replace('_', '-'), names)}"


def _variables() -> list[str]:
    return ["ENVBUILD_" + name.upper() for name in _READERS]


def _path(value: object, source: _Source) -> Path:
    if isinstance(value, Path):
        return source.directory / value
    if not isinstance(value, str) or not value or "\0" in value:
        raise _Misfit("a path")
    if value == "~" or value.startswith("~/"):
        if source.home is None:
            raise _Misfit("a path without ~, as HOME is not set")
        return source.home / value[2:]
    return Path(os.path.normpath(source.directory / value))


def _url(value: object, source: _Source) -> str:
    if isinstance(value, str):
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = None
        fits = parts and (parts.hostname if parts.scheme in ("http", "https") else parts.scheme == "file")
        # A space or a control character would end up in a request line or a message.
        if fits and value.isascii() and value.isprintable() and " " not in value:
            return value.rstrip("/")
    raise _Misfit("an http, https or file URL")


def _document(value: object, source: _Source) -> str:
    """An address, or the path of a file as uv takes it."""
    if isinstance(value, str) and "://" not in value and not value.startswith("file:"):
        return _path(value, source).as_uri()
    return _url(value, source)


def _database(value: object, source: _Source) -> str | Path:
    """A URL as it is, anything else a path. What is wrong with a URL is said without it: it may hold a
    password."""
    if isinstance(value, str) and "://" in value:
        if re.fullmatch(r"(?:sqlite|postgresql)(?:\+[a-z0-9_]+)?://[\x21-\x7e]*", value) is None:
            raise _Misfit("a file or a URL that begins with sqlite:// or postgresql://")
        return value
    return _path(value, source)


def _flag(value: object, source: _Source) -> bool:
    if isinstance(value, bool):
        return value
    if source.strings and isinstance(value, str):
        word = value.strip().lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off"):
            return False
        raise _Misfit(f"1 or 0, not {value!r}")
    raise _Misfit(f"true or false, not {value!r}")


def _number(low: int, high: int) -> Callable[[object, _Source], int]:
    def read(value: object, source: _Source) -> int:
        if source.strings and isinstance(value, str) and value.strip().isdecimal() and value.isascii():
            value = int(value.strip()) if len(value) < 20 else high + 1
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Misfit(f"a whole number from {low} to {high}, not {value!r}")
        return value

    return read


def _choice(*words: str) -> Callable[[object, _Source], str]:
    def read(value: object, source: _Source) -> str:
        if value not in words:
            raise _Misfit(f"{' or '.join(words)}, not {value!r}")
        return str(value)

    return read


def _pinned_image(value: object, source: _Source) -> str:
    if isinstance(value, str) and _PINNED.fullmatch(value):
        return value
    raise _Misfit("an image by digest, NAME@sha256:…")


def _repository(value: object, source: _Source) -> str:
    # What stands before an @ may be a login, and no message may show it.
    if isinstance(value, str) and re.fullmatch(r"[][A-Za-z0-9._:/-]+", value):
        return value
    raise _Misfit("a repository, [HOST/]NAME, without a tag")


def _repositories(value: object, source: _Source) -> tuple[str, ...]:
    if source.strings and isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, (list, tuple)):
        raise _Misfit("a list of repositories")
    return tuple(_repository(entry, source) for entry in value)


def _channels(value: object, source: _Source) -> tuple[str, ...]:
    if source.strings and isinstance(value, str):
        value = value.replace(",", " ").split()
    if isinstance(value, (list, tuple)) and all(isinstance(entry, str) and entry for entry in value):
        return tuple(value)
    raise _Misfit("a list of channels")


def _conda_mirrors(value: object, source: _Source) -> tuple[tuple[str, str], ...]:
    if source.strings and isinstance(value, str):
        value = dict(pair.partition("=")[::2] for pair in value.split())
    if not isinstance(value, dict):
        raise _Misfit("a table of channels' addresses and their mirrors, or CHANNEL=MIRROR pairs")
    return tuple((str(_url(channel, source)), str(_url(mirror, source))) for channel, mirror in value.items())


def _registry(value: object, source: _Source) -> str:
    if isinstance(value, str) and len(value) <= 200 and _REGISTRY.fullmatch(value.rstrip("/")):
        return value.rstrip("/")
    raise _Misfit("a registry with its host, HOST[:PORT][/PATH], without https://")


_READERS: Mapping[str, Callable[[object, _Source], object]] = {
    "cache_dir": _path,
    "debian_mirror": _url,
    "debian_security_mirror": _url,
    "debian_snapshot": _url,
    "debian_keyring": _path,
    "maven_repository": _url,
    "python_downloads_json_url": _document,
    "python_mirror": _url,
    "offline": _flag,
    "workers": _number(1, 1024),
    "layer_budget": _number(4, 120),
    "compression": _choice("gzip", "zstd"),
    "pip_engine": _choice("uv", "pip-tools"),
    "conda_engine": _choice("rattler", "conda-lock"),
    "conda_channel_alias": _url,
    "conda_default_channels": _channels,
    "conda_mirrors": _conda_mirrors,
    "conda_channel_priority": _choice("strict", "flexible", "disabled"),
    "index_strategy": _choice("first-index", "unsafe-best-match"),
    "engine": _choice("auto", "native", "docker", "buildx"),
    "template_dir": _path,
    "micromamba_image": _pinned_image,
    "lock_dir": _path,
    # A tar header of the ustar format has eleven octal digits for the time.
    "source_date_epoch": _number(0, 0o77777777777),
    "ca_bundle": _path,
    "workspace": _database,
    "record": _flag,
    "attest": _flag,
    "sign_key": _path,
    "registry": _registry,
    "cache_from": _repositories,
    "cache_to": _repository,
}
_OTHERS = ("ENVBUILD_SIGN_PASSWORD",)
"""Variables of ours that are read where they are needed, and nowhere else."""
_WELL_KNOWN = {
    "SOURCE_DATE_EPOCH": "source_date_epoch",
    "SSL_CERT_FILE": "ca_bundle",
    "UV_PYTHON_DOWNLOADS_JSON_URL": "python_downloads_json_url",
    "UV_PYTHON_INSTALL_MIRROR": "python_mirror",
}
"""Variables of the field that say a setting; ours of the same setting go before them."""
