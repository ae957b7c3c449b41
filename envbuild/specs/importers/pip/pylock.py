"""``pylock.toml`` (PEP 751): its packages as they are, without a resolution.

The lock's default groups count; extras and more groups are named behind ``#``
(``pylock.toml#plot,group:test``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from envbuild.errors import SpecError
from envbuild.lazy import lazy
from envbuild.specs import fields
from envbuild.specs.git import git_address
from envbuild.specs.importers.pip.locked import (
    all_there_is,
    direct,
    file_name,
    image_platforms,
    index_address,
    is_public,
    links_option,
    pinned,
)
from envbuild.specs.importers.pip.marker_range import Cases
from envbuild.specs.importers.pip.requirement import BUILD_REMEDY
from envbuild.specs.model import Origin, PipRequirement, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import parse_toml
from envbuild.specs.text.yaml import LOCK_LIMIT

if TYPE_CHECKING:
    from packaging import pylock as packaging_pylock
    from packaging import utils as packaging_utils
    from packaging.pylock import Package, PackageSdist, PackageVcs, PackageWheel, Pylock
else:
    packaging_pylock = lazy("packaging.pylock")
    packaging_utils = lazy("packaging.utils")


class PylockImporter:
    """Reads ``pylock.toml`` and ``pylock.NAME.toml``."""

    name = "pylock"
    markers: tuple[str, ...] = ("pylock.toml",)
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        parts = file.path.name.split(".")
        return parts[0] == "pylock" and parts[-1] == "toml" and len(parts) in (2, 3)

    def load(self, file: SourceFile) -> Spec:
        data = parse_toml(file.read(LOCK_LIMIT), file.shown)
        try:
            lock = packaging_pylock.Pylock.from_dict(data)
        except packaging_pylock.PylockUnsupportedVersionError as error:
            raise SpecError(f"{file.shown}: {error}", hint="write it in version 1.0 of the format") from error
        except (packaging_pylock.PylockValidationError, ValueError, TypeError, RecursionError) as error:
            raise SpecError(f"{file.shown}: is no lock (PEP 751): {error}") from error
        problems = Problems()
        spec = _PylockReader(file, problems, data).spec(lock)
        problems.raise_if_any()
        return spec


@dataclass(slots=True)
class _PylockReader:
    file: SourceFile
    problems: Problems
    data: dict[str, Any]
    options: dict[str, None] = field(default_factory=dict)
    registries: dict[str, bool] = field(default_factory=dict)
    """Whether all files of an index are public."""
    projects: list[str] = field(default_factory=list)

    def spec(self, lock: Pylock) -> Spec:
        extras, groups = selected(self.file.fragment)
        self._known(extras, lock.extras or (), "extra")
        self._known(groups, lock.dependency_groups or (), "group")
        chosen = {canonicalize_name(group) for group in lock.default_groups or ()} | groups
        requires = str(lock.requires_python) if lock.requires_python is not None else None
        try:
            cases = Cases(
                requires,
                [text for package in lock.packages for text in _conditions(package)],
                supported=[str(environment) for environment in lock.environments or ()],
                extras=extras,
                groups=chosen,
            )
        except Refused as refused:
            self._problem("", refused.what, refused.remedy)
            self.problems.raise_if_any()
            raise
        requirements: list[PipRequirement] = []
        for index, package in enumerate(lock.packages):
            key = f"packages[{index}]: {package.name}"
            try:
                conditions = tuple(_conditions(package))
                holding = [
                    case
                    for case in cases.all
                    if all(cases.holds(condition, case) for condition in conditions)
                ]
                if holding:
                    requirements += self._requirements(package, cases.marker(holding), key)
            except Refused as refused:
                self._problem(key, refused.what, refused.remedy)
        return Spec(
            name=_name(self.file),
            source=self.file.path,
            platforms=image_platforms(cases.platforms),
            python=python_wanted(requires),
            pip=all_there_is(requirements, self.registries, self.options),
            left_out=tuple(self._left_out(lock, extras, chosen)),
        )

    def _requirements(self, package: Package, marker: str, key: str) -> Iterator[PipRequirement]:
        origin = Origin(file=self.file.path.name, where=key)
        if package.vcs is not None:
            yield self._repository(package, package.vcs, origin, marker)
            return
        if package.directory is not None:
            if (
                PurePosixPath(package.directory.path) == PurePosixPath(".")
                and not package.directory.subdirectory
            ):
                self.projects.append(f"{self.file.path.name}: {package.name}: the project itself")
                return
            raise Refused("is a directory: it would have to be built", BUILD_REMEDY)
        where = self.file.path.parent
        if package.archive is not None:
            archive = package.archive
            if archive.subdirectory:
                raise Refused("lies in a part of an archive: it would have to be built", BUILD_REMEDY)
            address = archive.url or str(archive.path)
            name = str(package.name)
            yield direct(name, address, _sha256(archive.hashes), origin, where, marker=marker)
            return
        files: list[PackageWheel | PackageSdist] = [*(package.wheels or ())]
        if package.sdist is not None:
            files.append(package.sdist)
        if not files:
            raise Refused("has neither a wheel nor a source archive")
        for file in files:
            if file.url is None and file.path is not None:
                self._links(file.path)
        version = str(package.version) if package.version is not None else _version(_file(files[0]))
        if package.index is not None:
            index = index_address(package.index)
            public = all(is_public(file.url or "") for file in files)
            self.registries[index] = self.registries.get(index, True) and public
        hashes = [sha256 for file in files for sha256 in _sha256(file.hashes)]
        yield pinned(str(package.name), version, hashes, origin, marker=marker)

    def _repository(self, package: Package, vcs: PackageVcs, origin: Origin, marker: str) -> PipRequirement:
        if vcs.type != "git" or vcs.url is None:
            raise Refused("is a repository that can't be fetched from elsewhere", BUILD_REMEDY)
        address = git_address(vcs.url, revision=vcs.commit_id, subdirectory=vcs.subdirectory)
        return direct(str(package.name), address, (), origin, self.file.path.parent, marker=marker)

    def _links(self, path: str) -> None:
        """Files that lie beside the lock are found through their directory."""
        self.options.setdefault(links_option(str(PurePosixPath(path).parent), self.file.path.parent))

    def _known(self, asked: Iterable[str], known: Collection[str], what: str) -> None:
        names = {str(canonicalize_name(name)) for name in known}
        for name in sorted(set(asked) - names):
            shown = ", ".join(sorted(names)) or "none"
            self._problem(f"#{name}", f"the lock has no {what} {name!r}", f"it has: {shown}")

    def _left_out(self, lock: Pylock, extras: Collection[str], groups: Collection[str]) -> Iterator[str]:
        yield from self.projects
        place = self.file.path.name
        for extra in lock.extras or ():
            if canonicalize_name(extra) not in extras:
                yield f"{place}: extras: {extra}"
        for group in lock.dependency_groups or ():
            if canonicalize_name(group) not in groups:
                yield f"{place}: dependency-groups: {group}"

    def _problem(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(Place(file=self.file.shown, key=key), what, remedy)


def selected(fragment: str) -> tuple[frozenset[str], frozenset[str]]:
    """The extras and the groups that are named behind ``#``: ``plot,group:test``."""
    words = [part.strip() for part in fragment.split(",") if part.strip()]
    extras = {
        canonicalize_name(word.removeprefix("extra:")) for word in words if not word.startswith("group:")
    }
    groups = {canonicalize_name(word.removeprefix("group:")) for word in words if word.startswith("group:")}
    return frozenset(extras), frozenset(groups)


def python_wanted(requires: str | None) -> str | None:
    """``requires-python`` as a spec asks for a python; None where it asks for nothing a spec can say."""
    if not requires:
        return None
    try:
        return fields.python(requires.replace(" ", ""))
    except Refused:
        return None


def _conditions(package: Package) -> Iterator[str]:
    """The marker of a package, if it has one."""
    if package.marker is not None:
        yield str(package.marker)


def _sha256(hashes: Any) -> list[str]:
    """``sha256:<hex>``; raises :class:`Refused` where only others are stated."""
    sha256 = hashes.get("sha256")
    if sha256 is None:
        raise Refused(
            f"has no SHA-256, only {', '.join(sorted(hashes))}", "lock again with a SHA-256 of each file"
        )
    return [f"sha256:{sha256}"]


def _file(file: Any) -> str:
    """The file name of a wheel or sdist entry."""
    return str(file.name or file_name(file.url or str(file.path)))


def _version(file: str) -> str:
    try:
        return str(
            packaging_utils.parse_wheel_filename(file)[1]
            if file.endswith(".whl")
            else packaging_utils.parse_sdist_filename(file)[1]
        )
    except (packaging_utils.InvalidWheelFilename, packaging_utils.InvalidSdistFilename) as error:
        raise Refused("has no version, and its file doesn't say it") from error


def _name(file: SourceFile) -> str:
    """``pylock.NAME.toml`` says it itself."""
    parts = file.path.name.split(".")
    return fields.fit_name(parts[1]) if len(parts) == 3 else fields.fit_name(file.path.parent.name)
