"""The proxies of this machine as build arguments. Docker knows these names: they are in every step's
environment, but in no image, no history and no cache key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

PROXIES = {
    "HTTP_PROXY": "httpProxy",
    "HTTPS_PROXY": "httpsProxy",
    "FTP_PROXY": "ftpProxy",
    "NO_PROXY": "noProxy",
}
"""Variables, and what they are called in docker's ``config.json``. ALL_PROXY isn't among them: engines before
23 don't know it, and would make it part of the image's history where a Dockerfile declares it."""


def proxy_arguments(environ: Mapping[str, str], host: str | None = None) -> dict[str, str]:
    """Build arguments in upper and lower case, from docker's ``config.json`` (``proxies``: those of the
    engine at ``host``, else ``default``), and from the environment for what isn't there."""
    configured = _configured(environ, host)
    arguments: dict[str, str] = {}
    for name, key in PROXIES.items():
        value = configured.get(key) or environ.get(name) or environ.get(name.lower())
        if value and value.isprintable():
            arguments[name] = arguments[name.lower()] = value
    return arguments


def proxy_secrets(arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Passwords in proxy addresses, as written and as meant: never to be shown."""
    secrets: set[str] = set()
    for value in arguments.values():
        try:
            password = urlsplit(value).password
        except ValueError:
            password = None
        secrets.update({password, unquote(password)} if password else ())
    return tuple(sorted(secrets, key=lambda word: (-len(word), word)))


def loopback_proxy(arguments: Mapping[str, str]) -> str | None:
    """The host and port of a proxy that only programs in this machine's own network reach."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        value = arguments.get(name, "")
        try:
            parts = urlsplit(value if "://" in value else f"http://{value}")
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            continue
        hostname = parts.hostname or ""
        if hostname == "localhost" or hostname.startswith("127.") or hostname == "::1":
            return f"{hostname}{port}"
    return None


def _configured(environ: Mapping[str, str], host: str | None) -> dict[str, str]:
    directory = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/") / ".docker")
    try:
        proxies = json.loads((directory / "config.json").read_bytes())["proxies"]
        table = proxies.get(host or "") or proxies.get("default") or {}
        return {str(key): value for key, value in table.items() if isinstance(value, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
