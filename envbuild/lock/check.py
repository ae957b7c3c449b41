"""Whether a lock answers a spec, without a network."""

from __future__ import annotations

from envbuild.lock.base import CondaTarget, PipTarget
from envbuild.lock.conda.satisfied import provided_distributions, unsatisfied_conda, virtual_packages
from envbuild.lock.make import context_base, runtime_settings
from envbuild.lock.model import ContextBase, DebianBase, ImageBase, Lock, PlatformLock, base_title, glibc_of
from envbuild.lock.pip.satisfied import unsatisfied_pip
from envbuild.lock.python.choice import matches_python
from envbuild.lock.spark import spark_spec
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import BuildContextSpec, DebianBaseSpec, EnvironmentType, ImageBaseSpec, Spec


def lock_problems(spec: Spec, lock: Lock) -> list[str]:
    """Every reason why ``lock`` doesn't answer ``spec``; empty where it does.

    Each requirement is looked at on its own, so that the list says what is missing rather than only
    that something changed; the definition digest then catches whatever is left."""
    problems = []
    whole = spark_spec(spec)
    for platform in spec.platforms:
        pins = lock.platform(platform)
        if pins is None:
            problems.append(f"{platform}: not locked")
        else:
            problems += [f"{platform}: {problem}" for problem in _platform_problems(whole, pins)]
    problems += [
        f"{pins.platform}: locked, but no longer asked for"
        for pins in lock.platforms
        if pins.platform not in spec.platforms
    ]
    if lock.runtime != runtime_settings(spec):
        problems.append("environment variables, user or routes differ from the lock's")
    if not problems and lock.definition != definition_digest(spec):
        problems.append("the spec's definition changed after the lock was made")
    return problems


def _platform_problems(spec: Spec, pins: PlatformLock) -> list[str]:
    problems = _base_problems(spec, pins)
    if spec.type is EnvironmentType.USER_MANAGED:
        return problems  # What it lists is looked for in the image; no lock has it.
    if spec.python is not None and (
        pins.python is None or not matches_python(spec.python, pins.python.version)
    ):
        locked = pins.python.version if pins.python else "none"
        problems.append(f"python {spec.python} is asked for, {locked} is locked")
    glibc = glibc_of(pins.base)
    if spec.conda is not None:
        virtual = virtual_packages(glibc, pins.platform, stated=spec.system_requirements)
        target = CondaTarget(platform=pins.platform, virtual_packages=virtual)
        problems += unsatisfied_conda(spec.conda, pins.conda, target)
    if spec.pip.requirements and pins.python is not None:
        problems += unsatisfied_pip(
            spec.pip,
            pins.pip,
            PipTarget(platform=pins.platform, python=pins.python.version, glibc=glibc),
            provided_distributions(pins.conda),
        )
    return problems + _maven_problems(spec, pins)


def _maven_problems(spec: Spec, pins: PlatformLock) -> list[str]:
    """Packages without a jar. Another package may have forced a later version, so the name alone counts."""
    if spec.spark is None or not spec.spark.precache_packages or spec.type is EnvironmentType.USER_MANAGED:
        return []
    locked = {pin.name for pin in pins.maven}
    names = (f"{package.group}:{package.artifact}" for package in spec.spark.packages)
    return [f"the Maven package {name} isn't locked" for name in names if name not in locked]


def _base_problems(spec: Spec, pins: PlatformLock) -> list[str]:
    base = pins.base
    if isinstance(spec.base, ImageBaseSpec):
        if not isinstance(base, ImageBase):
            return [f"image {spec.base.reference} is asked for, {base_title(base)} is locked"]
        return []
    if isinstance(spec.base, BuildContextSpec):
        if not isinstance(base, ContextBase) or base.dockerfile != spec.base.dockerfile_path:
            requested = base_title(context_base(spec.base))
            return [f"{requested} is asked for, {base_title(base)} is locked"]
        return ["the build context changed"] if base.digest != spec.base.digest else []
    if not isinstance(spec.base, DebianBaseSpec):
        return []
    if not isinstance(base, DebianBase):
        return [f"Debian is asked for, {base_title(base)} is locked"]
    problems = []
    if spec.base.suite not in (None, base.suite):
        problems.append(f"Debian {spec.base.suite} is asked for, {base.suite} is locked")
    locked = {pin.name for pin in base.packages}
    names = (package.split("=")[0].split(":")[0].strip() for package in spec.base.packages)
    problems += [f"the Debian package {name} isn't locked" for name in names if name not in locked]
    return problems
