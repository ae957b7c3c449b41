"""The runners of commands: the one that is chosen, and that of a Docker engine, which does as ``docker run
--rm``."""

from __future__ import annotations

import os
from collections.abc import Mapping

from envbuild.docker.client import NoEngine, connect
from envbuild.docker.container import Container, run_container
from envbuild.errors import PublishError, RunError, UsageError
from envbuild.images.sinks.daemon import load
from envbuild.progress import Progress
from envbuild.run.command import WORKDIR, Command, CommandRunner, Mount, argv, environment, image_config
from envbuild.run.signals import forwarding
from envbuild.run.userns import UsernsRunner
from envbuild.store.content import Store


class ContainerRunner:
    """The command runs as the caller's user and group, so that what it writes belongs to the caller.

    A terminal is given where standard input and output are one. Directories are mounted by the engine:
    with one on another machine, they are that machine's."""

    name = "docker"

    def __init__(self, store: Store, progress: Progress, environ: Mapping[str, str]) -> None:
        self._store = store
        self._progress = progress
        self._environ = environ

    def available(self) -> str | None:
        client = connect(self._environ)
        if isinstance(client, NoEngine):
            return client.reason
        client.close()
        return None

    def run(self, command: Command) -> int:
        config = image_config(command.image, self._store)
        argv(config, command)  # Raises where there is no command at all.
        client = connect(self._environ)
        if isinstance(client, NoEngine):
            raise RunError(client.reason, hint=client.hint)
        mounts = list(command.mounts)
        if command.workdir is not None:
            mounts.insert(0, Mount(source=command.workdir, target=WORKDIR))
        try:
            container = Container(
                image=load(client, command.image, (), self._store, self._progress),
                arguments=command.arguments,
                environment=environment(config, command),
                binds=[(str(mount.source.resolve()), str(mount.target), mount.read_only) for mount in mounts],
                working_dir=str(WORKDIR) if command.workdir is not None else None,
                user=f"{os.getuid()}:{os.getgid()}",
                network=command.network,
            )
            return run_container(client, container, forwarding)
        except PublishError as error:
            raise RunError(error.message, hint=error.hint) from error
        finally:
            client.close()


BACKENDS = ("auto", "docker", "userns")


def runner(backend: str, store: Store, progress: Progress, environ: Mapping[str, str]) -> CommandRunner:
    """The runner named ``docker`` or ``userns``; for ``auto`` Docker where an engine answers, else a user
    namespace. Raises ``RunError`` with the reason of each that can't work here."""
    candidates: dict[str, CommandRunner] = {
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
