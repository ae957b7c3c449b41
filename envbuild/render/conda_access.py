"""How a build step reaches this machine's conda channels: an auth file of rattler's, for these hosts only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from envbuild.http.address import Netrc
from envbuild.http.auth_file import AuthFile, Bearer, PathToken


def conda_auth(environ: Mapping[str, str], urls: Iterable[str]) -> str | None:
    """The logins of the addresses' hosts in the form of rattler's auth file; None where there are none. They
    are of rattler's own file first, then of netrc: what envbuild's downloads use."""
    file, netrc = AuthFile(environ), Netrc(environ)
    found: dict[str, object] = {}
    asked: set[str] = set()
    for url in urls:
        host = (urlsplit(url).hostname or "").lower()
        if not host or host in asked:
            continue
        asked.add(host)
        access = file.access(url) or netrc.credentials(url)
        if isinstance(access, Bearer):
            found[host] = {"BearerToken": access.token}
        elif isinstance(access, PathToken):
            found[host] = {"CondaToken": access.token}
        elif access is not None:
            found[host] = {"BasicHTTP": {"username": access.user, "password": access.password}}
    return json.dumps(found, sort_keys=True) if found else None
