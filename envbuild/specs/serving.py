"""The serving rule (docs/design.md §4): what an environment must hold to serve, and how any comes to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envbuild.errors import SpecError
from envbuild.specs.model import (
    EnvironmentType,
    InferenceConfig,
    Origin,
    PipRequirement,
    Route,
    Spec,
)

SERVER = "azureml-inference-server-http"
DEFAULTS = "azureml-defaults"
"""Depends on the server from this version on."""
DEFAULTS_MINIMUM = "1.0.45"
WANTED = f"{DEFAULTS}>={DEFAULTS_MINIMUM} or {SERVER}"
"""For messages."""
ADDED = f"{SERVER}>=1"
"""What is required of an environment that doesn't ask for the server itself. Bounded below, so that a
conflict is one, and no resolver goes back to a server of years ago."""
PORT, HEALTH, SCORE = 5001, "/", "/score"
"""Where the server answers: the port is its default, the paths are its only ones."""
DEFAULT_ROUTES = InferenceConfig(
    liveness_route=Route(path=HEALTH, port=PORT),
    readiness_route=Route(path=HEALTH, port=PORT),
    scoring_route=Route(path=SCORE, port=PORT),
)
_SUFFIX = "-serving"
_CONDA_SERVER = re.compile(rf"(?:\S+::)?{SERVER}(?![a-z0-9._-])")


def served(spec: Spec) -> Spec:
    """The spec that serves what ``spec`` is: itself where it asks for the server and says where it answers,
    so that training and serving are one environment, one version, one image. Else the same and what it lacks,
    under the name ``<name>-serving``, so that it has a lock of its own.

    Raises ``SpecError`` for routes that the server can't have, and where nothing can be added.
    """
    routes = spec.inference_config or DEFAULT_ROUTES
    check_routes(routes)
    missing = not _asks_for_server(spec) and spec.type is not EnvironmentType.USER_MANAGED
    if spec.inference_config is not None and not missing:
        return spec
    changed = replace(spec, name=f"{spec.name}{_SUFFIX}", version=None, inference_config=routes)
    if spec.type is EnvironmentType.CURATED:
        changed = replace(changed, type=EnvironmentType.SYSTEM_MANAGED)
    if not missing:
        return changed
    if spec.pip.complete:
        raise SpecError(
            f"{spec.name} is what a lock lists and no more, and {SERVER} isn't in it",
            hint=f"add {SERVER} where that lock is made",
        )
    added = PipRequirement(text=ADDED, origin=Origin(file="envbuild serve", where=SERVER))
    pip = replace(spec.pip, requirements=(*spec.pip.requirements, added))
    return replace(changed, pip=pip)


def check_routes(routes: InferenceConfig) -> None:
    """Returns where the server can answer so: one port, ``/`` and ``/score``. Raises ``SpecError``."""
    named = (
        ("liveness_route", routes.liveness_route, HEALTH),
        ("readiness_route", routes.readiness_route, HEALTH),
        ("scoring_route", routes.scoring_route, SCORE),
    )
    problems = [
        f"inference_config.{name}: {SERVER} answers at {path}, not at {route.path}"
        for name, route, path in named
        if route.path != path
    ]
    port = routes.scoring_route.port
    problems += [
        f"inference_config.{name}: {SERVER} answers on one port, "
        f"and {route.port} isn't the scoring route's {port}"
        for name, route, _ in named
        if route.port != port
    ]
    if problems:
        raise SpecError(
            problems[0], hint="change the routes, or serve with a server of your own", problems=problems
        )


def _asks_for_server(spec: Spec) -> bool:
    conda = spec.conda.dependencies if spec.conda is not None else ()
    return promises(requirement.text for requirement in spec.pip.requirements) or any(
        map(_CONDA_SERVER.match, conda)
    )


def serves(distributions: Iterable[tuple[str, str]]) -> bool:
    """Whether one of ``distributions`` (name and version, as installed) brings the server."""
    return any(_serves(canonicalize_name(name), version) for name, version in distributions)


def promises(requirements: Iterable[str]) -> bool:
    """Whether one of ``requirements`` (PEP 508) asks for what brings the server, in a version that may."""
    return any(_promises(requirement) for requirement in requirements)


def _serves(name: str, version: str) -> bool:
    if name != DEFAULTS:
        return name == SERVER
    try:
        return Version(version) >= Version(DEFAULTS_MINIMUM)
    except InvalidVersion:
        return False


def _promises(text: str) -> bool:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return False
    name = canonicalize_name(requirement.name)
    return name == SERVER or (name == DEFAULTS and not any(map(_too_old, requirement.specifier)))


def _too_old(specifier: Specifier) -> bool:
    """Whether a clause admits no version from the minimum on."""
    minimum = Version(DEFAULTS_MINIMUM)
    operator, written = specifier.operator, specifier.version
    try:
        stated = Version(written.removesuffix(".*"))
        if operator == "<":
            return stated <= minimum
        if operator == "<=" or (operator in ("==", "===") and not written.endswith(".*")):
            return stated < minimum
        if operator in ("==", "~="):
            return stated < minimum and not SpecifierSet(str(specifier)).contains(minimum)
    except (InvalidVersion, InvalidSpecifier):
        return True
    return False
