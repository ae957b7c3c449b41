"""Every problem of a spec, gathered before anything is raised."""

from __future__ import annotations

from dataclasses import dataclass

from envbuild.errors import SpecError
from envbuild.redact import redact


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something was written: a file as the user named it, a 1-based line, a key path."""

    file: str
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}" if self.key else place


class Problems:
    """A list that grows while files are read and is raised once, as one :class:`SpecError`."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, place: Place, what: str, remedy: str | None = None) -> None:
        """Notes one problem. Credentials inside addresses are hidden here too, whoever quotes a line."""
        text = redact(f"{place}: {what}" + (f"; {remedy}" if remedy else ""))
        self._found.setdefault(text)

    def include(self, error: SpecError) -> None:
        """Takes over what another reader raised."""
        self._found.update(dict.fromkeys(error.problems))

    def raise_if_any(self, *, hint: str | None = None) -> None:
        """Raises ``SpecError`` with all problems in the order they were found, or returns."""
        if self._found:
            problems = tuple(self._found)
            raise SpecError(problems[0], hint=hint, problems=problems)


class Refused(Exception):
    """One value that can't be accepted; the reader that knows the place turns it into a problem."""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
