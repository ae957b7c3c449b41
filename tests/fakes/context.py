"""A renderer whose Dockerfile a test writes by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from envbuild.oci.digest import canonical_digest
from envbuild.plan.model import Plan
from envbuild.render.base import BuildContext, ContextFile


@dataclass
class HandRenderer:
    """Renders ``dockerfile`` and ``files``, whatever the plan."""

    dockerfile: str
    files: Sequence[ContextFile] = ()
    labels: tuple[tuple[str, str], ...] = ()
    offline: bool = False
    reasons: Sequence[str] = ()
    asked: list[bool] = field(default_factory=list)

    def unable(self, plan: Plan) -> list[str]:
        return list(self.reasons)

    def describe(self, plan: Plan, engine: str) -> Plan:
        digest = canonical_digest("hand", 1, [plan.lock_digest, engine, self.dockerfile])
        return replace(plan, lock_digest=digest, level="L2")

    def context(self, plan: Plan, *, offline: bool) -> BuildContext:
        self.asked.append(offline)
        own = ContextFile(path="Dockerfile", content=self.dockerfile.encode())
        files = sorted((own, *self.files), key=lambda each: each.path)
        return BuildContext(files=tuple(files), labels=self.labels, offline=self.offline)
