"""What an importer is: one file format that becomes a :class:`Spec`. One file each.

Third parties use the entry points ``envbuild.importers``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from envbuild.specs.model import Spec
from envbuild.specs.text.source import SourceFile


class Importer(Protocol):
    """One format people's environments are written in.

    One that has ``selective = True`` reads what is written behind ``#`` (``SourceFile.fragment``) as the
    parts of the file that are asked for; for all others that is an error.
    """

    name: str
    markers: tuple[str, ...]
    """File names, or relative paths, that make a directory one of this format; ``()`` where a file is always
    named by itself. One that ends with a slash is a directory. ``envbuild.specs.load.NAMES`` holds their
    order among all formats."""

    def recognises(self, file: SourceFile) -> bool:
        """Whether ``file`` is of this format; looks at its name, then at its content, and never raises
        for a file that isn't."""

    def load(self, file: SourceFile) -> Spec:
        """The spec in ``file``. Raises ``SpecError`` with all its problems."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A spec in another format: files by their relative paths, the one that names the rest first."""

    files: tuple[tuple[str, bytes], ...]
    left_out: tuple[str, ...] = ()
    """What the format can't carry, a line each; it is shown to whoever asked."""


class Exporter(Protocol):
    """Writes specs in one format."""

    def __call__(self, spec: Spec) -> Exported:
        """The files. Raises ``SpecError`` where the format can hold nothing of ``spec``."""
