"""What a build may read while it runs and no layer ever holds: named, and where the value is."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import UsageError

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HINT = "write id=NAME,src=FILE or id=NAME,env=VARIABLE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A build secret: its id, and either the file or the environment variable that has its value.

    The value itself is never here, so a Secret may be printed.
    """

    id: str
    file: Path | None = None
    variable: str | None = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.variable is None):
            raise UsageError(f"the secret {self.id!r} needs a file or a variable, and one only", hint=_HINT)

    @classmethod
    def parse(cls, text: str) -> Secret:
        """The secret that docker's ``--secret`` would read from ``text`` (comma separated, quoted as CSV is).

        Only the forms with an id and one source are taken: docker's guess that a bare ``id=X`` names a
        variable or a file reads whatever happens to be there. Raises ``UsageError``, whose message has
        names but no values: a value may be the secret itself, put there by mistake.
        """
        fields = _fields(text)
        identity, kind = fields.pop("id", ""), fields.pop("type", None)
        file = fields.pop("src", None)
        variable = fields.pop("env", None)
        if fields:
            raise UsageError(f"a secret has no {sorted(fields)[0]!r}", hint=_HINT)
        if not _ID.fullmatch(identity):
            raise UsageError(
                "a secret needs an id of letters, digits, dots, dashes and underscores", hint=_HINT
            )
        if (file is None) == (variable is None):
            raise UsageError(f"the secret {identity!r} needs src or env, and one only", hint=_HINT)
        if kind is not None and kind != ("file" if variable is None else "env"):
            raise UsageError(f"the secret {identity!r} has a type that doesn't fit its source", hint=_HINT)
        if file is not None:
            if not file or "\0" in file:
                raise UsageError(f"the secret {identity!r} names no file", hint=_HINT)
            return cls(id=identity, file=Path(file))
        if variable is None or not _VARIABLE.fullmatch(variable):
            raise UsageError(f"the secret {identity!r} names no environment variable", hint=_HINT)
        return cls(id=identity, variable=variable)


def _fields(text: str) -> dict[str, str]:
    """Key to value, ``source`` under its short name."""
    if "\n" in text or "\r" in text:
        raise UsageError("a secret is one line", hint=_HINT)
    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise UsageError("a secret's quotes don't close", hint=_HINT) from error
    fields: dict[str, str] = {}
    for item in row:
        key, separator, value = item.partition("=")
        key = {"source": "src"}.get(key.strip().lower(), key.strip().lower())
        if not separator:
            raise UsageError("a secret is a list of key=value", hint=_HINT)
        if not re.fullmatch(r"[a-z]{1,16}", key):
            raise UsageError("a secret's keys are id, src and env", hint=_HINT)
        if key in fields:
            raise UsageError(f"a secret has {key!r} twice", hint=_HINT)
        fields[key] = value
    return fields
