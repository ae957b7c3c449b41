"""conda-lock's unified lockfile, ``conda-lock.yml``: its packages as they are, without a solve.

The category ``main`` is taken; others where they are named behind ``#``. The file that envbuild writes itself
is one of these: the pip pins, which lie beside it in requirements files, come with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from envbuild.errors import SpecError, UsageError
from envbuild.platforms import Platform
from envbuild.specs import fields
from envbuild.specs.importers.conda.explicit import explicit_conda, listed_channel
from envbuild.specs.importers.pip.locked import by_address, on_platforms
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.match import explicit_package
from envbuild.specs.model import ExplicitPackage, Origin, PipRequirement, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.yaml import LOCK_LIMIT, Value, parse_values

FORMAT = "1"
_OURS = "# Written by envbuild"
_SUFFIXES = ("conda-lock.yml", "conda-lock.yaml")
_KEYS = re.compile(r"^(version|metadata|package|\s+content_hash):", re.MULTILINE)
"""Keys that only conda-lock's files have together, as it writes them."""


class CondaLockImporter:
    """Reads ``conda-lock.yml``, ``NAME.conda-lock.yml``, and files of other names that hold such a lock."""

    name = "conda-lock"
    markers: tuple[str, ...] = ("conda-lock.yml", "conda-lock.yaml")
    selective = True

    def recognises(self, file: SourceFile) -> bool:
        if file.path.name.lower().endswith(_SUFFIXES):
            return True
        if file.path.suffix.lower() not in (".yml", ".yaml", ".lock"):
            return False
        try:
            return len({match.strip() for match in _KEYS.findall(file.read(LOCK_LIMIT))}) == 4
        except SpecError:
            return False  # Whoever reads such files says what is wrong with it.

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        text = file.read(LOCK_LIMIT)
        document = parse_values(text, file.shown)
        if not isinstance(document, dict) or not isinstance(document.get("package"), list):
            raise SpecError(f"{file.shown}: is no lock of conda-lock: it has no list 'package'")
        version = document.get("version")
        if version != FORMAT:
            raise SpecError(
                f"{file.shown}: has format version {version!s:.40}; version {FORMAT} is read",
                hint="lock again with conda-lock 1 or newer",
            )
        reader = _CondaLockReader(file, problems, tuple(part for part in file.fragment.split(",") if part))
        spec = reader.spec(document, ours=text.startswith(_OURS))
        problems.raise_if_any()
        return spec


@dataclass(slots=True)
class _CondaLockReader:
    file: SourceFile
    problems: Problems
    asked: tuple[str, ...]
    conda: list[ExplicitPackage] = field(default_factory=list)
    pip: dict[Platform, list[PipRequirement]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    """What isn't taken, by the category or platform it is of."""

    def spec(self, document: Mapping[str, Value], *, ours: bool) -> Spec:
        metadata = document.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        named = metadata.get("platforms")
        known = [self._platform(text) for text in named] if isinstance(named, list) else []
        platforms = tuple(dict.fromkeys(platform for platform in known if platform is not None))
        if not platforms:
            self._problem("metadata.platforms", "names no platform that there are images of")
        for platform in platforms:
            self.pip[platform] = []
        packages = document["package"]
        assert isinstance(packages, list)
        categories = {"main", *self.asked}
        present: set[str] = set()
        for index, entry in enumerate(packages):
            key = f"package[{index}]"
            if not isinstance(entry, dict):
                self._problem(key, "must be a mapping")
                continue
            category = str(entry.get("category") or "main")
            present.add(category)
            if category not in categories:
                what = f"packages of the category {category:.80}"
                self.others[what] = self.others.get(what, 0) + 1
                continue
            try:
                self._package(entry, key)
            except Refused as refused:
                self._problem(key, refused.what, refused.remedy)
        for asked in self.asked:
            if asked not in present:
                self._problem(f"#{asked}", f"no package is of the category {asked!r}")
        requirements = on_platforms(self.pip)
        if ours:
            requirements = (*requirements, *self._beside(platforms))
        explicit = tuple(self.conda)
        channels = self._channels(metadata.get("channels"))
        for platform in platforms:
            if explicit and not any(package.platform == platform for package in explicit):
                self._problem("package", f"names no conda package for {platform}")
        place = self.file.path.name
        return Spec(
            name=fields.default_name(self.file.path),
            source=self.file.path,
            platforms=tuple(sorted(platforms)),
            conda=explicit_conda(explicit, channels) if explicit else None,
            pip=PipSpec(requirements=requirements, complete=bool(requirements)),
            left_out=tuple(f"{place}: {what} ({count})" for what, count in sorted(self.others.items())),
        )

    def _package(self, entry: Mapping[str, Value], key: str) -> None:
        platform = self._platform(entry.get("platform"))
        if platform is None:
            return
        if platform not in self.pip:
            raise Refused(f"is for {platform}, which metadata.platforms doesn't name")
        hashes = entry.get("hash")
        stated = {
            kind: value
            for kind, value in (hashes.items() if isinstance(hashes, dict) else ())
            if kind in ("sha256", "md5") and isinstance(value, str) and value
        }
        name, url = _text(entry, "name"), _text(entry, "url")
        match entry.get("manager"):
            case "conda":
                fragment = ",".join(f"{kind}:{value}" for kind, value in sorted(stated.items()))
                package = explicit_package(url + (f"#{fragment}" if fragment else ""), platform)
                if package.url.split("/")[-2] not in (platform.subdir, "noarch"):
                    raise Refused(f"{package.url!r} is no package for {platform}")
                self.conda.append(package)
            case "pip":
                origin = Origin(file=self.file.path.name, where=key)
                sha256 = [f"sha256:{stated['sha256']}"] if "sha256" in stated else []
                where = self.file.path.parent
                self.pip[platform].append(by_address(name, url, sha256, origin, where))
            case other:
                raise Refused(f"the manager {other!s:.80} isn't known", "known: conda, pip")

    def _platform(self, value: Value) -> Platform | None:
        """None for a platform that no image is for; it is noted."""
        try:
            return Platform.parse(str(value))
        except UsageError:
            what = f"packages for {value!s:.80}"
            self.others[what] = self.others.get(what, -1) + 1
            return None

    def _channels(self, value: Value) -> tuple[str, ...]:
        """As written; ``url`` is a name or an address."""
        channels = []
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            url = entry.get("url") if isinstance(entry, dict) else entry
            if not isinstance(url, str) or not url:
                self._problem(f"metadata.channels[{index}]", "has no url")
                continue
            try:
                channels.append(listed_channel(url))
            except Refused as refused:
                self._problem(f"metadata.channels[{index}]", refused.what, refused.remedy)
        return tuple(channels)

    def _beside(self, platforms: tuple[Platform, ...]) -> tuple[PipRequirement, ...]:
        """The pip pins of each platform, as envbuild's own lock has them beside this file."""
        by_platform: dict[Platform, tuple[PipRequirement, ...]] = {}
        for platform in platforms:
            file = self.file.beside(f"requirements.{platform.subdir}.txt")
            by_platform[platform] = ()
            if file.is_there():
                reader = RequirementsReader(self.file.path.parent, self.problems)
                reader.read_file(file)
                by_platform[platform] = reader.result().requirements
        return on_platforms(by_platform)

    def _problem(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(Place(file=self.file.shown, key=key), what, remedy)


def _text(entry: Mapping[str, Value], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(f"{key} must be text", "lock again: the file is damaged")
    return value
