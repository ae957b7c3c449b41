"""What was asked of a lock, and whether the one that is there answers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from envbuild.lock.base import Upgrade
from envbuild.lock.model import Lock
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRequest:
    """What ``envbuild lock`` was asked."""

    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    as_of: date | None = None
    bytecode: bool | None = None
    """None: what the present lock says, else on."""
    dry_run: bool = False

    @property
    def resolver_upgrade(self) -> Upgrade:
        return Upgrade(everything=self.upgrade, packages=frozenset(self.upgrade_packages))


def what_stays(spec: Spec) -> tuple[str, ...]:
    """What an upgrade can't move, a sentence each: pins that the spec takes from another lock."""
    kinds = [
        *(["conda packages"] if spec.conda is not None and spec.conda.explicit else []),
        *(["Python distributions"] if spec.pip.complete else []),
    ]
    return tuple(
        f"{spec.source.name}: its {kind} are pinned there and stay; upgrade that file, then lock again"
        for kind in kinds
    )


def answers(lock: Lock, spec: Spec, request: LockRequest) -> bool:
    """Whether ``lock`` can stay exactly as it is."""
    return (
        lock.definition == definition_digest(spec)
        and not request.upgrade
        and not request.upgrade_packages
        and (request.bytecode is None or request.bytecode == lock.bytecode)
        and (request.as_of is None or request.as_of.isoformat() == lock.as_of)
    )
