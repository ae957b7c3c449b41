"""What a check of a spec finds, as frozen values, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from envbuild.lint.subject import Subject
from envbuild.specs.problems import Place


class Severity(str, Enum):
    """How sure it is that something is wrong, and how much it costs."""

    ERROR = "error"
    """Surely wrong: it can't be resolved, or it gives something away."""
    WARNING = "warning"
    """Works today, and is likely to hurt."""
    INFO = "info"
    """Good to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """What one rule has to say. No value of a credential is ever in it."""

    message: str
    where: Place
    """Its file is relative to the spec's directory."""
    hint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A doubt with the code and the severity of the rule that had it."""

    code: str
    severity: Severity
    message: str
    where: Place
    hint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One check under a code that never gets another meaning (``docs/lint.md`` has a section on each)."""

    code: str
    severity: Severity
    title: str
    check: Callable[[Subject], Iterable[Doubt]]
