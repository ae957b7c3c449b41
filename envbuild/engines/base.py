"""What an engine is: it makes an image from a plan, or says beforehand why it can't."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from envbuild.compose.base import cannot_build
from envbuild.errors import BuildError, UsageError
from envbuild.oci.image import Image
from envbuild.plan.model import Plan
from envbuild.progress import Progress


class Engine(Protocol):
    """Builds single-platform images."""

    @property
    def name(self) -> str:
        """As ``--engine`` and the engine's messages say it."""

    def unable(self, plan: Plan) -> list[str]:
        """Every reason why ``plan`` can't be built by this engine, each naming what is in the way; empty
        where it can. Downloads nothing and runs nothing but a question whether the engine is there."""

    def identity(self, plan: Plan) -> str:
        """The lock digest of the image this engine makes of ``plan``: engines whose bytes differ never
        answer with each other's image."""

    def build(self, plan: Plan) -> Image:
        """The image, with all its blobs in the store. Raises ``BuildError``, before any work where
        :meth:`unable` has a reason."""


ENGINES = ("native", "buildx", "docker")
"""In the order they are asked: what reproduces bytes, then what has caches and secrets, then the rest."""


def choose_engine(
    name: str, plan: Plan, engines: Mapping[str, Callable[[], Engine]], progress: Progress
) -> Engine:
    """The engine ``name``, or for ``auto`` the first of :data:`ENGINES` that can build ``plan``; a choice
    that isn't the usual one is said. Raises ``BuildError`` with every engine's reasons where none can."""
    if name != "auto":
        if name not in engines:
            raise UsageError(f"unknown engine {name!r}", hint=f"use auto, {', '.join(ENGINES)}")
        engine = engines[name]()
        reasons = engine.unable(plan)
        if reasons:
            raise BuildError(cannot_build(name, reasons), hint=_others(name, plan, engines))
        return engine
    refused: list[tuple[str, list[str]]] = []
    for candidate in ENGINES:
        engine = engines[candidate]()
        reasons = engine.unable(plan)
        if not reasons:
            if refused:
                progress.note(
                    f"engine: {candidate}, because {refused[0][0]} can't build this: {refused[0][1][0]}"
                )
            return engine
        refused.append((candidate, reasons))
    hint = "start a Docker engine, or point DOCKER_HOST at one that runs; envbuild doctor shows what is here"
    if all(reason.startswith("byte code ") for reason in refused[0][1]):
        hint += "; without byte code the native engine can: envbuild lock --no-bytecode"
    raise BuildError(
        "no engine can build this:\n"
        + "\n".join(cannot_build(engine, reasons) for engine, reasons in refused),
        hint=hint,
    )


def _others(name: str, plan: Plan, engines: Mapping[str, Callable[[], Engine]]) -> str:
    able = [engine for engine in ENGINES if engine != name and not engines[engine]().unable(plan)]
    if able:
        return f"--engine {able[0]} can"
    return "no other engine can either: --engine auto says why for each"
