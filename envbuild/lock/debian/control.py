"""Debian control data: paragraphs of fields, and the relations in dependency fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from envbuild.lock.debian.version import DebianVersion

_RELATION = re.compile(
    r"""\s*(?P<name>[a-zA-Z0-9][a-zA-Z0-9+.\-]*)
        (?::(?P<arch>[a-z0-9\-]+))?
        (?:\s*\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s)]+)\s*\))?
        (?:\s*\[(?P<archs>[^\]]*)\])?
        (?:\s*<[^>]*>)*\s*$""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DebianRelation:
    """One alternative of a dependency: a package's name, and the version it must have."""

    name: str
    operator: str = ""
    version: str = ""
    architecture: str = ""
    """``any``, ``native``, a named architecture, or empty."""

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name

    def allows(self, version: str) -> bool:
        return not self.operator or DebianVersion(version).satisfies(
            self.operator, DebianVersion(self.version)
        )


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file (deb822), as fields. Continuation lines keep their newline.

    Field names keep the case they are written in first; lookups use Debian's usual spelling. Lines that
    are no field raise ``ValueError``."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if not name:
                raise ValueError(f"a continuation line without a field: {line.strip()[:60]!r}")
            fields[name] += "\n" + line.strip()
        else:
            name, colon, value = line.partition(":")
            if not colon or not name or " " in name:
                raise ValueError(f"not a field: {line[:60]!r}")
            fields[name] = value.strip()
    if fields:
        yield fields


def relations(text: str) -> tuple[tuple[DebianRelation, ...], ...]:
    """A dependency field: all of the outer, any of the inner. Raises ``ValueError`` for anything else."""
    groups = []
    for part in text.replace("\n", " ").split(","):
        if not part.strip():
            continue
        groups.append(tuple(_relation(alternative) for alternative in part.split("|")))
    return tuple(groups)


def _relation(text: str) -> DebianRelation:
    match = _RELATION.match(text)
    if match is None:
        raise ValueError(f"not a dependency: {text.strip()[:80]!r}")
    return DebianRelation(
        name=match["name"],
        operator=match["operator"] or "",
        version=match["version"] or "",
        architecture=match["arch"] or "",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DebianPackage:
    """One package of an index, as far as resolving needs it."""

    name: str
    version: str
    architecture: str
    source: str
    archive: str
    """Which archive root ``file`` is below: ``debian`` or ``debian-security``."""
    file: str
    size: int
    sha256: str
    depends: tuple[tuple[DebianRelation, ...], ...] = ()
    """Pre-Depends, then Depends."""
    conflicts: tuple[tuple[DebianRelation, ...], ...] = ()
    """Conflicts, then Breaks."""
    provides: tuple[DebianRelation, ...] = ()
    priority: str = "optional"

    @classmethod
    def from_fields(cls, fields: Mapping[str, str], archive: str) -> DebianPackage:
        """Raises ``ValueError`` for fields that are missing or make no sense."""
        try:
            name, version = fields["Package"], fields["Version"]
            size, sha256 = int(fields["Size"]), fields["SHA256"].lower()
            architecture, file = fields["Architecture"], fields["Filename"]
        except KeyError as error:
            raise ValueError(f"a package without the field {error.args[0]}") from error
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or size < 0:
            raise ValueError(f"{name} has no usable SHA256 or Size")
        if file.startswith("/") or ".." in file.split("/") or "//" in file or ":" in file.split("/")[0]:
            raise ValueError(f"{name} has an unsafe Filename: {file[:80]!r}")
        return cls(
            name=name,
            version=version,
            architecture=architecture,
            source=fields.get("Source", name).partition(" ")[0],
            archive=archive,
            file=file,
            size=size,
            sha256=sha256,
            depends=relations(fields.get("Pre-Depends", "")) + relations(fields.get("Depends", "")),
            conflicts=relations(fields.get("Conflicts", "")) + relations(fields.get("Breaks", "")),
            provides=tuple(group[0] for group in relations(fields.get("Provides", ""))),
            priority=fields.get("Priority", "optional"),
        )

    def provided(self, relation: DebianRelation) -> bool:
        """Whether one of its Provides fits: versioned relations need a versioned Provides (Policy §7.5)."""
        return any(
            provide.name == relation.name
            and (not relation.operator or (provide.version != "" and relation.allows(provide.version)))
            for provide in self.provides
        )
