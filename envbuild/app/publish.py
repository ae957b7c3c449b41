"""Where images are brought: files, a Docker engine, repositories of registries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from envbuild.app.session import Session
from envbuild.errors import UsageError
from envbuild.images.repository import PushTarget, push_target
from envbuild.lazy import lazy
from envbuild.oci.image import ImageSet
from envbuild.platforms import Platform

if TYPE_CHECKING:
    from envbuild.attest import attach
    from envbuild.attest.attach import Attachments
    from envbuild.images.sinks import archive, choose, daemon
else:
    attach = lazy("envbuild.attest.attach")
    archive = lazy("envbuild.images.sinks.archive")
    choose = lazy("envbuild.images.sinks.choose")
    daemon = lazy("envbuild.images.sinks.daemon")

_ONE_PLATFORM = "docker-archive:"
DAEMON = "docker"
"""The name of the engine among sinks."""


def sinks_of(session: Session, outputs: Sequence[str], *, load: bool) -> dict[str, Callable[[ImageSet], str]]:
    """What brings an image to each of ``outputs`` (``-o``) and, with ``load``, into the engine."""
    store, progress = session.store, session.progress
    sinks: dict[str, Callable[[ImageSet], str]] = {
        output: choose.output_sink(output, store, progress).publish for output in outputs
    }
    if load:
        sinks[DAEMON] = daemon.DaemonSink(store, progress, session.environ).publish
    return sinks


def check_outputs(outputs: Sequence[str], platforms: Sequence[Platform]) -> None:
    """Raises ``PublishError`` where an output can't hold ``platforms``, before anything is built for it."""
    if any(output.startswith(_ONE_PLATFORM) for output in outputs):
        archive.one_platform(platforms)


def push_targets(session: Session, push: Sequence[str]) -> tuple[PushTarget, ...]:
    """What each ``REPO[:TAG]`` of ``--push`` means. Raises ``UsageError``, also for any in an offline run."""
    if push and session.settings.offline:
        raise UsageError("an offline run can't push", hint="leave out --push or --offline")
    return tuple(dict.fromkeys(push_target(text, session.settings.registry) for text in push))


def attachments_of(session: Session) -> Attachments | None:
    """What a push attaches and signs; None: nothing. Raises ``UsageError`` for a key that is no use."""
    return attach.attachments(
        session.registry,
        session.store,
        session.progress,
        attest=session.settings.attest,
        sign_key=session.settings.sign_key,
        environ=session.environ,
        clock=time.time,
    )


def engine_platform(session: Session) -> Platform:
    """What the Docker engine runs. Raises ``PublishError`` where there is no engine."""
    return daemon.engine_platform(session.environ)


def loaded_reference(session: Session, image_set: ImageSet, pinned: str) -> str:
    """What the engine resolves to what it has loaded, ``pinned`` if it can. Raises ``PublishError``."""
    return daemon.loaded_reference(image_set, pinned, session.environ)
