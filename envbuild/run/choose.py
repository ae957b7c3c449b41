"""Which runner a command gets."""

from __future__ import annotations

from collections.abc import Mapping

from envbuild.errors import RunError, UsageError
from envbuild.progress import Progress
from envbuild.run.base import Runner
from envbuild.run.container import ContainerRunner
from envbuild.run.userns import UsernsRunner
from envbuild.store.content import Store

BACKENDS = ("auto", "docker", "userns")


def runner(backend: str, store: Store, progress: Progress, environ: Mapping[str, str]) -> Runner:
    """The runner named ``docker`` or ``userns``; for ``auto`` Docker where an engine answers, else a user
    namespace. Raises ``RunError`` with the reason of each that can't work here."""
    candidates: dict[str, Runner] = {
        "docker": ContainerRunner(store, progress, environ),
        "userns": UsernsRunner(store, progress),
    }
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}", hint=f"known: {', '.join(BACKENDS)}")
    reasons = []
    for name, candidate in candidates.items():
        if backend in ("auto", name):
            reason = candidate.available()
            if reason is None:
                return candidate
            reasons.append(f"{name}: {reason}")
    raise RunError(
        "nothing here can run a command in an image:\n" + "\n".join(reasons),
        hint="start a Docker engine, or use Linux with user namespaces",
    )
