"""Reads a POM as it is written: nothing inherited, nothing replaced. What a repository sends is hostile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from envbuild.errors import ResolveError

LARGEST = 4 << 20
"""Bytes a POM may have; the largest on Maven Central have a few hundred kB."""
_DEEPEST = 64
_ELEMENTS = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PomReference:
    """A parent, a relocation or the POM itself, as written; empty where nothing is."""

    group: str = ""
    artifact: str = ""
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PomDependency:
    """A dependency as written; empty strings where nothing is. ``exclusions`` are group and artifact."""

    group: str
    artifact: str
    version: str = ""
    scope: str = ""
    type: str = ""
    classifier: str = ""
    optional: str = ""
    exclusions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pom:
    """One POM as written. ``own`` has empty parts where the parent's count."""

    own: PomReference
    parent: PomReference | None = None
    packaging: str = "jar"
    properties: Mapping[str, str] = field(default_factory=dict)
    dependencies: tuple[PomDependency, ...] = ()
    managed: tuple[PomDependency, ...] = ()
    """dependencyManagement, imports among them, in the order written."""
    relocation: PomReference | None = None


def read_pom(data: bytes, name: str) -> Pom:
    """The POM; profiles, plugins and repositories in it are passed over. Raises ``ResolveError``: not XML, a
    document type (a POM has none, and with it come entities), more or deeper elements than a POM can have."""
    root = _parse(data, name)
    if root.tag != "project":
        raise ResolveError(f"{name} is no POM: its element is {root.tag[:80]!r}")
    parent = root.find("parent")
    relocation = root.find("distributionManagement/relocation")
    return Pom(
        own=_reference(root),
        parent=_reference(parent) if parent is not None else None,
        packaging=_text(root, "packaging") or "jar",
        properties={node.tag: (node.text or "").strip() for node in root.iterfind("properties/*")},
        dependencies=tuple(map(_dependency, root.iterfind("dependencies/dependency"))),
        managed=tuple(map(_dependency, root.iterfind("dependencyManagement/dependencies/dependency"))),
        relocation=_reference(relocation) if relocation is not None else None,
    )


def _parse(data: bytes, name: str) -> Element:
    """The tree of ``data``, without namespaces, which some POMs leave out."""
    if len(data) > LARGEST:
        raise ResolveError(f"{name} has more than the {LARGEST} bytes that a POM may have")
    builder = TreeBuilder()
    depth = count = 0

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEEPEST or count > _ELEMENTS:
            raise ResolveError(f"{name} has more elements than any POM")
        builder.start(tag.rpartition(" ")[2], {})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.rpartition(" ")[2])

    def refuse(*_: object) -> None:
        raise ResolveError(f"{name} declares a document type, which no POM needs")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    text: Callable[[str], object] = builder.data
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise ResolveError(f"{name} can't be read: {error}") from error
    return builder.close()


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _reference(element: Element) -> PomReference:
    return PomReference(
        group=_text(element, "groupId"),
        artifact=_text(element, "artifactId"),
        version=_text(element, "version"),
    )


def _dependency(element: Element) -> PomDependency:
    return PomDependency(
        group=_text(element, "groupId"),
        artifact=_text(element, "artifactId"),
        version=_text(element, "version"),
        scope=_text(element, "scope"),
        type=_text(element, "type"),
        classifier=_text(element, "classifier"),
        optional=_text(element, "optional"),
        exclusions=tuple(
            (_text(node, "groupId"), _text(node, "artifactId"))
            for node in element.iterfind("exclusions/exclusion")
        ),
    )
