"""Specs with a package more or less: what programs change, checked as a file that says it would be."""

from __future__ import annotations

import re
from dataclasses import replace

from packaging.utils import canonicalize_name

from envbuild.app.sources import checked
from envbuild.errors import UsageError, suggestion
from envbuild.specs.match import canonical_match, split_match
from envbuild.specs.model import (
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    ImageBaseSpec,
    Origin,
    PipRequirement,
    Spec,
)

CHANNEL = "conda-forge"
"""Of an environment that gets its first conda package and names no channel."""
_END_OF_NAME = re.compile(r"[\s\[=<>~!;@]")
_USER = "1000:1000"


def requirement_name(text: str) -> str:
    """The name that a requirement of conda's or pip's starts with; of a wheel, the one in its file name."""
    if text.endswith(".whl"):
        return text.rpartition("/")[2].partition("-")[0]
    return _END_OF_NAME.split(text.strip(), maxsplit=1)[0]


def add_pip(spec: Spec, text: str) -> Spec:
    """With a requirement (PEP 508), in place of another one of that package. Raises ``SpecError``."""
    if spec.pip.complete:
        raise UsageError(
            f"{spec.name} is what a lock lists and no more", hint=f"add {text} where that lock is made"
        )
    if text.lstrip().startswith("-"):
        raise UsageError(
            f"{text!r} is an option of pip, no requirement", hint="from_pip_requirements reads them"
        )
    kept = _without_pip(spec, text)
    requirement = PipRequirement(text=text, origin=Origin(file=spec.name, where="add_pip_package"))
    return checked(replace(_managed(spec), pip=replace(spec.pip, requirements=(*kept, requirement))))


def remove_pip(spec: Spec, text: str) -> Spec:
    """Without what is required of a package, whatever its version. Raises ``UsageError`` where nothing is."""
    kept = _without_pip(spec, text)
    if len(kept) == len(spec.pip.requirements):
        raise _missing(text, [requirement_name(line.text) for line in spec.pip.requirements], "pip package")
    return checked(replace(spec, pip=replace(spec.pip, requirements=kept)))


def add_conda(spec: Spec, text: str, channels: tuple[str, ...] = ()) -> Spec:
    """With a match spec, in place of another one of that package; the first one brings ``channels``. Raises
    ``SpecError``."""
    conda = _solved(spec)
    if spec.conda is None and channels:
        conda = replace(conda, channels=channels)
    kept = _without_conda(conda, text)
    return checked(replace(_managed(spec), conda=replace(conda, dependencies=(*kept, text))))


def remove_conda(spec: Spec, text: str) -> Spec:
    """Without a conda package, whatever its version. Raises ``UsageError`` where there is none."""
    conda = _solved(spec)
    kept = _without_conda(conda, text)
    if len(kept) == len(conda.dependencies):
        raise _missing(text, [split_match(known).name for known in conda.dependencies], "conda package")
    return checked(replace(spec, conda=replace(conda, dependencies=kept) if kept else None))


def with_channels(spec: Spec, channels: tuple[str, ...]) -> Spec:
    """With these channels for its conda packages, of which there are some. Raises ``SpecError``."""
    return checked(replace(spec, conda=replace(_solved(spec), channels=channels)))


def add_debian(spec: Spec, name: str) -> Spec:
    """With a Debian package in the base. Raises ``UsageError`` for a base that isn't envbuild's own."""
    base = _debian(spec)
    return checked(replace(spec, base=replace(base, packages=tuple(dict.fromkeys((*base.packages, name))))))


def remove_debian(spec: Spec, name: str) -> Spec:
    """Without a Debian package that was asked for. Raises ``UsageError`` where it wasn't."""
    base = _debian(spec)
    if name not in base.packages:
        raise _missing(name, list(base.packages), "Debian package")
    return checked(replace(spec, base=replace(base, packages=tuple(p for p in base.packages if p != name))))


def _without_pip(spec: Spec, text: str) -> tuple[PipRequirement, ...]:
    name = canonicalize_name(requirement_name(text))
    return tuple(
        line for line in spec.pip.requirements if canonicalize_name(requirement_name(line.text)) != name
    )


def _without_conda(conda: CondaSpec, text: str) -> tuple[str, ...]:
    name = split_match(canonical_match(text)).name
    return tuple(known for known in conda.dependencies if split_match(known).name != name)


def _solved(spec: Spec) -> CondaSpec:
    """Its conda part, where that is solved."""
    conda = spec.conda or CondaSpec(channels=(CHANNEL,), dependencies=())
    if conda.explicit:
        raise UsageError(
            f"{spec.name} lists exact conda packages, which aren't solved",
            hint="begin with a new environment, or with the file that the list was made from",
        )
    return conda


def _managed(spec: Spec) -> Spec:
    """``spec`` as one that packages are installed in: also on an image that was taken as it is."""
    if spec.type is EnvironmentType.USER_MANAGED and isinstance(spec.base, ImageBaseSpec):
        return replace(spec, type=EnvironmentType.SYSTEM_MANAGED, user=spec.user or _USER)
    return spec


def _debian(spec: Spec) -> DebianBaseSpec:
    if spec.base is None:
        return DebianBaseSpec()
    if not isinstance(spec.base, DebianBaseSpec):
        raise UsageError(
            f"{spec.name} stands on an image, which no Debian package is added to",
            hint="leave the image out, or install the package in a Dockerfile",
        )
    return spec.base


def _missing(text: str, known: list[str], kind: str) -> UsageError:
    name = requirement_name(text)
    return UsageError(f"there is no {kind} {name}", hint=suggestion(name, known) or None)
