"""Settings: flag > ``ENVBUILD_*`` > ``pyproject.toml [tool.envbuild]`` or ``envbuild.toml`` > XDG config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything about this machine and this call that is not in a spec. Never part of an identity,
    but for ``compression``, ``layer_budget`` and ``source_date_epoch``, which the plan carries."""

    cache_dir: Path
    debian_mirror: str | None = None
    """Root of a Debian archive (``https://…/debian``); None: from the machine's apt configuration."""
    debian_security_mirror: str | None = None
    debian_snapshot: str | None = None
    """Root of a snapshot archive, tried when a pinned .deb has left the mirror, and by ``as_of``."""
    offline: bool = False
    workers: int | None = None
    """Parallel workers; None: one a core."""
    layer_budget: int = 40
    compression: str = "gzip"
    pip_engine: str = "uv"
    conda_engine: str = "rattler"
    lock_dir: Path | None = None
    """Where lock directories stand; None: ``lockfiles/`` beside the spec."""
    source_date_epoch: int = 0
    """Seconds since the epoch; SOURCE_DATE_EPOCH."""
    ca_bundle: Path | None = None
    """SSL_CERT_FILE; None: the system's."""
