"""Different files of two packages under one path: whose is kept, and what is said of it.

pip and conda unpack one package after the other, so the later one's file stays. Here the order is fixed:
conda packages first, as conda links them; then distributions from the last name to the first, as pip installs
requirements that are all pinned. Packages of Debian and envbuild's own files are never
overwritten, as dpkg has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from envbuild.compose.filesystem import PathClash
from envbuild.lock.conda.records import link_order
from envbuild.lock.model import CondaPin
from envbuild.plan.model import Artifact, ArtifactKind

_KINDS = (ArtifactKind.CONDA, ArtifactKind.WHEEL)
_NAMED = 3
"""Paths that a warning names of two packages."""
_NAMESPACE = re.compile(rb"\bextend_path\(|\bdeclare_namespace\(")
_UNIMPORTANT = re.compile(
    r"(?:^|/)tests?/|(?:^|/)(?:licen[cs]es?|copying|notice|readme|authors|changelog|changes|news)"
    r"(?:[.-][^/]*)?$",
    re.IGNORECASE,
)
_BYTE_CODE = re.compile(r"(.*/|)__pycache__/([^/]+)\.cpython-\d+\.pyc")
_INIT = "__init__.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overwritten:
    """A file of ``loser`` in whose place that of ``winner`` stays; both with their versions."""

    path: str
    winner: str
    loser: str


def owners_of(clashes: Iterable[PathClash]) -> dict[str, list[int]]:
    """Each path to all contributions that bring it, in plan order. Byte code goes with its source, and is
    left out where that has several owners too."""
    owners: dict[str, list[int]] = {}
    for clash in clashes:
        owners.setdefault(clash.path, [clash.first]).append(clash.second)
    return {path: indices for path, indices in owners.items() if _source(path) not in owners}


def install_order(artifacts: Sequence[Artifact]) -> dict[str, int]:
    """SHA-256 of the packages that may overwrite one another, to their place in the order: later ones win."""
    conda = link_order(artifact.pin for artifact in artifacts if isinstance(artifact.pin, CondaPin))
    wheels = [artifact for artifact in artifacts if artifact.kind is ArtifactKind.WHEEL]
    wheels.sort(key=lambda artifact: (artifact.name, artifact.sha256), reverse=True)
    sha256 = {artifact.name: artifact.sha256 for artifact in artifacts if artifact.kind is ArtifactKind.CONDA}
    ordered = (*(sha256[pin.name] for pin in conda), *(wheel.sha256 for wheel in wheels))
    return {package: place for place, package in enumerate(ordered)}


def is_worth_a_word(path: str, contents: Sequence[bytes]) -> bool:
    """Whether it matters which of ``contents`` (tar entries) stays at ``path``: not of licences, documents
    and tests, and not of the ``__init__.py`` that each package of an old-style namespace brings."""
    if _UNIMPORTANT.search(path):
        return False
    if path.rpartition("/")[2] == _INIT:
        return not all(_NAMESPACE.search(content) for content in contents)
    return True


def warnings(overwritten: Iterable[Overwritten]) -> list[str]:
    """One line for each two packages."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for item in overwritten:
        pairs.setdefault((item.winner, item.loser), []).append(item.path)
    lines = []
    for (winner, loser), paths in sorted(pairs.items()):
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        named = ", ".join(sorted(paths)[:_NAMED])
        lines.append(f"warning: {winner} overwrites {named}{more} of {loser} (clashes: error refuses that)")
    return lines


def may_overwrite(artifacts: Iterable[Artifact]) -> bool:
    """Whether all of ``artifacts`` are of the kinds that overwrite one another."""
    return all(artifact.kind in _KINDS for artifact in artifacts)


def _source(path: str) -> str | None:
    match = _BYTE_CODE.fullmatch(path)
    return f"{match[1]}{match[2]}.py" if match else None
