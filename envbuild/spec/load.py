"""A spec from whatever people have: a file of any known format, or a directory that holds one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from envbuild.errors import SpecError
from envbuild.spec.base import Importer
from envbuild.spec.model import Spec
from envbuild.spec.source import SourceFile

_log = logging.getLogger(__name__)

NAMES = (
    "envbuild.yaml",
    "envbuild.yml",
    "environment.yaml",
    "environment.yml",
    "conda.yaml",
    "conda.yml",
    "requirements.in",
    "requirements.txt",
)
"""What is looked for in a directory; the first one there is the spec. ``environment.*`` leads ``conda.*``,
because Azure ML's environment files name a ``conda.yaml`` beside them; a ``requirements.in`` leads the
``requirements.txt`` that was compiled from it."""

_KNOWN = (
    "known are envbuild's and Azure ML's environment YAML, conda's environment.yml, requirements.txt and .in"
)


def importers() -> tuple[Importer, ...]:
    """The formats, in the order they are asked."""
    from envbuild.spec.conda import CondaImporter
    from envbuild.spec.native import NativeImporter
    from envbuild.spec.requirements_file import RequirementsImporter

    return RequirementsImporter(), CondaImporter(), NativeImporter()


def load_spec(
    path: Path, *, formats: Sequence[Importer] | None = None, reads: dict[Path, str] | None = None
) -> Spec:
    """The spec at ``path``: a file, or the first of :data:`NAMES` in a directory.

    ``Spec.source`` is absolute; relative paths inside the spec are relative to its directory. ``reads``
    is given the absolute path and digest of every file that was read.

    Raises ``SpecError`` with every problem of every file it reads.
    """
    file = spec_file(path, reads=reads)
    for importer in importers() if formats is None else formats:
        if importer.recognises(file):
            return importer.load(file)
    raise SpecError(f"{file.shown}: its format isn't known by its name", hint=_KNOWN)


def spec_file(path: Path, *, reads: dict[Path, str] | None = None) -> SourceFile:
    """The file that is the spec at ``path``. Raises ``SpecError`` where there is none."""
    file = SourceFile.at(_file_in(path) if path.is_dir() else path, reads)
    try:
        there = file.path.exists()
    except (OSError, ValueError):
        there = False
    if not there:
        raise SpecError(f"{file.shown}: no such file or directory", hint=_KNOWN)
    return file


def _file_in(directory: Path) -> Path:
    found = [directory / name for name in NAMES if (directory / name).is_file()]
    if not found:
        raise SpecError(
            f"{directory.as_posix()}: no spec in this directory", hint="looked for " + ", ".join(NAMES)
        )
    if len(found) > 1:
        others = ", ".join(each.name for each in found[1:])
        _log.info("%s is the spec; not read by itself: %s", found[0].as_posix(), others)
    return found[0]
