"""Whether pip pins answer what was asked, looked at without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envbuild.lock.base import PipTarget
from envbuild.lock.model import PipPin
from envbuild.lock.sdist import source_pin
from envbuild.specs.model import PipRequirement, PipSpec


def marker_environment(target: PipTarget) -> dict[str, str]:
    """The values PEP 508 markers are evaluated with for ``target``; it is never this machine's."""
    short = ".".join(target.python.split(".")[:2])
    return {
        "implementation_name": "cpython",
        "implementation_version": target.python,
        "os_name": "posix",
        "platform_machine": target.platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": target.python,
        "python_version": short,
        "sys_platform": "linux",
    }


def unsatisfied_pip(
    spec: PipSpec, pins: Sequence[PipPin], target: PipTarget, provided: Mapping[str, str] | None = None
) -> list[str]:
    """A reason for each requirement, constraint, hash or address that no pin meets; empty if all are met.

    Only what was asked for itself can be checked: what a distribution (or one of its extras) needs is
    written inside it. Of a complete list nothing else may be pinned."""
    by_name: dict[str, PipPin] = {pin.name: pin for pin in pins}
    by_conda: dict[str, str] = {
        canonicalize_name(name): version for name, version in (provided or {}).items()
    }
    reasons = []
    for name in sorted(set(by_name) & set(by_conda)):
        reasons.append(
            f"{name} is pinned for pip ({by_name[name].version}) though conda installs {by_conda[name]}"
        )
    listed = _applicable(spec.requirements, target, reasons)
    if spec.complete:
        names = {canonicalize_name(requirement.name) for _, requirement in listed}
        reasons += [f"{name} is pinned, but isn't in the list" for name in sorted(set(by_name) - names)]
    for line, requirement in listed:
        name = canonicalize_name(requirement.name)
        if name in by_name:
            reasons += _mismatches(line, requirement, by_name[name])
        elif name in by_conda:
            reasons += _outside(line, requirement, by_conda[name], "conda installs")
        else:
            reasons.append(f"{line.text} ({line.origin}): nothing is pinned for it")
    for line, requirement in _applicable(spec.constraints, target, reasons):
        name = canonicalize_name(requirement.name)
        if name in by_name:
            reasons += _mismatches(line, requirement, by_name[name])
        elif name in by_conda:
            reasons += _outside(line, requirement, by_conda[name], "conda installs")
    return reasons


def _applicable(
    lines: Iterable[PipRequirement], target: PipTarget, reasons: list[str]
) -> list[tuple[PipRequirement, Requirement]]:
    environment = marker_environment(target)
    applicable = []
    for line in lines:
        try:
            requirement = Requirement(line.text)
        except InvalidRequirement as error:
            reasons.append(f"{line.text} ({line.origin}): {str(error).splitlines()[0]}")
            continue
        if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""}):
            applicable.append((line, requirement))
    return applicable


def _mismatches(line: PipRequirement, requirement: Requirement, pin: PipPin) -> list[str]:
    if requirement.url is not None and pin.url != requirement.url:
        where = f"from {pin.url}" if pin.url else "from an index"
        return [f"{line.text} ({line.origin}): {pin.name} {pin.version} is pinned {where}"]
    # A hash of the spec is of a file that an index has: of a wheel that was built, its sdist.
    if line.hashes and f"sha256:{source_pin(pin).sha256}" not in line.hashes:
        return [f"{line.text} ({line.origin}): the pinned {pin.file} has none of its hashes"]
    return _outside(line, requirement, pin.version, "pinned is")


def _outside(line: PipRequirement, requirement: Requirement, version: str, how: str) -> list[str]:
    if not str(requirement.specifier):
        return []
    try:
        met = requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        met = f"=={version}" in str(requirement.specifier).split(",")
    return [] if met else [f"{line.text} ({line.origin}): {how} {requirement.name} {version}"]
