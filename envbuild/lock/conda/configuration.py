"""How this machine reaches conda's channels: conda's own configuration, and envbuild's settings before it.

``.condarc`` is read at all of its places (conda's documentation, "The conda configuration"), then the
``CONDA_…`` variables. How a public channel is reached is a matter of the machine, so a lock holds the public
address that a ``channel_alias`` or a mirror stands for, and never what is asked in its place.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from envbuild.errors import ResolveError, SpecError
from envbuild.lock.conda.channels import CHANNEL_ALIAS, DEFAULT_CHANNELS, ChannelNames
from envbuild.redact import redact
from envbuild.settings import Settings
from envbuild.specs.text import document as yaml_text

_log = logging.getLogger(__name__)

_READ = frozenset(
    {
        *("channel_alias", "default_channels", "custom_channels", "custom_multichannels"),
        *("mirrored_channels", "channel_priority", "pinned_packages"),
    }
)
_NOT_READ = {
    "ssl_verify": "certificates are always checked; the setting ca-bundle names an own authority",
    "proxy_servers": "HTTPS_PROXY and HTTP_PROXY say the proxy",
    "channels": "a spec names its own channels",
    "allowlist_channels": "no list of allowed channels is kept",
    "whitelist_channels": "no list of allowed channels is kept",
    "denylist_channels": "no list of forbidden channels is kept",
}
"""What of a ``.condarc`` bears on a lock, and what stands for it here."""
PRIORITIES = ("strict", "flexible", "disabled")
_SYSTEM = ("/etc/conda", "/var/lib/conda")
_LIMIT = 1 << 20
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaConfiguration:
    """What counts. ``mirrors``: the beginning of a canonical address to what is asked in its place, in
    order; nothing else is asked then. ``files`` are those that were read."""

    names: ChannelNames = field(default_factory=ChannelNames)
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    priority: str = "strict"
    pinned_packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """For people: what differs from a machine that has no configuration."""
        lines = [f"conda: {path}" for path in self.files]
        for canonical, addresses in sorted(self.mirrors.items()):
            lines.append(f"{canonical.rstrip('/')} is asked at {', '.join(map(redact, addresses))}")
        for name, base in sorted(self.names.custom.items()):
            lines.append(f"channel {name} is {redact(base.rstrip('/'))}/{name}")
        for name, channels in sorted(self.names.several.items()):
            lines.append(f"channel {name} is {', '.join(map(redact, channels))}")
        if self.names.defaults != DEFAULT_CHANNELS:
            lines.append(f"channel defaults is {', '.join(map(redact, self.names.defaults))}")
        if self.priority != "strict":
            lines.append(f"channel priority: {self.priority}")
        lines += [f"pinned: {pin}" for pin in self.pinned_packages]
        return tuple(lines)


def conda_configuration(settings: Settings, environ: Mapping[str, str]) -> CondaConfiguration:
    """What counts on this machine. Raises ``ResolveError`` for a file with mistakes, with its line."""
    values: dict[str, object] = {}
    files = tuple(path for path in _places(environ) if path.is_file())
    for path in files:
        for key, value in _read(path, path.stat().st_mtime_ns).items():
            values[key] = _merge(values.get(key), value)
    for key, separator in (("default_channels", ","), ("pinned_packages", "&")):
        if text := environ.get(f"CONDA_{key.upper()}"):
            values[key] = [part.strip() for part in text.split(separator) if part.strip()]
    for key in ("channel_alias", "channel_priority"):
        if text := environ.get(f"CONDA_{key.upper()}"):
            values[key] = text
    if settings.conda_channel_alias:
        values["channel_alias"] = settings.conda_channel_alias
    if settings.conda_default_channels:
        values["default_channels"] = list(settings.conda_default_channels)
    if settings.conda_channel_priority:
        values["channel_priority"] = settings.conda_channel_priority
    return _configuration(values, settings, environ, files)


def _configuration(
    values: Mapping[str, object], settings: Settings, environ: Mapping[str, str], files: tuple[Path, ...]
) -> CondaConfiguration:
    def expand(text: str) -> str:
        return _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), text).rstrip("/")

    mirrors: dict[str, tuple[str, ...]] = {}
    if alias := values.get("channel_alias"):
        address = _address(expand(str(alias)))
        if address != CHANNEL_ALIAS:
            mirrors[f"{CHANNEL_ALIAS}/"] = (address,)
    custom = {name: _address(expand(str(base))) for name, base in _table(values, "custom_channels").items()}
    several = {
        name: tuple(expand(str(channel)) for channel in _sequence(channels))
        for name, channels in _table(values, "custom_multichannels").items()
    }
    names = ChannelNames(custom=custom, several=several)
    defaults: list[str] = []
    for channel in map(expand, map(str, _sequence(values.get("default_channels")))):
        public = next((own for own in DEFAULT_CHANNELS if _same_end(own, channel)), None)
        if public is not None and "://" in channel and channel != public:
            mirrors[f"{public}/"] = (channel,)
        defaults.append(public or channel)
    if defaults:
        names = ChannelNames(custom=custom, several=several, defaults=tuple(dict.fromkeys(defaults)))
    for name, addresses in _table(values, "mirrored_channels").items():
        (canonical,) = names.addresses(name) if name not in several else ("",)
        mirrors[f"{canonical}/"] = tuple(_address(expand(str(item))) for item in _sequence(addresses))
    for canonical, address in settings.conda_mirrors:
        mirrors[f"{canonical.rstrip('/')}/"] = (address.rstrip("/"),)
    priority = str(values.get("channel_priority", "strict")).lower()
    # Conda's older spelling.
    priority = {"true": "flexible", "false": "disabled"}.get(priority, priority)
    if priority not in PRIORITIES:
        raise ResolveError(f"channel_priority {priority!r} isn't known", hint=f"use {', '.join(PRIORITIES)}")
    return CondaConfiguration(
        names=names,
        mirrors=mirrors,
        priority=priority,
        pinned_packages=tuple(str(pin) for pin in _sequence(values.get("pinned_packages"))),
        files=files,
    )


def _same_end(public: str, channel: str) -> bool:
    """Whether ``channel`` is a copy of one of ``defaults``, by what conda calls it: ``…/main``."""
    return channel.rpartition("/")[2] == public.rpartition("/")[2]


def _address(text: str) -> str:
    if not re.match(r"(?:https?|file)://\S+$", text):
        raise ResolveError(
            f"conda's configuration: {redact(text)!r} is no address of channels",
            hint="it begins with https://, http:// or file://",
        )
    return text.rstrip("/")


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where conda looks, what counts more later."""
    home = Path(environ.get("HOME", "/nonexistent"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "conda"
    roots = [*map(Path, _SYSTEM)]
    if root := environ.get("CONDA_ROOT"):
        roots.append(Path(root))
    roots += [config, home / ".config" / "conda", home / ".conda"]
    seen: set[Path] = set()
    for directory in roots:
        if directory not in seen:
            seen.add(directory)
            yield from _below(directory)
    yield home / ".condarc"
    if prefix := environ.get("CONDA_PREFIX"):
        yield from _below(Path(prefix))
    if own := environ.get("CONDARC"):
        yield Path(own)


def _below(directory: Path) -> Iterator[Path]:
    yield directory / ".condarc"
    yield directory / "condarc"
    more = directory / "condarc.d"
    if more.is_dir():
        yield from sorted(path for path in more.iterdir() if path.suffix in (".yml", ".yaml"))


@lru_cache(maxsize=32)
def _read(path: Path, _changed: int) -> Mapping[str, object]:
    """The keys of one file that we know, as text, lists and tables of text."""
    try:
        if path.stat().st_size > _LIMIT:
            raise ResolveError(f"{path}: larger than any configuration of conda's")
        root = yaml_text.parse_document(path.read_text(encoding="utf-8"), str(path)).root
    except SpecError as error:
        raise ResolveError(error.message, hint=error.hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ResolveError(f"{path} can't be read: {error}") from error
    if root is None:
        return {}
    if not isinstance(root, yaml_text.Mapping):
        raise ResolveError(f"{path}:{root.line}: must be a mapping, is {yaml_text.describe(root)}")
    values: dict[str, object] = {}
    for key, node in root.entries:
        if key.text in _READ and not yaml_text.is_null(node):
            values[key.text] = _plain(key.text, node, path)
        elif key.text in _NOT_READ:
            _log.warning("%s:%d: %s isn't used: %s", path, key.line, key.text, _NOT_READ[key.text])
    return values


def _plain(key: str, node: yaml_text.Node, path: Path) -> object:
    """The value of ``key`` in the form that conda wants there."""
    if key in ("channel_alias", "channel_priority"):
        if isinstance(node, yaml_text.Scalar):
            return node.text
        kind = "text"
    elif key in ("default_channels", "pinned_packages"):
        if isinstance(node, yaml_text.Scalar):
            return [node.text]
        if isinstance(node, yaml_text.Sequence) and all(
            isinstance(item, yaml_text.Scalar) for item in node.items
        ):
            return [item.text for item in node.items if isinstance(item, yaml_text.Scalar)]
        kind = "a list of texts"
    else:
        if isinstance(node, yaml_text.Mapping):
            return {name.text: _entry(key, value, path) for name, value in node.entries}
        kind = "a mapping"
    raise ResolveError(f"{path}:{node.line}: {key} must be {kind}, is {yaml_text.describe(node)}")


def _entry(key: str, node: yaml_text.Node, path: Path) -> object:
    if key == "custom_channels":
        if isinstance(node, yaml_text.Scalar):
            return node.text
    elif isinstance(node, yaml_text.Sequence) and all(
        isinstance(item, yaml_text.Scalar) for item in node.items
    ):
        return [item.text for item in node.items if isinstance(item, yaml_text.Scalar)]
    kind = "an address" if key == "custom_channels" else "a list of channels"
    raise ResolveError(f"{path}:{node.line}: {key}: must be {kind}, is {yaml_text.describe(node)}")


def _merge(before: object, value: object) -> object:
    """As conda joins files: tables by their keys, of lists the entries of the file that counts more first."""
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **value}
    if isinstance(before, list) and isinstance(value, list):
        return [*value, *(item for item in before if item not in value)]
    return value


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def _table(values: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}
