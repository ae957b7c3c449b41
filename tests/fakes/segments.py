"""Caches of segments as a call has them, with a listener that remembers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from envbuild.cache.segments import SharedSegments, cache_repository
from envbuild.progress import Progress
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.base import Remote
from envbuild.registry.client import RegistryClient, RegistryOptions
from envbuild.store.content import Store


def shared_segments(
    home: Path, progress: Progress, *readers: str, writer: str | None = None, patience: float = 20.0
) -> SharedSegments:
    """The caches, over clients that know the logins of ``home`` and ask once."""

    def client(store: Store, progress: Progress) -> AbstractContextManager[Remote]:
        environ = {"HOME": str(home), "PATH": str(home / "bin")}
        return RegistryClient(
            store,
            progress,
            RegistryCredentials(environ),
            environ=environ,
            options=RegistryOptions(hurried=True),
        )

    return SharedSegments(
        readers=[cache_repository(reader) for reader in readers],
        writer=cache_repository(writer) if writer else None,
        reading=client,
        writing=client,
        progress=progress,
        patience=patience,
    )
