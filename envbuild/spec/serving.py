"""The serving rule (DESIGN §4): what a user-managed environment with an ``inference_config`` must hold."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

SERVER = "azureml-inference-server-http"
DEFAULTS = "azureml-defaults"
"""Depends on the server from this version on."""
DEFAULTS_MINIMUM = "1.0.45"
WANTED = f"{DEFAULTS}>={DEFAULTS_MINIMUM} or {SERVER}"
"""For messages."""


def serves(distributions: Iterable[tuple[str, str]]) -> bool:
    """Whether one of ``distributions`` (name and version, as installed) brings the server."""
    return any(_serves(canonicalize_name(name), version) for name, version in distributions)


def promises(requirements: Iterable[str]) -> bool:
    """Whether one of ``requirements`` (PEP 508) asks for what brings the server, in a version that may."""
    return any(_promises(each) for each in requirements)


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
