"""The keys that may sign an archive, and what they signed.

Debian's own public keys for each suite are shipped in ``keys/`` (made from the package
debian-archive-keyring), so that every machine, a Mac as well, checks against the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import ResolveError
from envbuild.lazy import lazy

if TYPE_CHECKING:
    import pysequoia
else:
    pysequoia = lazy("pysequoia")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keyring:
    """OpenPGP certificates, binary or armoured; ``name`` is for messages."""

    name: str
    data: bytes


def debian_keys(suite: str) -> Keyring:
    """Debian's archive keys for ``suite``: the automatic, security and stable release keys."""
    file = resources.files("envbuild.lock.debian") / "keys" / f"{suite}.asc"
    return Keyring(name=f"Debian's archive keys for {suite}", data=file.read_bytes())


def keyring_file(path: Path) -> Keyring:
    """The keys in a file, binary or armoured, as ``Signed-By`` of apt takes them. Raises ``ResolveError``."""
    try:
        return Keyring(name=str(path), data=path.read_bytes())
    except OSError as error:
        raise ResolveError(
            f"the keyring {path} can't be read: {error.strerror}",
            hint=_GIVE_KEYS,
        ) from error


def signed_text(document: bytes, keyrings: tuple[Keyring, ...], where: str) -> str:
    """The text of a clear-signed ``document``, if one of the keys signed all of it.

    ``where`` is the document's address for messages. Raises ``ResolveError``: no valid signature, or
    anything beside the signed text. Source: RFC 9580 §7, and apt, which refuses the same."""
    if document.count(b"-----BEGIN PGP SIGNED MESSAGE-----") != 1 or not document.startswith(b"-----BEGIN"):
        raise ResolveError(f"{where} is not a signed document", hint=_HINT)
    certificates = []
    for ring in keyrings:
        try:
            parsed = pysequoia.Cert.split_bytes(ring.data)
        except (RuntimeError, ValueError, OSError) as error:
            raise ResolveError(f"{ring.name} can't be read: {_first_line(error)}", hint=_GIVE_KEYS) from error
        if not parsed:
            raise ResolveError(f"{ring.name} holds no OpenPGP key", hint=_GIVE_KEYS)
        certificates += parsed
    names = ", ".join(ring.name for ring in keyrings)
    try:
        # Only the text that was signed is ever read again, never the document around it.
        verified = pysequoia.verify(document, lambda _: certificates)
    except (RuntimeError, ValueError, OSError) as error:
        raise ResolveError(
            f"{where} is not validly signed by {names}: {_first_line(error)}", hint=_HINT
        ) from error
    if not verified.valid_sigs or verified.bytes is None:
        raise ResolveError(f"{where} is not validly signed by {names}", hint=_HINT)
    try:
        return verified.bytes.decode()
    except UnicodeDecodeError as error:
        raise ResolveError(f"{where} is not UTF-8 text", hint=_HINT) from error


_HINT = (
    "the mirror is broken, serves another archive, or someone changed it on its way; try another mirror "
    "(ENVBUILD_DEBIAN_MIRROR, ENVBUILD_DEBIAN_SECURITY_MIRROR)"
)
_GIVE_KEYS = "set ENVBUILD_DEBIAN_KEYRING to a file of OpenPGP public keys, or unset it for Debian's own"


def _first_line(error: Exception) -> str:
    """Sequoia's own words without the stack trace that follows them."""
    return str(error).partition("\n")[0]
