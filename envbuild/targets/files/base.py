"""What files can be written for: a kind alone, without a target of the workspace; and how a file says whose
it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import PurePath
from typing import NoReturn

from envbuild.errors import UsageError, did_you_mean
from envbuild.oci.image import Image
from envbuild.targets.base import (
    Job,
    PreflightFinding,
    Target,
    TargetFile,
    TargetLimits,
    TargetRecord,
)
from envbuild.targets.kinds import TargetContext, kind_names, open_target

_COMMENTS = (".conf", ".properties", ".sbatch", ".sh", ".toml", ".yaml", ".yml")
"""Files where a line that begins with ``#`` says nothing."""
_MARK = "# environment "
_ALIASES = {"sbatch": "slurm"}


class FilesOnly:
    """A place that nothing is known of: no limits, no registry, nothing to connect to."""

    registry: str | None = None

    def __init__(self, name: str) -> None:
        self.record = TargetRecord(name=name, kind=name)
        self.limits = TargetLimits()

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return ()

    def bytes_to_pull(self, image: Image) -> int | None:
        return None

    def submit(self, job: Job) -> NoReturn:
        """Raises ``UsageError``: nothing is started from here."""
        raise UsageError(f"{self.record.name} is a kind of file, and starts nothing")


_FILES = {"compose": "envbuild.targets.files.compose", "github": "envbuild.targets.files.github"}
"""Modules whose ``FILES`` is made with the kind's name."""


def file_kinds() -> tuple[str, ...]:
    """All that files can be written for without a target of the workspace. Imports no kind."""
    return (*_FILES, *_ALIASES, *(name for name in kind_names() if name != "local"))


def check_file_kind(name: str, targets: Sequence[str] = ()) -> None:
    """Raises ``UsageError`` for what is no kind of file, with the nearest of these and of ``targets``."""
    if name in file_kinds():
        return
    known = dict.fromkeys((*targets, *file_kinds()))
    raise UsageError(
        f"{name[:80]!r} is neither a target nor a kind of file{did_you_mean(name, known)}",
        hint=f"known: {', '.join(known)}",
    )


def file_target(name: str, context: TargetContext, *, registry: str | None = None) -> Target:
    """The kind ``name`` as a target to write files with and not to connect to, without options but the
    ``registry`` that images are in. Raises ``UsageError`` for an unknown one, and for one that can't do
    without others."""
    check_file_kind(name)
    if name in _FILES:
        target: Target = import_module(_FILES[name]).FILES(name)
        return target
    options = (("registry", registry),) if registry is not None else ()
    record = TargetRecord(name=name, kind=_ALIASES.get(name, name), options=options)
    return open_target(record, context)


def add_header(file: TargetFile, header: str) -> TargetFile:
    """``file`` with a comment that leads back to the environment, behind its interpreter's line if it has
    one; a file that takes no comments as it is. ``header`` is one line."""
    if PurePath(file.name).suffix not in _COMMENTS:
        return file
    line = f"{_MARK}{' '.join(header.split())}\n"
    first, rest = "", file.content
    if rest.startswith("#!"):
        first, newline, rest = rest.partition("\n")
        first += newline or "\n"
    return replace(file, content=f"{first}{line}{rest}")


def has_header(content: str) -> bool:
    """Whether ``add_header`` made a file that begins like this."""
    return any(line.startswith(_MARK) for line in content.split("\n", 2)[:2])
