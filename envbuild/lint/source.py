"""Rules about the files themselves: what a source says and a spec can't carry, a lock that can't be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from envbuild.lint.subject import Doubt, Subject
from envbuild.specs.problems import Place

_PLACED = re.compile(r"([^:\s][^:\n]{0,1000}):([0-9]{1,9}): (.+)", re.DOTALL)


def left_out(subject: Subject) -> Iterator[Doubt]:
    unrelated = frozenset(subject.spec.unrelated)
    lines = (line for line in subject.spec.left_out if line not in unrelated)
    return _placed(subject, lines, "not carried over")


def unrelated(subject: Subject) -> Iterator[Doubt]:
    return _placed(subject, subject.spec.unrelated, "no part of an environment")


def _placed(subject: Subject, lines: Iterable[str], what: str) -> Iterator[Doubt]:
    for line in lines:
        placed = _PLACED.fullmatch(line)
        where = Place(file=placed[1], line=int(placed[2])) if placed else subject.places.whole
        yield Doubt(message=f"{what}: {placed[3] if placed else line}", where=where)


def unreadable_lock(subject: Subject) -> Iterator[Doubt]:
    if subject.lock_problem is not None:
        yield Doubt(
            message=f"the lock can't be read, so nothing counts as pinned: {subject.lock_problem}",
            where=subject.places.whole,
            hint="restore it from version control, or make it anew with 'envbuild lock --upgrade'",
        )
