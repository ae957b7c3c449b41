"""The git requirements of a spec, as resolvers are asked about them: by a local archive of the commit's tree.

So no resolver runs git, and all of them pin a git requirement as the sdist that it is. A commit that the
present lock has stays, whatever its branch has become, until an upgrade names it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envbuild.lock.base import PipTarget
from envbuild.lock.git.archive import write_project
from envbuild.lock.git.repository import GitArchive, GitRepositories
from envbuild.lock.model import GitCommit, PipPin
from envbuild.lock.pip.satisfied import marker_environment
from envbuild.lock.sdist import source_pin
from envbuild.specs.git import GIT_PREFIX, parse_git_address, subdirectory_of
from envbuild.specs.model import PipRequirement, PipSpec

_AT = f" @ {GIT_PREFIX}"


def names_git(spec: PipSpec) -> bool:
    """Whether any requirement or constraint of ``spec`` has a git address."""
    return any(_AT in line.text for line in (*spec.requirements, *spec.constraints))


@dataclass(frozen=True, kw_only=True, slots=True)
class GitRequirements:
    """The git requirements of one call of ``lock``. ``kept`` are pins whose commits stay; ``directory`` is
    an empty one for the archives, which resolvers read."""

    repositories: GitRepositories
    directory: Path
    kept: Sequence[PipPin] = ()
    _archives: dict[str, GitArchive] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def locate(self, spec: PipSpec, target: PipTarget) -> PipSpec:
        """``spec`` with the address of an archive in place of each git address that counts for ``target``."""
        return replace(
            spec,
            requirements=self._locate(spec.requirements, target),
            constraints=self._locate(spec.constraints, target),
        )

    def restore(self, pins: Iterable[PipPin]) -> tuple[PipPin, ...]:
        """What was resolved of a located spec, with the addresses that the spec writes."""
        by_place = {
            self._place(address, archive).as_uri(): (address, archive)
            for address, archive in self._archives.items()
        }
        return tuple(self._restore(pin, by_place) for pin in pins)

    def _locate(self, lines: Iterable[PipRequirement], target: PipTarget) -> tuple[PipRequirement, ...]:
        environment = {**marker_environment(target), "extra": ""}
        return tuple(self._line(line, environment) if _AT in line.text else line for line in lines)

    def _line(self, line: PipRequirement, environment: dict[str, str]) -> PipRequirement:
        requirement = Requirement(line.text)
        if requirement.url is None or (requirement.marker and not requirement.marker.evaluate(environment)):
            return line
        archive = self._archive(canonicalize_name(requirement.name), requirement.url)
        place = self._place(requirement.url, archive).as_uri()
        return replace(line, text=line.text.replace(requirement.url, place, 1))

    def _archive(self, name: str, url: str) -> GitArchive:
        with self._guard:
            archive = self._archives.get(url)
            if archive is None:
                archive = self._archives[url] = self._kept(name, url) or self._fetch(name, url)
                self._put(url, archive)
        return archive

    def _kept(self, name: str, url: str) -> GitArchive | None:
        """The archive that the present lock has of ``url``, brought again where the store lost it."""
        for pin in map(source_pin, self.kept):
            if pin.name != name or pin.url != url or pin.git is None:
                continue
            if self.repositories.store.verified_artifact(pin.sha256) is None:
                return self._fetch(name, url, pin.git.commit)
            return GitArchive(
                commit=pin.git.commit, tree=pin.git.tree, file=pin.file, size=pin.size, sha256=pin.sha256
            )
        return None

    def _fetch(self, name: str, url: str, commit: str | None = None) -> GitArchive:
        return self.repositories.fetch(name, parse_git_address(url)[0], commit)

    def _put(self, url: str, archive: GitArchive) -> None:
        """Makes the file that resolvers are told of."""
        stored, place = self.repositories.store.artifact(archive.sha256), self._place(url, archive)
        place.parent.mkdir(exist_ok=True)
        subdirectory = subdirectory_of(url)
        if subdirectory:
            write_project(stored, subdirectory, place, what=url)
        else:
            os.link(stored, place)

    def _place(self, url: str, archive: GitArchive) -> Path:
        return self.directory / sha256(url.encode()).hexdigest()[:12] / archive.file

    def _restore(self, pin: PipPin, by_place: dict[str, tuple[str, GitArchive]]) -> PipPin:
        match = by_place.get(pin.url) if pin.url else None
        if match is None:
            return pin
        address, archive = match
        return replace(
            pin,
            url=address,
            file=archive.file,
            size=archive.size,
            sha256=archive.sha256,
            git=GitCommit(commit=archive.commit, tree=archive.tree),
        )
