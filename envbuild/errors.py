"""The one root of all errors that envbuild raises on purpose.

Every stage has its own class, because every stage has its own exit status (docs/design.md §8). A message says
what is wrong and where; the hint says what to do next. Neither ever holds a credential.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what led to it, the innermost last, each once: of exceptions that were raised again, by
    libraries in threads of theirs, causes and contexts can make a circle."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def nearest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """At most ``most`` of the ``known`` words that are like an unknown one, the nearest first."""
    # Every start imports this module, and most meet no unknown word.
    from difflib import get_close_matches

    return get_close_matches(word, list(known), most, cutoff)


def suggestion(
    word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6, quoted: bool = False
) -> str:
    """The hint about an unknown word: the nearest of those that are known; ``""`` if none is near."""
    near = nearest(word, known, most=most, cutoff=cutoff)
    return f"did you mean {' or '.join(map(repr, near) if quoted else near)}?" if near else ""


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """:func:`suggestion` as the end of a message."""
    hint = suggestion(word, known, most=most)
    return f"; {hint}" if hint else ""


class EnvbuildError(Exception):
    """Something envbuild can explain: a message, and a hint where there is a remedy."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(EnvbuildError):
    """The command line or a setting does not fit."""

    exit_code = 2


class SpecError(EnvbuildError):
    """A spec can't be read. Holds every problem of the file, not just the first."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems) or (message,)
        super().__init__("\n".join(self.problems) if problems else message, hint=hint)


class ResolveError(EnvbuildError):
    """No set of pins satisfies the spec, or a source of packages did not answer."""

    exit_code = 4


class LockError(EnvbuildError):
    """A lock is missing, damaged, newer than this envbuild, or does not answer its spec."""

    exit_code = 5


class StaleLockError(LockError):
    """The lock is sound but no longer answers the spec (``lock --check``)."""

    exit_code = 1


class FetchError(EnvbuildError):
    """A file can't be had: no network, gone, truncated, or not the bytes that were pinned.

    Stages turn it into their own error; on its own it ends a build."""

    exit_code = 6


class BuildError(EnvbuildError):
    """An image can't be composed from the plan."""

    exit_code = 6


class NotReproducedError(BuildError):
    """An image isn't the one that its lock gives."""

    exit_code = 1


class PublishError(EnvbuildError):
    """An image can't be brought where it was asked to go."""

    exit_code = 7


class WorkspaceError(EnvbuildError):
    """The workspace's records can't be read or written."""

    exit_code = 8


class RunError(EnvbuildError):
    """A command can't be started in the image."""

    exit_code = 9
