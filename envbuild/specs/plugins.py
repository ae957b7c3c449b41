"""Formats that other packages bring, by entry points of the group ``envbuild.importers``.

They are asked only where none of ours knows a file, so that they can't change what one of ours means, and
that nobody else's start takes longer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from envbuild.errors import EnvbuildError, SpecError
from envbuild.specs.base import Importer
from envbuild.specs.model import Spec
from envbuild.specs.text.source import SourceFile, state_of

_log = logging.getLogger(__name__)

GROUP = "envbuild.importers"
"""Entry points of this group name an ``Importer`` each, by the format's name."""
_FILES = 1_000
"""Files of a package that are looked at, for whether it has changed."""


def other_importers() -> Iterator[OtherImporter]:
    """Those that can be loaded, sorted by name; of each other one a warning is logged."""
    for point in sorted(entry_points(group=GROUP), key=lambda each: (each.name, each.value)):
        try:
            found = OtherImporter(point, point.load())
        except Exception as error:  # noqa: BLE001 - whatever another package's module raises
            _log.warning("the format %s can't be loaded from %s: %s", point.name, point.value, error)
        else:
            yield found


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
            found = self._importer.load(file)
        except EnvbuildError:
            raise
        except Exception as error:
            raise self._failed(file, f"{type(error).__name__}: {error}") from error
        if not isinstance(found, Spec):
            raise self._failed(file, f"it made {type(found).__name__} of it")
        return found

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
        for each in listed[:_FILES]:
            if each.suffix == ".py":
                yield Path(str(each.locate()))
