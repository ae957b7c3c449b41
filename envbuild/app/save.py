"""An environment's files in a directory, in any format that specs are exported to."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.context_archive import DIRECTORY, pack_context, unpack_context
from envbuild.errors import PublishError, UsageError
from envbuild.specs.exporters.formats import export
from envbuild.specs.model import BuildContextSpec, Spec

if TYPE_CHECKING:
    from envbuild.specs.plugins import Exported


def save(spec: Spec, directory: Path, *, format: str = "native", overwrite: bool = False) -> tuple[str, ...]:
    """Writes ``spec``, with the build context it has; returns what the format can't carry, a line each.

    Raises ``UsageError`` where a file is there already, unless ``overwrite``; ``PublishError`` where nothing
    can be written."""
    context = None
    exported_spec = exported(spec, format)
    if isinstance(spec.base, BuildContextSpec) and exported_spec.names_context:
        context = pack_context(spec)
        exported_spec = exported(replace(spec, base=replace(spec.base, path=Path(DIRECTORY))), format)
    names = [name for name, _ in exported_spec.files] + (["context"] if context is not None else [])
    there = [name for name in names if os.path.lexists(directory / name)]
    if there and not overwrite:
        raise UsageError(
            f"{directory} has {', '.join(there)} already", hint="choose another directory, or overwrite"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if context is not None:
            _replace_context(context, directory)
        for name, data in exported_spec.files:
            write_file(directory / name, data)
    except OSError as error:
        raise PublishError(f"can't write {directory}: {error.strerror}") from error
    # What was written beside it isn't left out.
    return tuple(line for line in exported_spec.left_out if context is None or not line.startswith("build: "))


def exported(spec: Spec, format: str) -> Exported:
    """The files of ``spec`` in a format. Raises ``UsageError`` for an unknown one."""
    return export(spec, format)


def _replace_context(archive: bytes, directory: Path) -> None:

    part = directory / f".{DIRECTORY}.{os.getpid()}.part"
    try:
        unpack_context(archive, part)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory / DIRECTORY)
        part.replace(directory / DIRECTORY)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file as a whole or not at all. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
