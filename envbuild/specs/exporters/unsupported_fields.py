"""What of a spec a format can't carry: each field that says something, a line each."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from envbuild.platforms import LINUX_AMD64
from envbuild.specs.exporters.native import portable_problems
from envbuild.specs.model import (
    ActivationScripts,
    Bytecode,
    Clashes,
    DebianBaseSpec,
    EnvironmentType,
    Runtime,
    Spec,
)

_USER = "1000:1000"


def beyond(spec: Spec, carried: Collection[str]) -> tuple[str, ...]:
    """The fields of ``spec`` that aren't ``carried``, and what its files only name.

    ``carried`` holds keys of envbuild's own YAML; what a format carries in part it says itself.
    """
    return (*(line for key, line in _lines(spec) if key not in carried), *portable_problems(spec))


def _lines(spec: Spec) -> Iterator[tuple[str, str]]:
    if spec.version is not None:
        yield "version", "version"
    if spec.description:
        yield "description", "description"
    if spec.tags:
        yield "tags", f"tags: {', '.join(key for key, _ in spec.tags)}"
    if spec.type is EnvironmentType.USER_MANAGED:
        yield "type", "type: user-managed, so nothing of it is installed"
    if spec.runtime is not Runtime.PYTHON:
        yield "runtime", f"runtime: {spec.runtime.value}"
    if spec.platforms != (LINUX_AMD64,):
        yield "platforms", f"platforms: {', '.join(map(str, spec.platforms))}"
    if spec.python is not None:
        yield "python", f"python: {spec.python}"
    if spec.python_provider is not None:
        yield "python_provider", f"python_provider: {spec.python_provider.value}"
    if isinstance(spec.base, DebianBaseSpec):
        chosen = ", ".join(filter(None, (spec.base.suite, *spec.base.packages)))
        yield "base", f"base: Debian{' with ' + chosen if chosen else ''}"
    elif spec.base is not None:
        yield "base", "image" if spec.type is EnvironmentType.SYSTEM_MANAGED else "image or build"
    if spec.conda is not None:
        yield "conda_file", "conda_file: the packages of conda"
        if spec.conda.explicit:
            yield "explicit", "conda_file.explicit: the hashes and platforms of exact packages"
    if spec.pip.requirements or spec.pip.options:
        yield "requirements", "requirements"
    if spec.pip.constraints:
        yield "constraints", "constraints"
    if spec.pip.build.constraints or spec.pip.build.extra:
        yield "build_constraints", "build_constraints, extra_build_dependencies"
    if spec.pip.complete:
        yield "requirements_complete", "requirements_complete: more may be installed than is listed"
    if spec.pip.index_strategy:
        yield "index_strategy", f"index_strategy: {spec.pip.index_strategy}"
    for index in spec.pip.indexes:
        yield "indexes", f"indexes: {', '.join(index.packages) or index.name} of {index.url}"
    if spec.environment_variables:
        names = ", ".join(name for name, _ in spec.environment_variables)
        yield "environment_variables", f"environment_variables: {names}"
    if spec.spark is not None:
        yield "spark", "spark"
    if spec.inference_config is not None:
        yield "inference_config", "inference_config"
    if spec.user not in ("", _USER) or (spec.user and spec.type is EnvironmentType.USER_MANAGED):
        yield "user", f"user: {spec.user}"
    if spec.as_of is not None:
        yield "as_of", f"as_of: {spec.as_of.isoformat()}"
    if spec.activation is not ActivationScripts.RUN:
        yield "activation", f"activation: {spec.activation.value}"
    if spec.conda is not None and not spec.conda.add_pip:
        yield "add_pip_as_python_dependency", "add_pip_as_python_dependency: false"
    if spec.system_requirements:
        yield "system_requirements", "system_requirements: what the machines have"
    if spec.clashes is not Clashes.WARN:
        yield "clashes", f"clashes: {spec.clashes.value}"
    if spec.bytecode is not Bytecode.CHECKED:
        yield "bytecode", f"bytecode: {spec.bytecode.value}"
