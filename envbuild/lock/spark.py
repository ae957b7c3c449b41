"""What ``runtime: spark`` adds to a spec: pyspark, and a Java runtime for it."""

from __future__ import annotations

import re
from dataclasses import replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuild.errors import ResolveError
from envbuild.specs.match import split_match
from envbuild.specs.model import (
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    ImageBaseSpec,
    Origin,
    PipRequirement,
    Runtime,
    Spec,
)

DEBIAN_JAVA = "default-jre-headless"
"""Of every suite: openjdk-17-jre-headless on bookworm, openjdk-21-jre-headless on trixie. Spark 4 wants
Java 17 or later, Spark 3.5 runs on 8, 11 and 17."""
CONDA_JAVA = "openjdk"
_PYSPARK = "pyspark"
_JAVA = re.compile(r"(default|openjdk-[0-9]+)-(jre|jdk)(-headless)?")
_ORIGIN = Origin(file="runtime: spark")


def spark_spec(spec: Spec) -> Spec:
    """``spec`` with what its runtime needs among its packages; the same where it isn't Spark.

    What the spec names itself is left as it is, whatever its version. Raises ``ResolveError`` for a base
    that can't be given a Java runtime. Nothing is added to a user-managed environment."""
    if spec.runtime is not Runtime.SPARK or spec.type is EnvironmentType.USER_MANAGED:
        return spec
    return _with_java(_with_pyspark(spec))


def _with_pyspark(spec: Spec) -> Spec:
    names = [_requirement_name(requirement.text) for requirement in spec.pip.requirements]
    if _PYSPARK in names or _PYSPARK in _conda_names(spec.conda):
        return spec
    added = PipRequirement(text=_PYSPARK, origin=_ORIGIN)
    return replace(spec, pip=replace(spec.pip, requirements=(*spec.pip.requirements, added)))


def _with_java(spec: Spec) -> Spec:
    base = spec.base
    debian = base.packages if isinstance(base, DebianBaseSpec) else ()
    if any(_JAVA.fullmatch(_debian_name(package)) for package in debian):
        return spec
    if spec.conda is not None:
        if CONDA_JAVA in _conda_names(spec.conda):
            return spec
        return replace(spec, conda=replace(spec.conda, dependencies=(*spec.conda.dependencies, CONDA_JAVA)))
    if base is None:
        return replace(spec, base=DebianBaseSpec(packages=(DEBIAN_JAVA,)))
    if isinstance(base, DebianBaseSpec):
        return replace(spec, base=replace(base, packages=(*base.packages, DEBIAN_JAVA)))
    if dict(spec.environment_variables).get("JAVA_HOME"):
        return spec
    title = base.reference if isinstance(base, ImageBaseSpec) else "a Dockerfile"
    raise ResolveError(
        f"{spec.source}: Spark needs a Java runtime, which can't be added to the image {title}",
        hint="add conda_file with openjdk, or use base: {debian: …}; where the image has Java, say where by "
        "JAVA_HOME in environment_variables",
    )


def _requirement_name(text: str) -> str:
    try:
        return canonicalize_name(Requirement(text).name)
    except InvalidRequirement:
        return ""


def _conda_names(conda: CondaSpec | None) -> frozenset[str]:
    return (
        frozenset(split_match(dependency).name for dependency in conda.dependencies) if conda else frozenset()
    )


def _debian_name(text: str) -> str:
    return text.partition("=")[0].partition(":")[0].strip()
