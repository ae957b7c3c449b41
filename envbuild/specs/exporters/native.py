"""A spec as envbuild's own YAML, in one file that needs no other wherever that is possible."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from envbuild.oci.reference import is_local
from envbuild.specs.match import explicit_text
from envbuild.specs.model import (
    ActivationScripts,
    BuildContextSpec,
    Bytecode,
    Clashes,
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    ImageBaseSpec,
    InferenceConfig,
    PipRequirement,
    Runtime,
    SparkSpec,
    Spec,
    SystemRequirement,
)
from envbuild.specs.plugins import Exported
from envbuild.specs.text.yaml import dump_yaml

_USER = "1000:1000"
_EVEN_EMPTY = ("base", "description")
"""Keys that are written with nothing in them: a base with nothing chosen is not the lack of one."""
_LOCAL = re.compile(r"(?:^| @ )file:|^\.\.?(?:/|$)|^/")


def export_native(spec: Spec) -> Exported:
    """``envbuild.yaml``. Nothing of a spec is beyond it."""
    return Exported(
        files=(("envbuild.yaml", dump_native(spec).encode()),),
        names_context=isinstance(spec.base, BuildContextSpec),
    )


def dump_native(spec: Spec) -> str:
    """YAML that loads as a spec with the definition digest of ``spec``; conda file and requirements inline.

    What :func:`portable_problems` names stays relative to the spec's directory. A curated spec becomes a
    system-managed one: its copy is anyone's to change, and so has a definition of its own.
    """
    kind = EnvironmentType.SYSTEM_MANAGED if spec.type is EnvironmentType.CURATED else spec.type
    pip = spec.pip
    document: dict[str, object] = {
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "tags": dict(spec.tags),
        "type": kind.value,
        "runtime": spec.runtime.value if spec.runtime is not Runtime.PYTHON else None,
        "platforms": [str(platform) for platform in spec.platforms],
        "python": spec.python,
        "python_provider": spec.python_provider.value if spec.python_provider else None,
        **_base(spec),
        "conda_file": _conda(spec.conda),
        "requirements": [*pip_options(pip.options), *map(pip_line, pip.requirements)],
        "constraints": [pip_line(constraint) for constraint in pip.constraints],
        "build_constraints": [pip_line(constraint) for constraint in pip.build.constraints],
        "extra_build_dependencies": {name: list(texts) for name, texts in pip.build.extra},
        "requirements_complete": pip.complete or None,
        "index_strategy": pip.index_strategy,
        "system_requirements": _system_requirements(spec.system_requirements),
        "indexes": [
            {key: value for key, value in fields.items() if value}
            for index in pip.indexes
            for fields in [{"name": index.name, "url": index.url, "packages": list(index.packages)}]
        ],
        "environment_variables": dict(spec.environment_variables),
    }
    more = {
        "spark": _spark(spec.spark),
        "inference_config": inference_mapping(spec.inference_config),
        "user": spec.user if spec.user != _USER or kind is EnvironmentType.USER_MANAGED else None,
        "as_of": spec.as_of,
        "add_pip_as_python_dependency": False if spec.conda and not spec.conda.add_pip else None,
        "activation": spec.activation.value if spec.activation is not ActivationScripts.RUN else None,
        "clashes": spec.clashes.value if spec.clashes is not Clashes.WARN else None,
        "bytecode": spec.bytecode.value if spec.bytecode is not Bytecode.CHECKED else None,
    }
    kept = {
        key: value for key, value in document.items() if value or (key in _EVEN_EMPTY and value is not None)
    }
    return dump_yaml(kept | {key: value for key, value in more.items() if value not in (None, "")})


def _system_requirements(requirements: Sequence[SystemRequirement]) -> dict[str, object]:
    document: dict[str, object] = {}
    for requirement in requirements:
        if not requirement.platform:
            document[requirement.name] = requirement.version
            continue
        versions = document.setdefault(requirement.name, {})
        assert isinstance(versions, dict)
        versions[requirement.platform] = requirement.version
    return document


def portable_problems(spec: Spec) -> list[str]:
    """What of ``spec`` its YAML only names, so that it must be carried along or reached from elsewhere."""
    problems = []
    if isinstance(spec.base, BuildContextSpec):
        problems.append(f"build: the context {spec.base.path.as_posix()!r} stands beside the spec")
    if isinstance(spec.base, ImageBaseSpec) and is_local(spec.base.reference):
        problems.append(f"image: {spec.base.reference!r} lies on this machine")
    channels = spec.conda.channels if spec.conda is not None else ()
    for channel in channels:
        if _LOCAL.search(channel):
            problems.append(f"conda_file: the channel {channel!r} is a directory of this machine")
    for package in spec.conda.explicit if spec.conda is not None else ():
        if package.url.startswith("file:"):
            problems.append(f"conda_file: the package {package.url!r} is a file of this machine")
    for requirement in (*spec.pip.requirements, *spec.pip.constraints, *spec.pip.build.constraints):
        if _LOCAL.search(requirement.text):
            problems.append(f"requirements: {requirement.text!r} is a file beside the spec")
    for option in spec.pip.options:
        value = option.partition(" ")[2]
        if option.startswith("--find-links ") and not re.match(r"https?:|\$\{", value):
            problems.append(f"requirements: --find-links {value!r} is a directory of this machine")
    if spec.type is EnvironmentType.CURATED:
        problems.append("type: a copy of a curated environment is system-managed")
    return problems


def pip_line(requirement: PipRequirement) -> str:
    """A requirement as a line of a requirements file, with its hashes."""
    return " ".join((requirement.text, *(f"--hash={digest}" for digest in requirement.hashes)))


def pip_options(options: tuple[str, ...]) -> list[str]:
    """Options as lines of a requirements file; a value with spaces or quotes stands in quotes."""
    return [_option(option) for option in options]


def _option(option: str) -> str:
    name, space, value = option.partition(" ")
    return name + space + (shlex.quote(value) if re.search(r"[\s'\"\\]", value) else value)


def _base(spec: Spec) -> dict[str, object]:
    base = spec.base
    if isinstance(base, ImageBaseSpec):
        return {"image": base.reference}
    if isinstance(base, DebianBaseSpec):
        parts = {"debian": base.suite, "packages": list(base.packages)}
        return {"base": {key: value for key, value in parts.items() if value}}
    if isinstance(base, BuildContextSpec):
        return {"build": {"path": base.path.as_posix(), "dockerfile_path": base.dockerfile_path}}
    return {}


def _conda(conda: CondaSpec | None) -> dict[str, object] | None:
    if conda is None:
        return None
    if not conda.explicit:
        return {"channels": list(conda.channels), "dependencies": list(conda.dependencies)}
    explicit: dict[str, list[str]] = {}
    for package in conda.explicit:
        explicit.setdefault(package.platform.subdir, []).append(explicit_text(package))
    return {"channels": list(conda.channels), "explicit": explicit}


def _spark(spark: SparkSpec | None) -> dict[str, object] | None:
    if spark is None:
        return None
    packages = [{"group": p.group, "artifact": p.artifact, "version": p.version} for p in spark.packages]
    return {
        "packages": packages,
        "repositories": list(spark.repositories),
        "precache_packages": spark.precache_packages,
    }


def inference_mapping(config: InferenceConfig | None) -> dict[str, object] | None:
    """The three routes as YAML has them."""
    if config is None:
        return None
    routes = {
        "liveness_route": config.liveness_route,
        "readiness_route": config.readiness_route,
        "scoring_route": config.scoring_route,
    }
    return {name: {"path": route.path, "port": route.port} for name, route in routes.items()}
