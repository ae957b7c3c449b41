"""The secrets of a build: this machine's access to indexes and channels, and what the user names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from envbuild.engines.secret import Secret
from envbuild.errors import BuildError
from envbuild.lock.model import CondaPin
from envbuild.plan.model import Plan
from envbuild.render.access import PipAccess, conda_auth

SECRET_LIMIT = 500 << 10
"""Bytes: BuildKit takes no larger secret."""

_PASSWORD = re.compile(r'(?m) password (\S+)$|"(?:password|BearerToken|CondaToken)": "([^"]+)"')
"""As a netrc and rattler's auth file of ours have it."""


def machine_secrets(
    plan: Plan, access: Callable[[Plan], PipAccess], environ: Mapping[str, str]
) -> dict[str, bytes]:
    """Ids and values of what the steps of a Dockerfile of ours need to download what ``plan`` pins."""
    pip = access(plan)
    secrets = {"pip-conf": pip.pip_conf.encode()}
    if pip.netrc is not None:
        secrets["netrc"] = pip.netrc.encode()
    if pip.ca_certificates is not None:
        secrets["ca-certificates"] = _value("ca-certificates", pip.ca_certificates)
    urls = [artifact.pin.url for artifact in plan.artifacts if isinstance(artifact.pin, CondaPin)]
    if auth := conda_auth(environ, urls):
        secrets["rattler-auth"] = auth.encode()
    return secrets


def user_secrets(secrets: Sequence[Secret], environ: Mapping[str, str]) -> dict[str, bytes]:
    """Ids and values of what the user names; the later of two with one id. Raises ``BuildError`` for one that
    isn't there."""
    given: dict[str, bytes] = {}
    for secret in secrets:
        if secret.file is not None:
            given[secret.id] = _value(secret.id, secret.file)
        elif secret.variable is not None:
            value = environ.get(secret.variable)
            if value is None:
                raise BuildError(
                    f"the secret {secret.id!r} is not there: {secret.variable} is not set",
                    hint="set the variable, or name a file: id=NAME,src=FILE",
                )
            given[secret.id] = value.encode("utf-8", "surrogateescape")
    return given


def write_secrets(values: Mapping[str, bytes], scratch: Path) -> list[tuple[str, str]]:
    """Ids and files below ``scratch``, relative to it, which only this user can read."""
    directory = scratch / "secrets"
    directory.mkdir(mode=0o700)
    written = []
    for number, (identity, value) in enumerate(sorted(values.items())):
        path = directory / str(number)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(value)
        written.append((identity, f"secrets/{number}"))
    return written


def hidden_words(machine: Mapping[str, bytes], user: Mapping[str, bytes]) -> list[str]:
    """What nobody may read in a log: all lines of the user's secrets, passwords and tokens of the machine's,
    the longest first. Very short ones would blacken every second word."""
    words: set[str] = set()
    for value in user.values():
        words.update(line.strip() for line in value.decode("utf-8", "replace").splitlines())
    for value in machine.values():
        matches = _PASSWORD.finditer(value.decode("utf-8", "replace"))
        words.update(match[1] or match[2] for match in matches)
    return sorted((word for word in words if len(word) >= 4), key=lambda word: (-len(word), word))


def _value(identity: str, path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            value = file.read(SECRET_LIMIT + 1)
    except OSError as error:
        raise BuildError(
            f"the secret {identity!r} can't be read: {path}: {error.strerror}",
            hint="check the file's name and its permissions",
        ) from error
    if len(value) > SECRET_LIMIT:
        raise BuildError(f"the secret {identity!r} is larger than {SECRET_LIMIT} bytes: {path}")
    return value
