"""``pixi.lock``: the packages of one of its environments as they are, without a solve.

The environment is ``default``, or the one named behind ``#``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from envbuild.errors import SpecError, UsageError
from envbuild.platforms import Platform
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.importers.conda.explicit import explicit_conda, listed_channel
from envbuild.specs.importers.pip.locked import by_address, on_platforms
from envbuild.specs.importers.pip.requirement import BUILD_REMEDY
from envbuild.specs.match import explicit_package
from envbuild.specs.model import ExplicitPackage, Origin, PipRequirement, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.yaml import LOCK_LIMIT, Value, parse_values

FORMATS = ("4", "5", "6", "7")
_KINDS = ("conda", "pypi", "conda_source", "source")


class PixiLockImporter:
    """Reads ``pixi.lock``."""

    name = "pixi-lock"
    markers: tuple[str, ...] = ("pixi.lock",)
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "pixi.lock"

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        document = parse_values(file.read(LOCK_LIMIT), file.shown)
        if not isinstance(document, dict):
            raise SpecError(f"{file.shown}: is no lock of pixi: it is no mapping")
        version = document.get("version")
        if version not in FORMATS:
            raise SpecError(
                f"{file.shown}: has format version {version!s:.40}; read are {', '.join(FORMATS)}",
                hint="lock again with a pixi that writes one of these",
            )
        spec = _PixiLockReader(file, problems, file.fragment or "default").spec(document)
        problems.raise_if_any()
        return spec


@dataclass(slots=True)
class _PixiLockReader:
    file: SourceFile
    problems: Problems
    environment: str
    conda: list[ExplicitPackage] = field(default_factory=list)
    pip: dict[Platform, list[PipRequirement]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def spec(self, document: Mapping[str, Value]) -> Spec:
        environments = document.get("environments")
        environments = environments if isinstance(environments, dict) else {}
        chosen = environments.get(self.environment)
        if not isinstance(chosen, dict):
            known = ", ".join(sorted(environments)) or "none"
            raise SpecError(
                f"{self.file.shown}: has no environment {self.environment!r}",
                hint=f"its environments: {known}",
            )
        place = self.file.path.name
        self.left_out += [
            f"{place}: environments.{name}" for name in environments if name != self.environment
        ]
        records = self._records(document.get("packages"))
        packages = chosen.get("packages")
        packages = packages if isinstance(packages, dict) else {}
        subdirs = _subdirs(document.get("platforms"))
        for name, entries in packages.items():
            key = f"environments.{self.environment}.packages.{name}"
            subdir = subdirs.get(name, name)
            try:
                platform = Platform.parse(subdir)
            except UsageError:
                self.left_out.append(f"{place}: {key}")
                continue
            if name != subdir and subdir in packages:
                self.left_out.append(f"{place}: {key}: {subdir} itself is taken")
                continue
            if platform in self.pip:
                self._problem(
                    key, f"is a second list for {subdir}", f"lock for the platform {subdir!r} itself"
                )
                continue
            self.pip[platform] = []
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                try:
                    self._package(entry, records, platform, f"{key}[{index}]")
                except Refused as refused:
                    self._problem(f"{key}[{index}]", refused.what, refused.remedy)
        if not self.pip:
            self._problem(f"environments.{self.environment}", "is for no platform that there are images of")
        requirements = on_platforms(self.pip)
        for platform in self.pip:
            if self.conda and not any(package.platform == platform for package in self.conda):
                self._problem(f"environments.{self.environment}", f"names no conda package for {platform}")
        channels = tuple(self._channels(chosen.get("channels")))
        return Spec(
            name=fields.default_name(self.file.path),
            source=self.file.path,
            platforms=tuple(sorted(self.pip)),
            conda=explicit_conda(self.conda, channels) if self.conda else None,
            pip=PipSpec(requirements=requirements, complete=bool(requirements)),
            left_out=tuple(self.left_out),
        )

    def _records(self, packages: Value) -> dict[tuple[str, str], Mapping[str, Value]]:
        """What the lock says of each package, by its kind and address."""
        records: dict[tuple[str, str], Mapping[str, Value]] = {}
        for index, entry in enumerate(packages if isinstance(packages, list) else ()):
            kind, address = _reference(entry)
            if not isinstance(entry, dict) or address is None:
                self._problem(f"packages[{index}]", "names no conda and no pypi package")
                continue
            records.setdefault((kind, address), entry)
        return records

    def _package(
        self,
        entry: Value,
        records: Mapping[tuple[str, str], Mapping[str, Value]],
        platform: Platform,
        key: str,
    ) -> None:
        kind, address = _reference(entry)
        if address is None:
            raise Refused("names no conda and no pypi package", "lock again: the file is damaged")
        record = records.get((kind, address), {})
        stated = {
            name: value for name in ("sha256", "md5") if isinstance(value := record.get(name), str) and value
        }
        if kind != "pypi":
            if kind != "conda" or "://" not in address:
                raise Refused(f"{redact(address)!r} is a source tree: pixi would build it", BUILD_REMEDY)
            fragment = ",".join(f"{name}:{value}" for name, value in sorted(stated.items()))
            package = explicit_package(address + (f"#{fragment}" if fragment else ""), platform)
            if package.url.split("/")[-2] not in (platform.subdir, "noarch"):
                raise Refused(f"{package.url!r} is no package for {platform}")
            self.conda.append(package)
            return
        name = record.get("name")
        origin = Origin(file=self.file.path.name, where=key)
        hashes = [f"sha256:{stated['sha256']}"] if "sha256" in stated else []
        direct = address.removeprefix("direct+")
        self.pip[platform].append(
            by_address(name if isinstance(name, str) else None, direct, hashes, origin, self.file.path.parent)
        )

    def _channels(self, value: Value) -> Iterator[str]:
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            url = entry.get("url") if isinstance(entry, dict) else entry
            where = f"environments.{self.environment}.channels[{index}]"
            if not isinstance(url, str) or not url:
                self._problem(where, "has no url")
                continue
            try:
                yield listed_channel(url)
            except Refused as refused:
                self._problem(where, refused.what, refused.remedy)

    def _problem(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(Place(file=self.file.shown, key=key), what, remedy)


def _subdirs(platforms: Value) -> Mapping[str, str]:
    """Conda's name of each platform that version 7 lists under a name of its own."""
    entries = platforms if isinstance(platforms, list) else []
    named = [entry for entry in entries if isinstance(entry, dict)]
    return {
        name: subdir
        for entry in named
        if isinstance(name := entry.get("name"), str) and isinstance(subdir := entry.get("subdir"), str)
    }


def _reference(entry: Value) -> tuple[str, str | None]:
    """Kind and address of an entry: ``conda: URL`` since version 6, or ``kind`` and ``url`` before."""
    if not isinstance(entry, dict):
        return "", None
    for kind in _KINDS:
        address = entry.get(kind)
        if isinstance(address, str):
            return kind, address
    named, address = entry.get("kind"), entry.get("url") or entry.get("path")
    if isinstance(named, str) and named in _KINDS and isinstance(address, str):
        return named, address
    return "", None
