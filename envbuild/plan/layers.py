"""Which artifacts share a layer: a pure function of the pins.

Large artifacts stand alone, small ones in buckets chosen by a hash of their name, so that a changed version
changes one layer. Simulated on 169 packages, forty layers like this re-push 3.2 MB when one changes;
by size alone it is 9 MB (``docs/decisions/0003-stable-buckets.md``). Docker's classic store reuses layers
by prefix of the chain, so what changes rarely comes first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from envbuild.lock.model import PythonPin
from envbuild.plan.model import Artifact, ArtifactKind, PlannedLayer

MAX_LAYERS = 120
"""With the base's; Docker's limit is 125, and containerd failed to mount 128."""

LARGE = 512 << 10
"""Bytes, compressed, from which an artifact may have a layer of its own."""

BUCKETS = 8
_RESERVED = 3
"""Layers for base, python and settings."""


def group_layers(
    artifacts: Sequence[Artifact],
    *,
    settings: Artifact | None = None,
    python: PythonPin | None = None,
    budget: int = 40,
    base_layers: int = 0,
) -> tuple[PlannedLayer, ...]:
    """Layers in their order: base, python, large artifacts alone, buckets of small ones, settings last.

    Debian packages and the files generated for them are the base, but for those of the interpreter.
    ``budget`` counts all layers made here; ``base_layers`` are already below and count against
    :data:`MAX_LAYERS`. The order of ``artifacts`` doesn't matter. Empty groups give no layer.
    """
    base: list[Artifact] = []
    interpreter: list[Artifact] = []
    software: list[Artifact] = []
    for artifact in artifacts:
        if _of_interpreter(artifact, python):
            interpreter.append(artifact)
        elif artifact.kind in (ArtifactKind.DEBIAN, ArtifactKind.GENERATED):
            base.append(artifact)
        else:
            software.append(artifact)
    last = [settings] if settings else []
    room = max(1, min(budget, MAX_LAYERS - base_layers))
    if room < _RESERVED + 2:
        return _few([*base, *interpreter], software, last, room)
    fixed = sum(1 for members in (base, interpreter, last) if members)
    buckets = min(BUCKETS, max(1, (room - fixed) // 4))
    alone = room - fixed - buckets
    large = sorted(
        (artifact for artifact in software if artifact.size >= LARGE),
        key=lambda artifact: (-artifact.size, *_sort_key(artifact)),
    )[:alone]
    grouped = {id(artifact) for artifact in large}
    small: list[list[Artifact]] = [[] for _ in range(buckets)]
    for artifact in software:
        if id(artifact) not in grouped:
            small[_bucket(artifact, buckets)].append(artifact)
    planned = [("base", base), ("python", interpreter)]
    # By name, not by size: a package that grows keeps its place in the chain.
    planned += [(artifact.name, [artifact]) for artifact in sorted(large, key=_sort_key)]
    planned += [(f"bucket-{number:02}", members) for number, members in enumerate(small)]
    planned.append(("settings", last))
    return tuple(_layer(name, members) for name, members in planned if members)


def _of_interpreter(artifact: Artifact, python: PythonPin | None) -> bool:
    """Whether the artifact is part of the interpreter's own packages, by name."""
    if python is None:
        return False
    if artifact.kind is ArtifactKind.PYTHON:
        return True
    if artifact.kind is ArtifactKind.CONDA:
        return python.provider == "conda" and artifact.name == "python"
    if artifact.kind is ArtifactKind.DEBIAN and python.provider == "debian":
        names = {f"python{python.short}", "python3", f"libpython{python.short}", "libpython3"}
        stems = {artifact.name.removesuffix(end) for end in ("", "-minimal", "-stdlib", "-distutils", "t64")}
        return not names.isdisjoint(stems)
    return False


def _few(
    base: list[Artifact], software: list[Artifact], last: list[Artifact], room: int
) -> tuple[PlannedLayer, ...]:
    """Layers where there is hardly room for any: settings join the software, then all becomes one."""
    parts = [("base", base), ("software", software), ("settings", last)]
    if room < 3:
        parts = [("base", base), ("software", [*software, *last])]
    if room < 2:
        parts = [("software", [*base, *software, *last])]
    return tuple(_layer(name, members) for name, members in parts if members)


def _layer(name: str, members: Sequence[Artifact]) -> PlannedLayer:
    return PlannedLayer(name=name, artifacts=tuple(sorted(members, key=_sort_key)))


def _bucket(artifact: Artifact, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(artifact.name.encode()).digest()[:8], "big") % buckets


def _sort_key(artifact: Artifact) -> tuple[bool, str, str, str, str]:
    """Generated files after packages, so that they have the last word within a layer."""
    generated = artifact.kind is ArtifactKind.GENERATED
    return generated, artifact.kind.value, artifact.name, artifact.version, artifact.sha256
