"""Formats that other packages bring, by entry points of the group ``envbuild.importers``.

They are asked only where none of ours knows a file, so that they can't change what one of ours means, and
that nobody else's start takes longer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from envbuild.errors import EnvbuildError, SpecError
from envbuild.lazy import lazy
from envbuild.specs.model import Spec
from envbuild.specs.text.source import SourceFile, state_of

if TYPE_CHECKING:
    from importlib import metadata
    from importlib.metadata import EntryPoint
else:
    metadata = lazy("importlib.metadata")

_log = logging.getLogger(__name__)

GROUP = "envbuild.importers"
"""Entry points of this group name an ``Importer`` each, by the format's name."""
_FILES = 1_000
"""Files of a package that are looked at, for whether it has changed."""


def other_importers() -> Iterator[OtherImporter]:
    """Those that can be loaded, sorted by name; of each other one a warning is logged."""
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            other_importer = OtherImporter(point, point.load())
        except Exception as error:  # noqa: BLE001 - whatever another package's module raises
            _log.warning("the format %s can't be loaded from %s: %s", point.name, point.value, error)
        else:
            yield other_importer


class OtherImporter:
    """Another package's importer: whatever it raises is an error of its format."""

    def __init__(self, point: EntryPoint, importer: Importer) -> None:
        self.name = point.name
        self.markers: tuple[str, ...] = tuple(importer.markers)
        self.selective = bool(getattr(importer, "selective", False))
        self._point = point
        self._importer = importer

    def recognises(self, file: SourceFile) -> bool:
        try:
            return bool(self._importer.recognises(file))
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("the format %s failed on %s: %s", self.name, file.shown, error)
            return False

    def load(self, file: SourceFile) -> Spec:
        # A spec is remembered while all that was read for it is the same: so must be who read it.
        if file.reads is not None:
            file.reads.update((path, state_of(path)) for path in self._sources())
        try:
            spec = self._importer.load(file)
        except EnvbuildError:
            raise
        except Exception as error:
            raise self._failed(file, f"{type(error).__name__}: {error}") from error
        if not isinstance(spec, Spec):
            raise self._failed(file, f"it made {type(spec).__name__} of it")
        return spec

    def _failed(self, file: SourceFile, why: str) -> SpecError:
        return SpecError(
            f"{file.shown}: the format {self.name} failed: {why}",
            hint=f"tell those who make {self._point.value.partition(':')[0]}",
        )

    def _sources(self) -> Iterator[Path]:
        """The files that the importer is made of, as far as its package names them."""
        module = getattr(sys.modules.get(self._point.value.partition(":")[0]), "__file__", None)
        if module is not None:
            yield Path(module)
        distribution = self._point.dist
        listed = (distribution.files or []) if distribution is not None else []
        for path in listed[:_FILES]:
            if path.suffix == ".py":
                yield Path(str(path.locate()))


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
    names_context: bool = False
    """Whether a file says where the build context is, so that it belongs beside them."""


class Exporter(Protocol):
    """Writes specs in one format."""

    def __call__(self, spec: Spec) -> Exported:
        """The files. Raises ``SpecError`` where the format can hold nothing of ``spec``."""
