"""Which one file of a distribution is pinned: the same for every engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    BuildTag,
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)

from envbuild.lock.base import PipTarget
from envbuild.lock.pip.command import glibc_minor

_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One file an index offers for a version."""

    file: str
    sha256: str
    size: int | None
    url: str | None = None


class FileChoice:
    """Chooses files for one target: the wheel whose tag the interpreter prefers most, else the sdist."""

    def __init__(self, target: PipTarget) -> None:
        self._rank = {tag: rank for rank, tag in enumerate(target_tags(target))}

    def choose(
        self, candidates: Iterable[Candidate], *, keep: str | None = None, hashes: Collection[str] = ()
    ) -> Candidate | None:
        """The file to pin; None where nothing fits.

        ``keep``: the SHA-256 of the file pinned before, which stays as long as it is offered.
        ``hashes``: ``sha256:<hex>`` that the spec allows; empty: all."""
        fitting = [
            (key, candidate)
            for candidate in candidates
            if (not hashes or f"sha256:{candidate.sha256}" in hashes)
            and (key := self._key(candidate.file)) is not None
        ]
        kept = [file for _, file in fitting if file.sha256 == keep]
        if kept:
            return min(kept, key=lambda file: file.file)
        return min(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def _key(self, file: str) -> tuple[int, int, _BuildTag, str] | None:
        if not file.endswith(".whl"):
            try:
                parse_sdist_filename(file)
            except InvalidSdistFilename:
                return None
            return (1, 0, _BuildTag(()), file)
        try:
            _, _, build, tags = parse_wheel_filename(file)
        except InvalidWheelFilename:
            return None
        ranks = [self._rank[tag] for tag in tags if tag in self._rank]
        return (0, min(ranks), _BuildTag(build), file) if ranks else None


@dataclass(frozen=True, slots=True)
class _BuildTag:
    """A wheel's build tag; the higher one is better."""

    tag: BuildTag

    def __lt__(self, other: _BuildTag) -> bool:
        return self.tag > other.tag


def target_tags(target: PipTarget) -> Iterator[Tag]:
    """The tags of wheels that ``target`` can load, best first. Plain ``linux_*`` tags aren't among them:
    they promise nothing about the glibc they need."""
    major, minor = (int(part) for part in target.python.split(".")[:2])
    interpreter = f"cp{major}{minor}"
    platforms = list(_platforms(target))
    yield from cpython_tags((major, minor), abis=[interpreter], platforms=platforms)
    yield from compatible_tags((major, minor), interpreter=interpreter, platforms=platforms)


def _platforms(target: PipTarget) -> Iterator[str]:
    machine = target.platform.machine
    oldest = 5 if machine == "x86_64" else 17
    for glibc in range(glibc_minor(target.glibc), oldest - 1, -1):
        yield f"manylinux_2_{glibc}_{machine}"
        if glibc in _ALIASES:
            yield f"{_ALIASES[glibc]}_{machine}"
