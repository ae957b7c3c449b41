"""Credentials that were written into addresses: found and refused."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from envbuild.redact import SECRET_PARAMETERS, redact
from envbuild.specs.problems import Refused

VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
"""A reference to an environment variable, in the one form pip and uv expand in requirements files."""

REMEDY = (
    "keep it in netrc, the keyring or the tool's own credential settings, "
    "or write an environment variable as ${VAR}"
)

_TOKEN = re.compile(r"/t/(?!\$\{)[^/\s]+")
_SECRET_PARAMETER = re.compile(SECRET_PARAMETERS, re.IGNORECASE)

# These user names say which keyring entry or token helper to ask; they are no secret by themselves.
_PUBLIC_USERS = frozenset({"__token__", "aws", "oauth2accesstoken", "VssSessionToken"})


def refuse_credential(url: str) -> None:
    """Raises :class:`Refused` if ``url`` holds a user's password, a token, or a signature of its own.

    ``${VAR}`` in their place is accepted: the text is kept, the value is never read here.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Refused(f"{redact(url)!r} is no address: it can't be split into its parts") from error
    user_info, at, _ = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    secret_user = not password and user not in _PUBLIC_USERS and not _is_variable(user)
    if at and (secret_user or (password and not _is_variable(password))):
        raise Refused(f"a credential stands in {redact(url)!r}", REMEDY)
    if _TOKEN.search(parts.path):
        raise Refused(f"a token stands in {redact(url)!r}", REMEDY)
    for name, value in parse_qsl(parts.query):
        if _SECRET_PARAMETER.fullmatch(name) and not _is_variable(value):
            raise Refused(f"a signature or token stands in {redact(url)!r}", REMEDY)


def _is_variable(text: str) -> bool:
    return VARIABLE.fullmatch(text) is not None
