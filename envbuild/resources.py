"""Finds the files that envbuild ships beside its code."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from envbuild.errors import EnvbuildError


def resource_directory(name: Literal["templates", "lockfiles"]) -> Path:
    """The directory of that name, from an installed wheel or from a checkout (an editable install).

    A wheel carries both as ``envbuild/_data/…``; in a checkout they stand at the top level, which is
    known by the project's own ``pyproject.toml`` beside them.
    """
    package = Path(__file__).resolve().parent
    shipped = package / "_data" / name
    if shipped.is_dir():
        return shipped
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    raise EnvbuildError(
        f"this installation of envbuild has no {name} directory (looked at {shipped} and {checkout / name})",
        hint="install envbuild again; its wheel carries the directory",
    )


SPEC_FILE = "envbuild.yaml"


def curated_names() -> tuple[str, ...]:
    """The names of all curated environments, sorted."""
    return tuple(sorted(path.parent.name for path in _directory().glob(f"*/{SPEC_FILE}")))


def curated_spec(name: str) -> Path | None:
    """The spec of the curated environment ``name``; None where there is none of that name."""
    return _directory() / name / SPEC_FILE if name in curated_names() else None


def is_curated(path: Path) -> bool:
    """Whether the file at ``path`` is the spec of a curated environment."""
    return path.name == SPEC_FILE and path.resolve().parent.parent == _directory()


def _directory() -> Path:
    return resource_directory("lockfiles").resolve()
