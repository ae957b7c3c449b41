"""Hides what may be a credential inside an address, before anything is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

SECRET_PARAMETERS = (
    "sig|signature|token|access_token|auth|apikey|api_key|key|password|x-amz-signature|x-goog-signature"
)
"""Names of query parameters whose values open a door; alternatives of a regular expression."""
_MORE_PARAMETERS = (
    "x-amz-security-token|x-amz-credential|x-goog-credential|[a-z_-]*token|[a-z_-]*secret|sslpassword"
    "|passwd|pwd"
)
"""Those that may be one: hidden, but no reason to refuse an address."""

_LONGEST = 2000
"""Characters of an address that are looked at, so that no text takes long."""
# A path that was made of an address has one slash.
_AFTER_SCHEME = r"(?:(?<=//)|(?<=[A-Za-z]:/)(?!/))"
# A digest after the at sign is no host.
_HOST_FOLLOWS = r"@(?!sha256:)"
# Three stars are a password that was hidden before.
_USER_INFO = re.compile(rf"{_AFTER_SCHEME}(?![^/?#\s@:]*:\*\*\*@)[^/?#\s]*{_HOST_FOLLOWS}")
# A password with a character that must be written as %2F, %3F or %23: what follows the colon is no port.
_RAW_PASSWORD = re.compile(
    rf"{_AFTER_SCHEME}(?![\[*])[^/?#\s@:]*:(?!\*\*\*@|[0-9]*(?:[/?#\s\"']|$))\S{{0,{_LONGEST}}}{_HOST_FOLLOWS}"
)
# Without a scheme: user:password@host, where the host has a dot, a port or a path.
_BARE_LOGIN = re.compile(
    r"(?<![^\s\"'`(,=])(?!(?:pkg|oci|oci-archive|docker-archive|docker-daemon|file|mailto|sha256):)"
    rf"[^\s\"'`(,=/:@]+:(?!//)[^\s/]{{1,{_LONGEST}}}@(?=(?:[\w-]+\.)+[\w-]|[\w-]+(?::[0-9]+)?/|localhost\b|\[)"
)
_CHANNEL_TOKEN = re.compile(r"/t/(?!\$\{)[^/\s\"']+")
_POOLS = tuple(
    f"/pool/{component}"
    for component in (
        *("main", "contrib", "non-free", "non-free-firmware", "updates/main"),
        *("universe", "multiverse", "restricted"),
    )
)
"""Of Debian and Ubuntu: packages that begin with a t lie in /t/ below them."""
_NO_ADDRESS = re.compile(r"[\s\"']")
_ANY_USER = re.compile(r"(?<=://)[^/\s@]+@")
_WHOLE_QUERY = re.compile(r"(https?://[^\s?#`'\"]+)\?[^\s`'\")]+")
_QUERY_SECRET = re.compile(rf"(?i)([?&;](?:{SECRET_PARAMETERS}|{_MORE_PARAMETERS})=)[^&#\s\"']+")


def redact(text: str) -> str:
    """``text`` with user information, channel tokens and signatures of addresses replaced by ``****``."""
    if "@" in text:
        text = _RAW_PASSWORD.sub("****@", _USER_INFO.sub("****@", text))
        text = _BARE_LOGIN.sub("****@", text)
    text = _CHANNEL_TOKEN.sub(_hide_token, text)
    return _QUERY_SECRET.sub(r"\1****", text)


def _hide_token(match: re.Match[str]) -> str:
    """A conda channel has its token as ``/t/TOKEN/``."""
    before = match.string[max(0, match.start() - _LONGEST) : match.start()]
    scheme = before.rfind("://")
    if scheme < 0 or before.endswith(_POOLS) or _NO_ADDRESS.search(before, scheme):
        return match[0]
    return "/t/****"


def clean(text: str, hidden: Iterable[str] = ()) -> str:
    """What a tool said, without user names, passwords, tokens and query strings of addresses, and without
    ``hidden`` values."""
    text = _WHOLE_QUERY.sub(r"\1", _ANY_USER.sub("", text))
    for value in hidden:
        text = text.replace(value, "***")
    return text.strip()


_DRIVES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def last_seen(text: str) -> str:
    """The end of a line that was overwritten by carriage returns, as progress bars do; else the line."""
    return next((part for part in reversed(text.split("\r")) if part.strip()), "")


def safe_text(text: str, hidden: Iterable[str] = ()) -> str:
    """:func:`last_seen` of ``text`` without what drives a terminal and without credentials: of addresses, and
    ``hidden`` values."""
    seen = _UNSAFE.sub(_escaped, _DRIVES.sub("", last_seen(text)))
    indent = seen[: len(seen) - len(seen.lstrip())]
    return (indent + clean(seen, hidden)).rstrip()


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def clipped(text: str, length: int) -> str:
    """``text``, or its start and an ellipsis where it has more than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
