"""Channels as people write them, and the addresses they stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from envbuild.errors import ResolveError
from envbuild.specs.model import CondaSpec

CHANNEL_ALIAS = "https://conda.anaconda.org"
"""Where conda looks for a channel that is only a name."""
DEFAULT_CHANNELS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
"""What conda's channel ``defaults`` stands for."""

_TOKEN = re.compile(r"/t/[^/]+(?=/|$)")
_IN_TEXT = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s@'\"]+@", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelNames:
    """How names of channels become addresses: conda's ``channel_alias``, ``default_channels``,
    ``custom_channels`` and ``custom_multichannels``."""

    alias: str = CHANNEL_ALIAS
    defaults: tuple[str, ...] = DEFAULT_CHANNELS
    custom: Mapping[str, str] = field(default_factory=dict)
    """A channel's name to the address that it lies below."""
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A name to the channels that it stands for."""

    def addresses(self, name: str) -> tuple[str, ...]:
        """The URLs, without a trailing slash, of a channel given as a URL, ``file:`` URL, path or name.

        ``defaults`` stands for several. Raises ``ResolveError`` for a path that isn't absolute: a lock
        must not depend on the directory it was made in.
        """
        name = name.strip()
        several = self.several.get(name) or (self.defaults if name == "defaults" else ())
        if several:
            return tuple(
                address for channel in several if channel != name for address in self.addresses(channel)
            )
        if name in self.custom:
            return (f"{self.custom[name].rstrip('/')}/{name}",)
        if name.startswith("file:") and not name.startswith("file:///"):
            name = name.removeprefix("file:").removeprefix("//localhost")
        if "://" in name:
            return (name.rstrip("/"),)
        if name.startswith("/"):
            return (Path(name).as_uri().rstrip("/"),)
        if name.startswith((".", "~")) or not name:
            raise ResolveError(
                f"channel {name!r} is a relative path",
                hint="write a channel on disk as file:///absolute/path",
            )
        return (f"{self.alias.rstrip('/')}/{name.strip('/')}",)

    def of(self, spec: CondaSpec) -> tuple[str, ...]:
        """The addresses to ask, in order of priority: the spec's channels, then those that only a
        ``channel::package`` names (as conda does). No channel at all means ``defaults``."""
        named = [channel for channel in spec.channels if channel != "nodefaults"]
        if not named and "nodefaults" not in spec.channels:
            named = ["defaults"]
        named += [channel for channel, _ in map(split_channel, spec.dependencies) if channel]
        if not named:
            raise ResolveError("no channel is left after nodefaults", hint="name at least one channel")
        return tuple(dict.fromkeys(address for channel in named for address in self.addresses(channel)))

    def dependencies(self, spec: CondaSpec) -> tuple[str, ...]:
        """The spec's match specs, with ``channel::`` given as an address wherever it is one channel."""
        written = []
        for dependency in spec.dependencies:
            channel, rest = split_channel(dependency)
            addresses = self.addresses(channel) if channel else ()
            written.append(f"{addresses[0]}::{rest}" if len(addresses) == 1 else rest)
        return tuple(written)


def split_channel(dependency: str) -> tuple[str, str]:
    """``(channel, match spec)``; the channel is empty where none is named."""
    channel, separator, rest = dependency.rpartition("::")
    return (channel.strip(), rest.strip()) if separator else ("", dependency.strip())


def without_credentials(url: str) -> str:
    """The URL without user, password, ``/t/<token>`` and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, _TOKEN.sub("", parts.path), "", ""))


def hide_credentials(text: str, channels: Sequence[str] = ()) -> str:
    """A foreign message with every URL's credentials cut out. ``channels`` are the addresses it may hold."""
    for channel in sorted(channels, key=len, reverse=True):
        text = text.replace(channel, without_credentials(channel))
    return _TOKEN.sub("", _IN_TEXT.sub(r"\1", text))
