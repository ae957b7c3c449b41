"""Opens a workspace; imports the database's library only then."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from envbuild.workspace.base import EnvironmentStore


def open_registry(
    location: str | Path,
    *,
    actor: str,
    clock: Callable[[], datetime] | None = None,
    own: Path | None = None,
) -> EnvironmentStore:
    """The registry in a file of SQLite or behind an SQLAlchemy URL.

    A file that isn't there is made, and an older schema brought up to date, when the registry is first used.
    Then nobody else can read the file, nor the directory ``own`` where it lies there.
    ``actor`` is who the history says did it. Raises ``WorkspaceError`` for a URL that can't be one.
    """
    from envbuild.workspace.sql import SqlEnvironmentStore

    return SqlEnvironmentStore(location, actor=actor, clock=clock or _now, own=own)


def actor_of(env: Mapping[str, str]) -> str:
    """The name of whoever runs this, for the history: as ``getpass`` finds it, from ``env``."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if env.get(variable):
            return env[variable][:255]
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run as a user that no one named.
        return f"uid {os.getuid()}"


def _now() -> datetime:
    return datetime.now(timezone.utc)
