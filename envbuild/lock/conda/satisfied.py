"""Whether conda pins still answer a spec, offline; and what they bring to a platform."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from envbuild.errors import ResolveError
from envbuild.lazy import lazy
from envbuild.lock.base import CondaTarget
from envbuild.lock.conda.channels import split_channel
from envbuild.lock.conda.records import record_of, split_depend, virtual_record
from envbuild.lock.model import CondaPin
from envbuild.platforms import Platform
from envbuild.specs.model import CondaSpec, SystemRequirement

if TYPE_CHECKING:
    import rattler
    from packaging import utils as packaging_utils
    from packaging import version as packaging_version
    from rattler import exceptions as rattler_exceptions
else:
    packaging_utils = lazy("packaging.utils")
    packaging_version = lazy("packaging.version")
    rattler = lazy("rattler")
    rattler_exceptions = lazy("rattler.exceptions")

_DISTRIBUTIONS = {
    "brotli-python": "brotli",
    "dask-core": "dask",
    "jupyter_core": "jupyter-core",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "pyarrow-core": "pyarrow",
    "pytables": "tables",
    "python-build": "build",
    "python-duckdb": "duckdb",
    "python-fastjsonschema": "fastjsonschema",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-kubernetes": "kubernetes",
    "python-lmdb": "lmdb",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "ray-core": "ray",
    "tensorflow-base": "tensorflow",
}
"""Conda names whose distribution has another name; one with the same name needs no entry."""
_LINUX = "5.10"
"""The oldest kernel promised to packages: what conda-lock assumes too; a container's is its host's."""


def unsatisfied_conda(
    spec: CondaSpec, pins: Sequence[CondaPin], target: CondaTarget | None = None
) -> list[str]:
    """One line for each requirement of the spec, or of a pin, that no pin or virtual package meets.

    Empty: the pins answer the spec. Needs no channel. ``channel::`` of a requirement is compared with
    the end of the pin's channel. Without ``target``, virtual packages are taken as met.

    Of an explicit list the pins must be exactly the packages; what these need besides is the list's affair,
    but for the base's glibc.
    """
    records = {pin.name: record_of(pin) for pin in pins}
    by_name = {pin.name: pin for pin in pins}
    virtual = {
        name: virtual_record(name, version)
        for name, version in (target.virtual_packages if target else {}).items()
    }

    def missing(condition: str) -> str | None:
        channel, condition = split_channel(condition)
        name = split_depend(condition)[0].lower()
        try:
            match = rattler.MatchSpec(condition, strict=False)
        except (rattler_exceptions.InvalidMatchSpecError, rattler_exceptions.InvalidChannelError) as error:
            return f"can't be read: {error}"
        if name.startswith("__"):
            if target is None or (name in virtual and match.matches(virtual[name])):
                return None
            return f"this platform has {name} {target.virtual_packages.get(name, 'not')}"
        if name not in records:
            return "is not in the lock"
        pin = by_name[name]
        if not match.matches(records[name]):
            return f"the lock has {pin.version} {pin.build}"
        if channel and pin.channel.rstrip("/").split("/")[-1] != channel.rstrip("/").split("/")[-1]:
            return f"the lock has it from {pin.channel}"
        return None

    problems = _unlisted(spec, pins, target)
    for dependency in spec.dependencies:
        reason = missing(dependency)
        if reason:
            problems.append(f"conda requirement {dependency}: {reason}")
    for pin in sorted(pins, key=lambda pin: pin.name):
        for depend in pin.depends:
            if spec.explicit and split_depend(depend)[0] != "__glibc":
                continue
            reason = missing(depend)
            if reason:
                problems.append(f"conda package {pin.name} {pin.version} needs {depend}: {reason}")
        for constraint in () if spec.explicit else pin.constrains:
            name = split_depend(constraint)[0]
            if name in records:
                reason = missing(constraint)
                if reason:
                    problems.append(
                        f"conda package {pin.name} {pin.version} allows only {constraint}: {reason}"
                    )
    return problems


def _unlisted(spec: CondaSpec, pins: Sequence[CondaPin], target: CondaTarget | None) -> list[str]:
    """How the pins differ from the spec's explicit list, if it has one."""
    if not spec.explicit:
        return []
    listed = {
        package.url: package
        for package in spec.explicit
        if target is None or package.platform == target.platform
    }
    locked = {pin.url: pin for pin in pins}
    problems = [f"conda package {url}: is not in the lock" for url in sorted(set(listed) - set(locked))]
    problems += [f"conda package {url}: is not in the list" for url in sorted(set(locked) - set(listed))]
    for url, package in sorted(listed.items()):
        pin = locked.get(url)
        if pin is None:
            continue
        if package.sha256 not in (None, pin.sha256) or (pin.md5 and package.md5 not in (None, pin.md5)):
            problems.append(f"conda package {url}: the lock has another hash than the list")
    return problems


def provided_distributions(pins: Iterable[CondaPin]) -> dict[str, str]:
    """The Python distributions (normalised name to version) that conda packages bring.

    What a pin says of itself counts (:attr:`CondaPin.distributions`). Else a package that depends on python
    is taken for the distribution of the same name, but for a few known to be called otherwise.
    """
    provided: dict[str, str] = {}
    for pin in pins:
        stated = [text.partition("==")[::2] for text in pin.distributions]
        for name, version in stated or _by_name(pin):
            provided.setdefault(name, version)
    return dict(sorted(provided.items()))


def _by_name(pin: CondaPin) -> list[tuple[str, str]]:
    if not is_python_package(pin):
        return []
    try:
        packaging_version.Version(pin.version)
    except packaging_version.InvalidVersion:
        return []
    name = str(packaging_utils.canonicalize_name(_DISTRIBUTIONS.get(pin.name, pin.name)))
    return [] if name in ("python-abi", "python") else [(name, pin.version)]


def is_python_package(pin: CondaPin) -> bool:
    """Whether the package depends on python."""
    return any(split_depend(depend)[0] == "python" for depend in pin.depends)


def with_distributions(pin: CondaPin, inside: Mapping[str, str]) -> CondaPin:
    """``pin`` with the distributions that are ``inside``, unless its name and version say that already."""
    stated = {name: str(packaging_version.Version(version)) for name, version in _by_name(pin)}
    if not inside or dict(inside) == stated:
        return pin
    return replace(pin, distributions=tuple(f"{name}=={version}" for name, version in sorted(inside.items())))


def virtual_packages(
    glibc: str | None,
    platform: Platform,
    environ: Mapping[str, str] | None = None,
    *,
    stated: Iterable[SystemRequirement] = (),
) -> dict[str, str]:
    """Conda's virtual packages of an image whose base has this glibc, name to version.

    ``__archspec`` has its build string behind ``=``. ``__cuda`` is there only where the spec says so
    (``stated``), or conda's own variable ``CONDA_OVERRIDE_CUDA``: it is a property of the machines an image
    will run on. Raises ``ResolveError`` for a glibc that the base doesn't have.
    """
    environ = os.environ if environ is None else environ
    packages = {
        "__archspec": f"1={platform.machine}",
        "__linux": _LINUX,
        "__unix": "0",
    }
    if glibc:
        packages["__glibc"] = glibc
    if environ.get("CONDA_OVERRIDE_CUDA"):
        packages["__cuda"] = environ["CONDA_OVERRIDE_CUDA"]
    for requirement in stated:
        if requirement.platform in ("", str(platform)):
            version = requirement.version
            packages[f"__{requirement.name}"] = f"1={version}" if requirement.name == "archspec" else version
    if glibc and packaging_version.Version(packages["__glibc"]) > packaging_version.Version(glibc):
        raise ResolveError(
            f"glibc {packages['__glibc']} is asked for on {platform}, and the base has {glibc}",
            hint="take a newer base, or ask for no more than it has",
        )
    return dict(sorted(packages.items()))
