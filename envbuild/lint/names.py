"""The rule that a name holds what it says: ``sklearn-1.3``, ``torch2.2``, ``py310``, ``cuda12.1``.

A word of the name counts where it is a package's: one that is asked for or locked, or one of the well-known
short names below. Without a lock, only what is asked for can contradict a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from envbuild.lint.python import admits, asked
from envbuild.lint.subject import Doubt, Subject
from envbuild.lint.versions import conda_range, pip_range, release, series
from envbuild.lock.model import DebianBase

_WORDS = {
    "catboost": ("catboost",),
    "cu": (),
    "cuda": (),
    "lightgbm": ("lightgbm",),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "py": (),
    "pyspark": ("pyspark",),
    "python": (),
    "pytorch": ("torch", "pytorch", "pytorch-cpu", "pytorch-gpu"),
    "sklearn": ("scikit-learn",),
    "tensorflow": ("tensorflow", "tensorflow-base", "tensorflow-cpu", "tensorflow-gpu", "tf-nightly"),
    "torch": ("torch", "pytorch", "pytorch-cpu", "pytorch-gpu"),
    "xgboost": ("xgboost", "xgboost-cpu", "py-xgboost", "libxgboost"),
}
_CUDA = ("cuda-version", "pytorch-cuda", "cudatoolkit", "cuda-cudart", "nvidia-cuda-runtime")
_CUDA_WHEEL = re.compile(r"nvidia-cuda-runtime-cu[0-9]+")

_ATTACHED = re.compile(r"([a-z]+)v?([0-9]+(?:\.[0-9]+)*)")
_DOTTED = re.compile(r"v?([0-9]+(?:\.[0-9]+)+)")
_LONGEST = 4
"""Words that a package's name in an environment's name may have."""
_MOST_LINES = 10
"""Lines about one package that are compared with its name."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a name says: a package by a word of its own, and a version where it gives one."""

    word: str
    version: str | None
    attached: bool = False
    """``torch22`` may mean 2.2 or 22."""

    def __str__(self) -> str:
        return f"{self.word} {self.version}" if self.version else self.word

    @property
    def readings(self) -> tuple[str, ...]:
        version = self.version or ""
        if not self.attached or not version.isdigit():
            return (version,)
        return (version, *(f"{version[:cut]}.{version[cut:]}" for cut in range(1, len(version))))


def claims(name: str) -> list[Claim]:
    """Everything ``name`` could be saying, whether or not a package is called that."""
    tokens = [part for part in re.split(r"[-_]+", name.lower()) if part]
    said = []
    for index, token in enumerate(tokens):
        dotted = _DOTTED.fullmatch(token)
        attached = _ATTACHED.fullmatch(token)
        # A version ends what came before it.
        last = next((at for at in range(index - 1, -1, -1) if tokens[at][-1].isdigit()), -1)
        before = tokens[max(last + 1, index - _LONGEST) : index]
        if dotted is not None:
            words = ["-".join(before[start:]) for start in range(len(before))]
            said += [Claim(word, dotted[1]) for word in words]
        elif attached is not None:
            words = ["-".join([*before[start:], attached[1]]) for start in range(len(before) + 1)]
            said += [Claim(word, attached[2], True) for word in words]
        elif token.isalpha():
            said.append(Claim(token, None))
    return said


def dishonest(subject: Subject) -> Iterator[Doubt]:
    if not subject.installs:
        return
    said: set[str] = set()
    for claim in dict.fromkeys(claims(subject.spec.name)):
        what = _contradiction(subject, claim)
        if what is not None and claim.word not in said:
            said.add(claim.word)
            yield Doubt(
                message=f"the name says {claim}, and {what}",
                where=subject.places.key("name"),
                hint="name what is inside, or leave versions out of the name",
            )


def _contradiction(subject: Subject, claim: Claim) -> str | None:
    if claim.word in ("py", "python"):
        return _python(subject, claim)
    if claim.word in ("cu", "cuda"):
        return _cuda(subject, claim)
    packages = _WORDS.get(claim.word) or (canonicalize_name(claim.word),)
    locked = {f"{name} {version}": version for name in packages for version in subject.versions.get(name, ())}
    if locked:
        return _locked(claim, locked)
    if subject.locked and claim.word in _WORDS and _only_ours(subject):
        return "no package of that name is locked"
    return _asked(subject, claim, packages) if claim.version else None


def _locked(claim: Claim, locked: dict[str, str]) -> str | None:
    wrong = [shown for shown, version in sorted(locked.items()) if not _fits(claim, version)]
    return f"{wrong[0]} is locked" if wrong else None


def _asked(subject: Subject, claim: Claim, packages: tuple[str, ...]) -> str | None:
    """The first line that lets no version of the claim through."""
    claimed = [series(reading) for reading in claim.readings]
    for name in packages:
        for requirement in subject.pip_by_name.get(name, ())[:_MOST_LINES]:
            allowed = pip_range(requirement.specifier)
            if all(allowed.meet(one).empty for one in claimed):
                return f"{requirement.name}{requirement.specifier} is asked for"
        for dependency in subject.conda_by_name.get(name, ())[:_MOST_LINES]:
            allowed = conda_range(dependency.match.version)
            if all(allowed.meet(one).empty for one in claimed):
                return f"{name} {dependency.match.version} is asked for"
    return None


def _python(subject: Subject, claim: Claim) -> str | None:
    if claim.version is None:
        return None
    locked = {
        f"Python {pins.python.version}": pins.python.version
        for pins in subject.locked
        if pins.python is not None
    }
    if locked:
        return _locked(claim, locked)
    for text in asked(subject):
        if not any(admits(text, reading) for reading in claim.readings):
            return f"Python {text} is asked for"
    return None


def _cuda(subject: Subject, claim: Claim) -> str | None:
    if claim.version is None:
        return None
    releases = {
        f"{name} {version}": version
        for name, versions in subject.versions.items()
        if name in _CUDA or _CUDA_WHEEL.fullmatch(name)
        for version in versions
    }
    if releases:
        return _locked(claim, releases)
    if subject.locked and _only_ours(subject):
        return "nothing of CUDA is locked"
    return None


def _only_ours(subject: Subject) -> bool:
    """Whether nothing can be inside but what the lock names: an image may bring packages of its own."""
    return all(isinstance(pins.base, DebianBase) for pins in subject.locked)


def _fits(claim: Claim, version: str) -> bool:
    if claim.version is None:
        return True
    plain = re.match(r"[0-9]+(?:\.[0-9]+)*", version.partition("+")[0])
    exact = release(plain[0]) if plain else None
    if exact is None:
        return True
    written = ".".join(str(part) for part in exact) or "0"
    return any(not pip_range(f"=={written}").meet(series(reading)).empty for reading in claim.readings)
