"""What a build reads beside its plan: files and addresses that a spec names and no lock holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Below the application no spec travels: a lock says what is built, this says where its parts are."""

    directory: Path
    """What relative paths of the lock are relative to."""
    source: Path | None = None
    """The file that people wrote, for messages."""
    context: Path | None = None
    """The build context, relative to ``directory``; None: the spec has none."""
    pip_options: tuple[str, ...] = ()
    """``--index-url …``, ``--find-links …``; their paths are absolute."""
    spark_repositories: tuple[str, ...] = ()
    """Maven repositories of the spec, which go before the setting's."""
