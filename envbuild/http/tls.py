"""Whom TLS connections trust."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import FetchError
from envbuild.lazy import lazy

if TYPE_CHECKING:
    import certifi
else:
    certifi = lazy("certifi")


def tls_context(ca_bundle: Path | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that trusts the given CA bundle, else SSL_CERT_FILE, REQUESTS_CA_BUNDLE, the system.

    Raises ``FetchError`` for a bundle that can't be read."""
    bundle = ca_bundle
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if bundle is None and environ.get(name):
            bundle = Path(environ[name])
    try:
        if bundle is not None:
            folder = bundle.is_dir()
            return ssl.create_default_context(
                cafile=None if folder else str(bundle), capath=str(bundle) if folder else None
            )
        paths = ssl.get_default_verify_paths()
        if paths.cafile is None and paths.capath is None:
            # A Python that knows no system store (python.org's on macOS): httpx's own bundle.

            return ssl.create_default_context(cafile=certifi.where())
        return ssl.create_default_context()
    except OSError as error:
        raise FetchError(
            f"the CA bundle {bundle} can't be used: {error.strerror or error}",
            hint="set SSL_CERT_FILE to a file of PEM certificates",
        ) from error
