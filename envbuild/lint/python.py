"""Rules about the version of Python: stated, alive, and of one mind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from envbuild.lint.subject import Doubt, Subject
from envbuild.lint.versions import ANY, conda_range, series
from envbuild.specs.model import DebianBaseSpec, ImageBaseSpec, Runtime
from envbuild.specs.problems import Place

END_OF_LIFE = {
    "2.7": date(2020, 1, 1),
    "3.4": date(2019, 3, 18),
    "3.5": date(2020, 9, 30),
    "3.6": date(2021, 12, 23),
    "3.7": date(2023, 6, 27),
    "3.8": date(2024, 10, 7),
    "3.9": date(2025, 10, 31),
    "3.10": date(2026, 10, 31),
    "3.11": date(2027, 10, 31),
    "3.12": date(2028, 10, 31),
    "3.13": date(2029, 10, 31),
    "3.14": date(2030, 10, 31),
    "3.15": date(2031, 10, 31),
}
"""The last day of security fixes of each series, after https://devguide.python.org/versions/ as of November
2025. Where that gives a month only, its last day."""

SOON = timedelta(days=183)
"""Six months: what a move to another Python takes."""

_MOST_CONSTRAINTS = 100
_NEWER = "ask for a newer Python"
# What a spec without a base and a Python stands on, and the suites' own Pythons (lock.debian.selection).
_SUITES = {"bookworm": "3.11", "trixie": "3.13"}


@dataclass(frozen=True, slots=True)
class _Constraint:
    text: str
    where: Place


def unstated(subject: Subject) -> Iterator[Doubt]:
    spec = subject.spec
    if not subject.installs or any(pins.python is not None for pins in subject.locked):
        return
    constraints = _constraints(subject)
    if any(constraint.text != "*" for constraint in constraints):
        return
    if spec.conda is None:
        plain = spec.runtime is Runtime.DOCKER and not spec.pip.requirements
        suite = isinstance(spec.base, DebianBaseSpec) and spec.base.suite is not None
        if plain or suite or isinstance(spec.base, ImageBaseSpec):
            return
    elif spec.conda.explicit:
        return
    what = "the newest that fits" if spec.conda is not None else "the base's own"
    yield Doubt(
        message=f"no version of Python is asked for: a build takes {what}",
        where=constraints[0].where if constraints else subject.places.whole,
        hint="write e.g. python: '3.13', or python=3.13 among conda's dependencies",
    )


def dead(subject: Subject) -> Iterator[Doubt]:
    for version, where in _pythons(subject):
        end = END_OF_LIFE[version]
        if end < subject.today:
            yield Doubt(
                message=f"Python {version} has had no security fixes since {end}", where=where, hint=_NEWER
            )


def dying(subject: Subject) -> Iterator[Doubt]:
    for version, where in _pythons(subject):
        end = END_OF_LIFE[version]
        if subject.today <= end <= subject.today + SOON:
            yield Doubt(message=f"Python {version} gets no fixes after {end}", where=where, hint=_NEWER)


def disagreement(subject: Subject) -> Iterator[Doubt]:
    whole = ANY
    shown: list[str] = []
    for constraint in _constraints(subject):
        whole = whole.meet(conda_range(constraint.text))
        shown.append(constraint.text)
        if whole.empty:
            others = ", ".join(shown[:-1][-3:])
            what = f"no Python is {constraint.text}" + (f" as well as {others}" if others else "")
            yield Doubt(message=what, where=constraint.where, hint="state it once")
            return


def admits(constraint: str, version: str) -> bool:
    """Whether ``constraint`` lets a release of a series through; also where that isn't sure."""
    return any(not conda_range(part).meet(series(version)).empty for part in constraint.split("|"))


def asked(subject: Subject) -> list[str]:
    """What is said about Python, as written; ``*`` where it is only named."""
    return [constraint.text for constraint in _constraints(subject)]


def _constraints(subject: Subject) -> list[_Constraint]:
    constraints = []
    if subject.spec.python is not None:
        constraints.append(_Constraint(subject.spec.python, subject.places.key("python")))
    for dependency in subject.conda_by_name.get("python", ())[:_MOST_CONSTRAINTS]:
        where = subject.places.dependency(dependency.text)
        constraints.append(_Constraint(dependency.match.version or "*", where))
    return constraints


def _pythons(subject: Subject) -> Iterator[tuple[str, Place]]:
    """The series that is locked, or else the newest that may be taken; only known ones."""
    if not subject.installs:
        return
    constraints = _constraints(subject)
    where = constraints[0].where if constraints else subject.places.whole
    locked = {pins.python.short for pins in subject.locked if pins.python is not None}
    if not locked and any(constraint.text != "*" for constraint in constraints):
        fit = [v for v in END_OF_LIFE if all(admits(constraint.text, v) for constraint in constraints)]
        locked = set(fit[-1:])
    base = subject.spec.base
    if not locked and not constraints and subject.spec.conda is None and isinstance(base, DebianBaseSpec):
        locked = {_SUITES.get(base.suite or "", "")}
    for version in sorted(locked & set(END_OF_LIFE)):
        yield version, where
