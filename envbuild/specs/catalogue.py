"""The environments that come with envbuild: specs of the type ``curated``, each beside its lock."""

from __future__ import annotations

from pathlib import Path

from envbuild.resources import resource_directory

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
