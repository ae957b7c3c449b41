"""What names an image, read as one of these forms; the one place that knows them:

=========================== ======================================================================
``oci:DIR[:NAME]``          an OCI image layout in a directory
``oci-archive:FILE[:NAME]`` the same in a tar
``docker-archive:FILE[:NAME]`` what ``docker save`` wrote, of any age
``docker-daemon:NAME``      an image of the Docker engine
``sha256:HEX``              a manifest or index of the store
``docker://NAME``           an image of a registry, whatever the store has under that name
``NAME``                    one that the store knows (``sklearn:3f2ab4c5d6e7``, as ``build`` printed it), else
                            of a registry: ``[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]``
=========================== ======================================================================

Where a path is followed by ``:NAME``, the path is the longest part that exists; where none does, what stands
before the first colon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from envbuild.errors import UsageError
from envbuild.oci.digest import is_digest
from envbuild.oci.reference import Reference


class Kind(Enum):
    """The forms; the value is what a reference of that form begins with."""

    LAYOUT = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"
    DAEMON = "docker-daemon"
    DIGEST = "sha256"
    REGISTRY = "docker"
    NAME = ""


_PATHS = (Kind.LAYOUT, Kind.OCI_ARCHIVE, Kind.DOCKER_ARCHIVE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLocator:
    """Where an image is, or is to go. Which of the fields are there depends on ``kind``."""

    text: str
    """As it was written."""
    kind: Kind
    path: Path | None = None
    """Of a layout or an archive."""
    name: str | None = None
    """Within a layout or an archive, or of the Docker engine."""
    digest: str | None = None
    """Of something in the store."""
    reference: Reference | None = None
    """Of a registry or of the store."""

    @property
    def hosted(self) -> bool:
        """Whether the name says which registry it is of; without, it may be one of the store's own."""
        first, slash, _ = self.text.partition("/")
        return bool(slash) and ("." in first or ":" in first or first == "localhost")

    @property
    def given_name(self) -> Reference | None:
        """The repository and tag that the image has there; None where there is no such name."""
        if self.reference is not None:
            return None if self.reference.tag is None else replace(self.reference, digest=None)
        if self.name is None:
            return None
        try:
            return replace(Reference.parse(self.name), digest=None)
        except UsageError:
            return None

    def fresh(self) -> ImageLocator:
        """The same place; what names a registry or the store names the registry alone."""
        return replace(self, kind=Kind.REGISTRY) if self.kind is Kind.NAME else self

    @classmethod
    def parse(cls, text: str, directory: Path) -> ImageLocator:
        """The place written as ``text``; paths are relative to ``directory``. Raises ``UsageError``."""
        scheme, colon, rest = text.strip().partition(":")
        if colon and scheme == Kind.REGISTRY.value and rest.startswith("//"):
            return cls(text=text, kind=Kind.REGISTRY, reference=Reference.parse(rest[2:]))
        if colon and is_digest(text.strip()):
            return cls(text=text, kind=Kind.DIGEST, digest=text.strip())
        for kind in _PATHS:
            if colon and scheme == kind.value:
                path, name = _split(rest, directory, text)
                return cls(text=text, kind=kind, path=path, name=name)
        if colon and scheme == Kind.DAEMON.value:
            if not rest:
                raise UsageError(f"not an image: {text!r}", hint="expected: docker-daemon:NAME[:TAG]")
            if "@" in rest or "?" in rest:
                # A login is refused before anyone repeats it.
                Reference.parse(rest)
            return cls(text=text, kind=Kind.DAEMON, name=rest)
        return cls(text=text, kind=Kind.NAME, reference=Reference.parse(text))


def _split(text: str, directory: Path, whole: str) -> tuple[Path, str | None]:
    parts = text.split(":")
    if not parts[0] or "\0" in text:
        raise UsageError(f"not an image: {whole!r}: it names no path", hint="expected: oci:DIR[:NAME]")
    for count in range(len(parts), 0, -1):
        path = directory / ":".join(parts[:count])
        if path.exists():
            return path, ":".join(parts[count:]) or None
    return directory / parts[0], ":".join(parts[1:]) or None
