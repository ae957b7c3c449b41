"""What of a Debian package goes into an image, and what its maintainer script would have added.

Left out are manual pages, info files, translations, lintian's and bug-report files, and all documentation but
the copyright files: about a third of a small base, and nothing a program opens. Nothing else is left out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

from envbuild.compose.artifacts.deb.archive import UnsafeArchive, merged_path
from envbuild.compose.base import Entry, EntryKind

_DROPPED = (
    "usr/share/bug",
    "usr/share/groff",
    "usr/share/info",
    "usr/share/linda",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    # Directories of base-files that its script replaces by links into /run.
    "var/lock",
    "var/run",
)
_DOC = "usr/share/doc"

_COPIES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "base-files": (
        ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
        ("usr/share/base-files/dot.profile", "root/.profile"),
        ("usr/share/base-files/profile", "etc/profile"),
    ),
    "debianutils": (("usr/share/debianutils/shells", "etc/shells"),),
    "libc-bin": (("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),),
}
"""Files that a package's script copies to where they are read, if they aren't there."""

MADE_OF: Mapping[str, str] = {"ca-certificates-java": "ca-certificates"}
"""Packages whose script makes a file of another package's files."""

_CERTIFICATES = "usr/share/ca-certificates/"
_AS_FILE_NAME = str.maketrans(" (),", "_==_")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL)


def is_kept(path: str, kind: EntryKind) -> bool:
    """Whether an image has ``path`` of a package."""
    if any(path == directory or path.startswith(f"{directory}/") for directory in _DROPPED):
        return False
    if path == _DOC or path.startswith(f"{_DOC}/"):
        # One package's documentation may be a link to another's; scanners follow it to the copyright.
        depth = path.count("/")
        return (kind is EntryKind.SYMLINK and depth == 3) or (depth == 4 and path.endswith("/copyright"))
    return True


def keep_entries(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """``entries`` less what is left out, and less directories that go without saying."""
    parents = {str(above) for path in entries for above in PurePosixPath(path).parents}
    files = {path: entry for path, entry in entries.items() if is_kept(path, entry.kind)}
    return {
        path: entry
        for path, entry in files.items()
        if entry.kind is not EntryKind.DIRECTORY
        or path not in parents
        or (entry.mode, entry.uid, entry.gid) != (0o755, 0, 0)
    }


def script_files(package: str, entries: Mapping[str, Entry]) -> list[Entry]:
    """What the maintainer script of ``package`` would have made of its own files."""
    made = [
        Entry(path=target, content=entries[source].content)
        for source, target in _COPIES.get(package, ())
        if source in entries and entries[source].kind is EntryKind.FILE and target not in entries
    ]
    if package == "ca-certificates":
        made += _certificates(entries)
    return made


def derived_files(package: str, others: Mapping[str, Entry]) -> list[Entry]:
    """What the maintainer script of ``package`` would have made of the files of the package it is
    :data:`MADE_OF`: Java's truststore, with the aliases that ca-certificates-java gives."""
    if package != "ca-certificates-java" or not others:
        return []
    certificates: dict[str, bytes] = {}
    seen: Counter[str] = Counter()
    for name, pems in _authorities(others).items():
        stem = PurePosixPath(name).stem.translate(_AS_FILE_NAME).lower()
        plain = f"debian:{stem}.pem".encode("ascii", "backslashreplace").decode()
        for pem in pems:
            alias = f"{plain}.{seen[plain]}" if seen[plain] else plain
            certificates[alias] = _der(pem, name)
            seen[plain] += 1
    return [Entry(path="etc/ssl/certs/java/cacerts", content=keystore(certificates))]


def _der(pem: bytes, name: str) -> bytes:
    try:
        return base64.b64decode(b"".join(pem.split(b"-----")[2].split()), validate=True)
    except (binascii.Error, IndexError) as error:
        raise UnsafeArchive(f"{name!r} holds no certificate") from error


def _authorities(entries: Mapping[str, Entry]) -> dict[str, list[bytes]]:
    """The PEM blocks of each certificate file, by its path below the directory of all, sorted."""
    authorities = {}
    for path in sorted(entries):
        if path.startswith(_CERTIFICATES) and path.endswith(".crt"):
            content = entries[path].content
            data = content if isinstance(content, bytes) else content.read_bytes()
            pems = _PEM.findall(data)
            if not pems:
                raise UnsafeArchive(f"{path!r} holds no certificate")
            authorities[path.removeprefix(_CERTIFICATES)] = pems
    return authorities


def _certificates(entries: Mapping[str, Entry]) -> list[Entry]:
    """The bundle of all certificates and the list of their names, as update-ca-certificates makes them."""
    authorities = _authorities(entries)
    names, bundle = list(authorities), [pem for pems in authorities.values() for pem in pems]
    return [
        Entry(path="etc/ca-certificates.conf", content="".join(f"{name}\n" for name in names).encode()),
        Entry(path="etc/ssl/certs/ca-certificates.crt", content=b"".join(pem + b"\n" for pem in bundle)),
    ]


def scanner_files(package: str, control: Mapping[str, bytes], entries: Mapping[str, Entry]) -> list[Entry]:
    """dpkg's metadata in the form of distroless images, which syft and trivy read (``status.d``).

    The checksums are those of the files that are there, at the paths they are at."""
    folder = "var/lib/dpkg/status.d"
    lines = []
    for line in control.get("md5sums", b"").decode("utf-8", "surrogateescape").splitlines():
        checksum, _, given = line.partition("  ")
        path = merged_path(given)
        if path in entries:
            lines.append(f"{checksum}  {path}\n")
    return [
        Entry(path=f"{folder}/{package}", content=control["control"].rstrip(b"\n") + b"\n"),
        Entry(path=f"{folder}/{package}.md5sums", content="".join(lines).encode("utf-8", "surrogateescape")),
    ]


_JKS_MAGIC, _JKS_VERSION, _JKS_TRUSTED = 0xFEEDFEED, 2, 2
_KEYSTORE_PASSWORD = "changeit"
"""Debian's and Java's own; it guards nothing, as the store holds public certificates only."""


def keystore(certificates: Mapping[str, bytes], *, password: str = _KEYSTORE_PASSWORD) -> bytes:
    """A JKS of trusted certificates, alias (ASCII) to DER, in the order of their aliases, dated 1970.

    The format is that of ``sun.security.provider.JavaKeyStore``: it closes with a SHA-1 keyed by the
    password, which Java checks when it loads the store with that password."""
    parts = [struct.pack(">III", _JKS_MAGIC, _JKS_VERSION, len(certificates))]
    for alias, der in sorted(certificates.items()):
        parts += [
            struct.pack(">I", _JKS_TRUSTED),
            _encode_utf(alias),
            struct.pack(">Q", 0),
            _encode_utf("X.509"),
            struct.pack(">I", len(der)),
            der,
        ]
    body = b"".join(parts)
    keyed = hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body, usedforsecurity=False)
    return body + keyed.digest()


def _encode_utf(text: str) -> bytes:
    """As ``DataOutput.writeUTF`` does; ASCII has the same form in its modified UTF-8."""
    data = text.encode("ascii")
    return struct.pack(">H", len(data)) + data
