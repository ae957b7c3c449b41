"""Conda's explicit lists: ``@EXPLICIT`` and one address a line, as ``conda list --explicit`` and conda-lock
write them.

Exactly these packages are taken. conda-lock writes the distributions of pip as comments (``# pip name @ …``);
they count. The platform is that of ``# platform:``, else of the addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from envbuild.errors import SpecError, UsageError
from envbuild.platforms import LINUX_AMD64, PLATFORMS, Platform
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.fields import refuse_credential
from envbuild.specs.importers.pip.locked import by_address
from envbuild.specs.match import explicit_package
from envbuild.specs.model import CondaSpec, ExplicitPackage, Origin, PipRequirement, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import REQUIREMENTS_LIMIT, SourceFile

_MARK = re.compile(r"^@EXPLICIT\s*$", re.MULTILINE)
_PLATFORM = re.compile(r"#\s*platform:\s*(\S+)")
_PIP = re.compile(r"#\s*pip\s+(?P<name>\S+)\s+@\s+(?P<address>\S+)(?:\s+--hash=(?P<hash>\S+))?\s*")
_CHANNEL = re.compile(r"(?:https?|file|oci|s3)://\S+|[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*/?")
_NO_HASH = "write the list with: conda list --explicit --sha256"


class ExplicitListImporter:
    """Reads ``*.txt`` and ``*.lock`` files with an ``@EXPLICIT`` line."""

    name = "conda-explicit"
    markers: tuple[str, ...] = ()

    def recognises(self, file: SourceFile) -> bool:
        if file.path.suffix.lower() not in (".txt", ".lock") or file.path.name == "uv.lock":
            return False
        try:
            return _MARK.search(file.read(REQUIREMENTS_LIMIT)) is not None
        except SpecError:
            return False  # Whoever reads such files says what is wrong with it.

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        reader = _ExplicitListReader(file, problems)
        for number, line in enumerate(file.read(REQUIREMENTS_LIMIT).splitlines(), 1):
            reader.line(number, line.strip())
        spec = reader.spec()
        problems.raise_if_any()
        return spec


@dataclass(slots=True)
class _ExplicitListReader:
    file: SourceFile
    problems: Problems
    packages: list[tuple[int, ExplicitPackage]] = field(default_factory=list)
    pip: list[PipRequirement] = field(default_factory=list)
    platform: Platform | None = None
    refused: bool = False

    def line(self, number: int, line: str) -> None:
        try:
            if line.startswith("#"):
                self._comment(number, line)
            elif line and line != "@EXPLICIT":
                self._package(number, line)
        except Refused as refused:
            self.problems.add(Place(file=self.file.shown, line=number), refused.what, refused.remedy)

    def _comment(self, number: int, line: str) -> None:
        platform = _PLATFORM.fullmatch(line)
        if platform is not None:
            self.platform = self._known(platform[1])
        pip = _PIP.fullmatch(line)
        if pip is not None:
            origin = Origin(file=self.file.path.name, where=str(number))
            hashes = [pip["hash"]] if pip["hash"] else []
            self.pip.append(by_address(pip["name"], pip["address"], hashes, origin, self.file.path.parent))

    def _known(self, subdir: str) -> Platform | None:
        try:
            return Platform.parse(subdir)
        except UsageError as error:
            if self.refused:
                return None
            self.refused = True
            known = ", ".join(platform.subdir for platform in PLATFORMS)
            raise Refused(
                f"the list is for {subdir!r}, of which there are no images", f"known: {known}"
            ) from error

    def _package(self, number: int, line: str) -> None:
        url, _, fragment = line.partition("#")
        if not fragment:
            raise Refused(f"{redact(url)!r} has no hash", _NO_HASH)
        package = explicit_package(line, self.platform or LINUX_AMD64)
        subdir = package.url.rsplit("/", 2)[-2]
        if subdir != "noarch":
            platform = self._known(subdir)
            if platform is not None and self.platform not in (None, platform):
                raise Refused(f"{redact(url)!r} is no package for {self.platform}")
            self.platform = self.platform or platform
        self.packages.append((number, package))

    def spec(self) -> Spec:
        platform = self.platform or LINUX_AMD64
        packages: dict[str, ExplicitPackage] = {}
        for number, package in self.packages:
            mine = ExplicitPackage(platform=platform, url=package.url, sha256=package.sha256, md5=package.md5)
            if packages.setdefault(mine.url, mine) != mine:
                place = Place(file=self.file.shown, line=number)
                self.problems.add(place, f"{package.url!r} is there twice, with two hashes")
        if not packages and not self.problems:
            self.problems.add(Place(file=self.file.shown), "the list has no package")
        return Spec(
            name=fields.default_name(self.file.path),
            source=self.file.path,
            platforms=(platform,),
            conda=explicit_conda(packages.values()),
            pip=PipSpec(requirements=tuple(self.pip), complete=bool(self.pip)),
        )


def listed_channel(text: str) -> str:
    """A channel's name or address as a lock gives it, without a slash at its end. Raises :class:`Refused`."""
    refuse_credential(text)
    if not _CHANNEL.fullmatch(text) or not text.isprintable():
        raise Refused(f"{redact(text)!r} is no channel")
    return text.rstrip("/")


def explicit_conda(packages: Iterable[ExplicitPackage], channels: Iterable[str] = ()) -> CondaSpec:
    """The packages as they are, sorted. ``channels`` lead; those that only an address names follow."""
    explicit = tuple(sorted(set(packages)))
    named = tuple(dict.fromkeys(channels))
    return CondaSpec(
        channels=named or tuple(dict.fromkeys(package.url.rsplit("/", 2)[0] for package in explicit)),
        dependencies=(),
        explicit=explicit,
    )
