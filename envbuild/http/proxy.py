"""Which proxy a host is reached through, by the variables that curl, Docker and pip follow."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping


def proxy_of(host: str, port: int | None, environ: Mapping[str, str]) -> str | None:
    """The address of the proxy for HTTPS to ``host``; it may hold credentials. None for a direct way.

    ``HTTPS_PROXY``, else ``ALL_PROXY``, unless ``NO_PROXY`` names the host; small letters go first. This
    machine itself is never asked for through a proxy, as in Docker: that would be another machine's
    loopback."""
    found = _variable(environ, "https_proxy") or _variable(environ, "all_proxy")
    if not found or is_loopback(host) or _excepted(host, port, _variable(environ, "no_proxy")):
        return None
    return found if "://" in found else f"http://{found}"


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


def _excepted(host: str, port: int | None, rules: str) -> bool:
    """Whether ``NO_PROXY`` has a rule for the host: its name or that of a domain above, with a port or not,
    an address, a network (``10.0.0.0/8``), or ``*``."""
    host = host.lower().strip("[]").rstrip(".")
    for rule in (each.strip().lower() for each in rules.split(",")):
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
        if not name or (number and int(number) != (port or 443)):
            continue
        if host == name or host.endswith(f".{name}"):
            return True
    return False
