"""The plan of a base alone: what a Dockerfile starts from where no registry has the image."""

from __future__ import annotations

from dataclasses import replace

from envbuild.lock.model import DebianBase, PlatformLock
from envbuild.oci.digest import canonical_digest
from envbuild.plan.make import generated
from envbuild.plan.model import Artifact, ArtifactKind, Plan, PlannedLayer
from envbuild.plan.system import system_files

_ROOT = "0:0"


def base_plan(plan: Plan, stage: PlatformLock | None = None) -> Plan:
    """The Debian base of ``plan`` as one layer, with the users and links of its image; or that of ``stage``,
    which a stage of a Dockerfile stands on. Always gzip, because every builder unpacks that."""
    if stage is None:
        artifacts = tuple(
            artifact
            for artifact in plan.artifacts
            if artifact.kind is ArtifactKind.DEBIAN or artifact.name == "system"
        )
        base, python, bytecode = plan.base, plan.python, plan.bytecode
    else:
        assert isinstance(stage.base, DebianBase)
        base, python, bytecode = stage.base, stage.python, False
        packages = map(Artifact.of, stage.base.packages)
        artifacts = (*packages, generated("system", system_files(stage.base, _ROOT)))
    return replace(
        plan,
        lock_digest=canonical_digest(
            "base-archive", 1, [plan.lock_digest, [artifact.sha256 for artifact in artifacts], bytecode]
        ),
        base=base,
        python=python,
        bytecode=bytecode,
        layers=(PlannedLayer(name="base", artifacts=artifacts),),
        config=replace(plan.config, env=(), labels=(), exposed_ports=(), user="", working_dir=""),
        compression="gzip",
    )
