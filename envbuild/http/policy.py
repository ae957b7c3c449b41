"""What every request goes by: which proxy a host is reached through, and when it is tried again."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass


def proxy_of(host: str, port: int | None, environ: Mapping[str, str], scheme: str = "https") -> str | None:
    """The address of the proxy for HTTPS or HTTP to ``host``; it may hold credentials. None for a direct way.

    ``HTTPS_PROXY`` or ``HTTP_PROXY``, else ``ALL_PROXY``, unless ``NO_PROXY`` names the host, by the rules
    of curl, Docker and pip; small letters go first. This machine itself is never asked for through a proxy,
    as in Docker: that would be another machine's loopback."""
    variable = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    port = port or (443 if scheme == "https" else 80)
    if not variable or is_loopback(host) or _excepted(host, port, _variable(environ, "no_proxy")):
        return None
    return variable if "://" in variable else f"http://{variable}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _excepted(host: str, port: int, rules: str) -> bool:
    """Whether ``NO_PROXY`` has a rule for the host: its name or that of a domain above, with a port or not,
    an address, a network (``10.0.0.0/8``), or ``*``."""
    host = host.lower().strip("[]").rstrip(".")
    for rule in (part.strip().lower() for part in rules.split(",")):
        if rule == "*":
            return True
        if "/" in rule:
            try:
                if ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False):
                    return True
            except ValueError:
                pass
            continue
        name, colon, number = rule.rpartition(":")
        if not colon or not number.isdigit() or (":" in name and not name.endswith("]")):
            name, number = rule, ""
        name = name.strip("[]").removeprefix("*").removeprefix(".").rstrip(".")
        if not name or (number and int(number) != port):
            continue
        if host == name or host.endswith(f".{name}"):
            return True
    return False


LONGEST_WAIT = 30.0
"""Seconds; a server's Retry-After beyond this is not waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often, and how patiently. ``first_wait`` is in seconds and doubles with every try."""

    tries: int = 3
    first_wait: float = 0.5

    def wait(self, failed: int, asked: float | None = None) -> float | None:
        """Seconds to wait once ``failed`` tries have failed, or None where those were enough. ``asked`` is
        what the server asked for."""
        if failed >= self.tries:
            return None
        return self.first_wait * 2 ** (failed - 1) if asked is None else asked


def is_busy(status: int) -> bool:
    """Whether the same request may succeed later: a time-out, too many requests, a failing server."""
    return status in (408, 429) or status >= 500


def retry_after(text: str | None) -> float | None:
    """The seconds of a ``Retry-After`` header, at the most ``LONGEST_WAIT``; None for none or a date."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(float(text), LONGEST_WAIT)
