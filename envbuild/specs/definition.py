"""The definition digest: the identity of what was asked (docs/design.md §6).

Every field is named here; nothing is hashed because a model happens to have it. Name, version, description,
tags, and where a line was written don't count. Order counts only where it has a meaning: channels, package
indexes, and Maven repositories.
"""

from __future__ import annotations

from collections.abc import Iterable

from envbuild.oci.digest import canonical_digest, canonical_json
from envbuild.specs.model import (
    ActivationScripts,
    BaseSpec,
    BuildContextSpec,
    Bytecode,
    Clashes,
    CondaSpec,
    DebianBaseSpec,
    ImageBaseSpec,
    InferenceConfig,
    PipRequirement,
    PipSpec,
    Route,
    SparkSpec,
    Spec,
)

DEFINITION_FORMAT = 1


def definition_digest(spec: Spec) -> str:
    """The ``sha256:<hex>`` of everything in ``spec`` that can change an image."""
    return canonical_digest("definition", DEFINITION_FORMAT, canonical_definition(spec))


def canonical_definition(spec: Spec) -> dict[str, object]:
    """What the definition digest is computed over."""
    return {
        "type": spec.type.value,
        "runtime": spec.runtime.value,
        "platforms": sorted({str(platform) for platform in spec.platforms}),
        "python": spec.python,
        **({"python_provider": spec.python_provider.value} if spec.python_provider else {}),
        "base": _base(spec.base),
        "conda": _conda(spec.conda),
        "pip": _pip(spec.pip),
        "environment_variables": dict(spec.environment_variables),
        "spark": _spark(spec.spark),
        "inference_config": _inference(spec.inference_config),
        "user": spec.user,
        "as_of": spec.as_of.isoformat() if spec.as_of is not None else None,
        # Later keys: what says nothing has the digest it had before there were any.
        **({"activation": spec.activation.value} if spec.activation is not ActivationScripts.RUN else {}),
        **(
            {"system_requirements": [[item.name, item.version, item.platform] for item in requirements]}
            if (requirements := sorted(spec.system_requirements))
            else {}
        ),
        **({"clashes": spec.clashes.value} if spec.clashes is not Clashes.WARN else {}),
        **({"bytecode": spec.bytecode.value} if spec.bytecode is not Bytecode.CHECKED else {}),
    }


def _base(base: BaseSpec | None) -> dict[str, object] | None:
    if isinstance(base, DebianBaseSpec):
        return {"kind": "debian", "suite": base.suite, "packages": sorted(set(base.packages))}
    if isinstance(base, ImageBaseSpec):
        return {"kind": "image", "reference": base.reference}
    if isinstance(base, BuildContextSpec):
        # What the context holds, not where it stands.
        return {"kind": "build", "context": base.digest, "dockerfile_path": base.dockerfile_path}
    return None


def _conda(conda: CondaSpec | None) -> dict[str, object] | None:
    if conda is None:
        return None
    fields: dict[str, object] = {
        "channels": list(conda.channels),
        "dependencies": sorted(set(conda.dependencies)),
    }
    if not conda.add_pip:
        fields["add_pip"] = False
    if conda.explicit:
        fields["explicit"] = [
            [str(package.platform), package.url, package.sha256, package.md5]
            for package in sorted(conda.explicit)
        ]
    return fields


def _pip(pip: PipSpec) -> dict[str, object]:
    options: dict[str, list[str]] = {"indexes": [], "formats": [], "flags": []}
    for option in pip.options:
        name = option.split(" ", 1)[0]
        if name == "--trusted-host":
            continue
        if name in ("--no-binary", "--only-binary"):
            options["formats"].append(option)
        else:
            options["indexes" if " " in option else "flags"].append(option)
    fields: dict[str, object] = {
        "requirements": _requirements(pip.requirements),
        "constraints": _requirements(pip.constraints),
        "indexes": sorted(options["indexes"], key=_index_kind),
        "formats": options["formats"],
        "flags": sorted(set(options["flags"])),
    }
    if pip.complete:
        fields["complete"] = True
    if pip.index_strategy:
        fields["index_strategy"] = pip.index_strategy
    if pip.build.constraints:
        fields["build_constraints"] = _requirements(pip.build.constraints)
    if pip.build.extra:
        fields["extra_build_dependencies"] = {name: sorted(texts) for name, texts in pip.build.extra}
    if own := [[index.url, list(index.packages)] for index in pip.indexes if index.packages]:
        fields["package_indexes"] = sorted(own)
    return fields


def _index_kind(option: str) -> str:
    """Sorts by the option's name only: among options of one name the order written has a meaning."""
    return option.split(" ", 1)[0]


def _requirements(requirements: Iterable[PipRequirement]) -> list[list[object]]:
    unique = {requirement.canonical for requirement in requirements}
    return [[text, list(hashes)] for text, hashes in sorted(unique)]


def _spark(spark: SparkSpec | None) -> dict[str, object] | None:
    if spark is None:
        return None
    packages = [{"group": p.group, "artifact": p.artifact, "version": p.version} for p in spark.packages]
    return {
        "packages": sorted(packages, key=canonical_json),
        "repositories": list(spark.repositories),
        "precache_packages": spark.precache_packages,
    }


def _inference(config: InferenceConfig | None) -> dict[str, object] | None:
    if config is None:
        return None
    return {
        "liveness_route": _route(config.liveness_route),
        "readiness_route": _route(config.readiness_route),
        "scoring_route": _route(config.scoring_route),
    }


def _route(route: Route) -> dict[str, object]:
    return {"path": route.path, "port": route.port}
