"""A Java truststore (JKS) as a function of its certificates, where Debian makes it by running Java."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
PASSWORD = "changeit"
"""Debian's and Java's own; it guards nothing, as the store holds public certificates only."""


def keystore(certificates: Mapping[str, bytes], *, password: str = PASSWORD) -> bytes:
    """A JKS of trusted certificates, alias (ASCII) to DER, in the order of their aliases, dated 1970.

    The format is that of ``sun.security.provider.JavaKeyStore``: it closes with a SHA-1 keyed by the
    password, which Java checks when it loads the store with that password."""
    parts = [struct.pack(">III", _MAGIC, _VERSION, len(certificates))]
    for alias, der in sorted(certificates.items()):
        parts += [
            struct.pack(">I", _TRUSTED),
            _text(alias),
            struct.pack(">Q", 0),
            _text("X.509"),
            struct.pack(">I", len(der)),
            der,
        ]
    body = b"".join(parts)
    keyed = hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body, usedforsecurity=False)
    return body + keyed.digest()


def _text(text: str) -> bytes:
    """As ``DataOutput.writeUTF`` does; ASCII has the same form in its modified UTF-8."""
    data = text.encode("ascii")
    return struct.pack(">H", len(data)) + data
