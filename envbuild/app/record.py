"""What a build leaves in the workspace: the spec, its lock, and the images with their digests."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from pathlib import Path

from envbuild._version import __version__
from envbuild.app.environments import Workspace
from envbuild.app.lock import lock_directory
from envbuild.app.requests import BuildRequest, BuildResult
from envbuild.app.session import Session
from envbuild.errors import EnvbuildError
from envbuild.oci.digest import canonical_digest
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import Spec
from envbuild.workspace.base import NewImage

_log = logging.getLogger(__name__)
_MARKER_FORMAT = 2
_PATIENCE = 300.0
"""Seconds that a server which failed isn't asked to record another build."""


def record_build(session: Session, spec: Spec, request: BuildRequest, result: BuildResult) -> None:
    """Records ``result`` in the session's workspace, unless the settings say no. A workspace that can't be
    written is warned of: it never makes a build fail."""
    if not session.settings.record or session.settings.workspace is None:
        return
    recorded = _Recorded(session)
    try:
        if not recorded.is_away():
            recorded.record(spec, tuple(dict.fromkeys((*result.names, *request.tags))), result)
    except (EnvbuildError, OSError) as error:
        _log.warning("the build isn't recorded in the workspace: %s", error)
        recorded.note_away()


class _Recorded:
    """What was recorded before, by empty files below the store's metadata: a build with nothing to do then
    needs no database."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._workspace = session.workspace
        self._directory = session.store.root / "metadata" / "recorded"
        self._away = self._directory / f"away-{self._place}"

    def is_away(self) -> bool:
        """Whether a server isn't to be asked: offline, or it failed a moment ago. Waiting for it each time
        would slow down every build; what isn't recorded now is with the next build of the same."""
        if self._workspace.file is not None:
            return False
        if self._session.settings.offline:
            _log.info("offline: the build isn't recorded in the workspace")
            return True
        with contextlib.suppress(OSError):
            if 0 <= time.time() - self._away.stat().st_mtime < _PATIENCE:
                _log.warning("the build isn't recorded: the workspace's server failed a moment ago")
                return True
        return False

    def note_away(self) -> None:
        """Keeps in mind that the workspace's server failed now."""
        if self._workspace.file is None:
            with contextlib.suppress(OSError):
                self._away.parent.mkdir(parents=True, exist_ok=True)
                self._away.touch()

    def record(self, spec: Spec, names: tuple[str, ...], result: BuildResult) -> None:
        """Writes what isn't there yet. Raises ``WorkspaceError``."""
        if self._workspace.is_there and self._marker(spec, names, result).exists():
            return
        _write(self._workspace, spec, lock_directory(self._session, spec), names, result)
        # Only now, as the first record makes the database.
        marker = self._marker(spec, names, result)
        marker.parent.mkdir(parents=True, exist_ok=True)
        # For whoever looks into the store; that it is there is all that counts.
        marker.write_text(f"{result.reference}\n", encoding="utf-8")

    @property
    def _place(self) -> str:
        """The workspace as part of a file's name; a password of its URL has no part in it."""
        where = re.sub(r"(://[^:@/]*):[^@]*@", r"\1@", str(self._session.settings.workspace))
        return canonical_digest("workspace", _MARKER_FORMAT, where).removeprefix("sha256:")

    def _marker(self, spec: Spec, names: tuple[str, ...], result: BuildResult) -> Path:
        """The file that is there once all of this was recorded. Another workspace, or one made anew, has
        another."""
        file = self._workspace.file
        inode = file.stat().st_ino if file is not None and file.exists() else 0
        recorded = [self._place, inode, spec.name, sorted(names), result.digest]
        recorded.append(sorted([image.digest, image.level] for image in result.images))
        name = canonical_digest("recorded", _MARKER_FORMAT, recorded).removeprefix("sha256:")
        return self._directory / name


def _write(
    workspace: Workspace, spec: Spec, locks: Path, names: tuple[str, ...], result: BuildResult
) -> None:
    """Keeps an anonymous version of ``spec`` where it isn't registered, the lock it was built from, and every
    image. ``names`` are the images' names without a digest."""
    definition = definition_digest(spec)
    if any(image.definition_digest == definition for image in result.images):
        # Else the lock was used without a look at the spec, and answers another one.
        workspace.record(spec)
    lock = workspace.keep_lock(spec, locks)
    index = result.digest if len(result.images) > 1 else None
    for image in result.images:
        workspace.environments.add_image(
            NewImage(
                digest=image.digest,
                platform=str(image.platform),
                lock_digest=image.lock_digest,
                lock=lock.digest if lock and lock.definition == image.definition_digest else None,
                definition=image.definition_digest,
                level=image.level,
                references=names,
                indexes=(index,) if index else (),
                engine=result.engine,
                size=sum(layer.size for layer in image.layers),
                envbuild=__version__,
            )
        )
