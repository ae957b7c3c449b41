"""What a registry's refusal says to people: its own words, made safe, and what to do next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from envbuild.http.policy import is_busy
from envbuild.registry.base import RefusedError

ERROR_LIMIT = 64 << 10
"""Bytes of an error's body that are read."""
_LONGEST = 200
_QUERY = re.compile(r"\?\S*")
_USER = re.compile(r"//[^/\s@]*@")


class AbsentError(RefusedError):
    """The registry knows no such repository, tag, digest or upload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Complaint:
    """One entry of ``{"errors": [{"code": …, "message": …}]}`` (distribution-spec, error codes)."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.code and self.message else self.code or self.message


def complaints(body: bytes | None, secrets: Iterable[str] = ()) -> tuple[Complaint, ...]:
    """What the body of a refusal complains of, at the most three, without anything secret: no query of an
    address, no user in it, none of ``secrets``."""
    try:
        errors = json.loads(body or b"")["errors"]
        stated = [
            (error.get("code"), error.get("message")) for error in errors[:3] if isinstance(error, dict)
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    hidden = tuple(secrets)
    return tuple(
        Complaint(code=_plain(code, hidden)[:40], message=_plain(message, hidden)) for code, message in stated
    )


def refusal(
    status: int,
    what: str,
    registry: str,
    said: Sequence[Complaint] = (),
    *,
    logged_in: bool,
) -> RefusedError:
    """The error for an answer of ``status``."""
    words = "; ".join(filter(None, map(str, said)))
    reason = f"(HTTP {status}){f': {words}' if words else ''}"
    codes = {error.code.upper() for error in said}
    if status == 404:
        hint = "check the name and the tag"
        if "NAME_UNKNOWN" in codes:
            hint = "check the name; some registries want a repository to be made before the first push"
        return AbsentError(f"{what}: {registry} has no such image {reason}", hint=hint, status=status)
    if status in (401, 403):
        who = "these credentials" if logged_in else "anonymous access"
        return RefusedError(
            f"{what}: {registry} refuses {who} {reason}",
            hint=f"check the name; log in with: docker login {registry}",
            status=status,
        )
    if status == 429:
        more = "" if logged_in else f", or log in with: docker login {registry}"
        return RefusedError(
            f"{what}: {registry} has had too many requests {reason}",
            hint=f"try again later{more}",
            status=status,
        )
    if status == 405 or "UNSUPPORTED" in codes:
        return RefusedError(
            f"{what}: {registry} doesn't support that {reason}",
            hint="deleting must be switched on in many registries",
            status=status,
        )
    return RefusedError(
        f"{what}: {registry} answered HTTP {status}{f': {words}' if words else ''}",
        hint="try again later" if is_busy(status) else None,
        status=status,
    )


def _plain(value: object, secrets: Sequence[str]) -> str:
    if not isinstance(value, str):
        return ""
    text = value[: _LONGEST * 4]
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = _USER.sub("//", _QUERY.sub("?…", text))
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:_LONGEST]
