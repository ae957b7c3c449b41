"""Hides what may be a credential inside an address, before anything is shown."""

from __future__ import annotations

import re

SECRET_PARAMETERS = (
    "sig|signature|token|access_token|auth|apikey|api_key|key|password|x-amz-signature|x-goog-signature"
)
"""Names of query parameters whose values open a door; alternatives of a regular expression."""

_USER_INFO = re.compile(r"(?<=//)[^/?#\s\"']*@")
_CHANNEL_TOKEN = re.compile(r"(://[^\s\"']*?/t/)(?!\$\{)[^/\s\"']+")
_QUERY_SECRET = re.compile(rf"(?i)([?&](?:{SECRET_PARAMETERS})=)[^&#\s\"']+")


def redact(text: str) -> str:
    """``text`` with user information, channel tokens and signatures of addresses replaced by ``****``."""
    text = _USER_INFO.sub("****@", text)
    text = _CHANNEL_TOKEN.sub(r"\1****", text)
    return _QUERY_SECRET.sub(r"\1****", text)
