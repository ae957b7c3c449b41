"""The pipeline of one workspace: specs may be named by their registered version, and builds are recorded."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from envbuild.app.pipeline import Pipeline
from envbuild.app.requests import BuildRequest, BuildResult, LockResult
from envbuild.app.workspace import Reference, Workspace
from envbuild.errors import EnvbuildError, SpecError
from envbuild.lock.model import Lock
from envbuild.lock.request import LockRequest
from envbuild.oci.digest import canonical_digest
from envbuild.oci.image import Image
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import Spec

_log = logging.getLogger(__name__)
_MARKER_FORMAT = 2
_LONGEST_TAG = 128
"""Characters (distribution-spec)."""
_PATIENCE = 300.0
"""Seconds that a server which failed isn't asked to record another build."""
_SUFFIXES = (".yaml", ".yml", ".txt", ".in", ".toml", ".json", ".py", ".lock")


class WorkspacePipeline(Pipeline):
    """A pipeline that knows the workspace of its settings, where they name one."""

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        workspace: Workspace | None = None,
    ) -> None:
        super().__init__(settings, progress, environ=environ, clock=clock)
        self._borrowed = workspace is not None
        self.workspace = workspace or Workspace(settings, environ=environ)

    def __enter__(self) -> WorkspacePipeline:
        return self

    def close(self) -> None:
        super().close()
        if not self._borrowed:
            self.workspace.close()

    def load(self, spec: str) -> Spec:
        """The spec at a path; else the workspace's version of that name; else the curated one. Raises
        ``SpecError`` with the nearest names of all three."""
        found = self._registered(spec)
        if found is None:
            try:
                found = super().load(spec)
            except SpecError as error:
                raise self._unknown(spec) or error from None
        for line in found.left_out:
            self.progress.note(f"left out: {line}")
        return found

    def _registered(self, text: str) -> Spec | None:
        if _is_there(text) or Reference.of(text) is None:
            return None
        version = self.workspace.find(text)
        return self.workspace.spec(version) if version is not None else None

    def _unknown(self, text: str) -> SpecError | None:
        """What is said where ``text`` could have been a name; None where it can only be a path."""
        named = Reference.of(text)
        if named is None or _is_there(text) or text.endswith(_SUFFIXES):
            return None
        from difflib import get_close_matches

        from envbuild.specs.catalogue import curated_names

        known = {*self.workspace.names(), *curated_names()}
        with contextlib.suppress(OSError):
            known |= {path.name for path in Path().iterdir() if not path.name.startswith(".")}
        near = get_close_matches(named.name, sorted(known), n=3)
        return SpecError(
            f"{text}: no such file or directory, and no environment of that name",
            hint=f"did you mean {' or '.join(near)}?" if near else "envbuild env list shows what there is",
        )

    def lock(self, spec: Spec, request: LockRequest) -> LockResult:
        """As of any pipeline; the lock of a registered version also goes into the workspace."""
        result = super().lock(spec, request)
        if result.written and self._is_registered(spec):
            self.workspace.keep_lock(spec, result.directory)
        return result

    def _is_registered(self, spec: Spec) -> bool:
        return spec.directory.parent == self._parts.store.root / "metadata" / "versions"

    def build(self, spec: Spec, request: BuildRequest) -> BuildResult:
        """As of any pipeline; what was built is recorded, which never makes it fail."""
        result = super().build(spec, request)
        if self.settings.record and self.settings.workspace is not None:
            away = self._recorded / f"away-{self._place}"
            try:
                if not self._is_away(away):
                    self._record(spec, request, result)
            except (EnvbuildError, OSError) as error:
                _log.warning("the build isn't recorded in the workspace: %s", error)
                if self.workspace.file is None:
                    with contextlib.suppress(OSError):
                        away.parent.mkdir(parents=True, exist_ok=True)
                        away.touch()
        return result

    def moving_tags(self, spec: Spec, lock: Lock, images: Sequence[Image]) -> tuple[str, ...]:
        """``v<version>`` of a registered version, and ``latest`` where it is the newest: of images for all
        its platforms, since nobody who asks for a version should miss one."""
        platforms = {pins.platform for pins in lock.platforms}
        if (
            spec.version is None
            or not self._is_registered(spec)
            or {image.platform for image in images} != platforms
        ):
            return ()
        if any(image.definition_digest != definition_digest(spec) for image in images):
            # The lock was used without a look at the spec, and answers another one.
            return ()
        tag = f"v{spec.version}"
        newest = self.workspace.registry.get(spec.name)
        found = (tag, *(("latest",) if newest.version == spec.version else ()))
        if len(tag) > _LONGEST_TAG:
            self.progress.note(f"the version {spec.version} is too long for a tag")
            found = found[1:]
        return found

    def _is_away(self, away: Path) -> bool:
        """Whether a server isn't to be asked: offline, or it failed a moment ago. Waiting for it each time
        would slow down every build; what isn't recorded now is with the next build of the same."""
        if self.workspace.file is not None:
            return False
        if self.settings.offline:
            _log.info("offline: the build isn't recorded in the workspace")
            return True
        with contextlib.suppress(OSError):
            if 0 <= time.time() - away.stat().st_mtime < _PATIENCE:
                _log.warning("the build isn't recorded: the workspace's server failed a moment ago")
                return True
        return False

    @property
    def _recorded(self) -> Path:
        return self._parts.store.root / "metadata" / "recorded"

    @property
    def _place(self) -> str:
        """The workspace as part of a file's name; a password of its URL has no part in it."""
        where = re.sub(r"(://[^:@/]*):[^@]*@", r"\1@", str(self.settings.workspace))
        return canonical_digest("workspace", _MARKER_FORMAT, where).removeprefix("sha256:")

    def _record(self, spec: Spec, request: BuildRequest, result: BuildResult) -> None:
        names = tuple(dict.fromkeys((*result.names, *request.tags)))
        if self.workspace.is_there and self._marker(spec, names, result).exists():
            return
        from envbuild.app.record import record_build

        record_build(self.workspace, spec, self.lock_directory(spec), names, result)
        # Only now, as the first record makes the database.
        marker = self._marker(spec, names, result)
        marker.parent.mkdir(parents=True, exist_ok=True)
        # For whoever looks into the store; that it is there is all that counts.
        marker.write_text(f"{result.reference}\n", encoding="utf-8")

    def _marker(self, spec: Spec, names: tuple[str, ...], result: BuildResult) -> Path:
        """A file that is there once all that would be recorded was: a build with nothing to do then needs
        no database. Another workspace, or one made anew, has another marker."""
        file = self.workspace.file
        made = file.stat().st_ino if file is not None and file.exists() else 0
        what = [self._place, made, spec.name, sorted(names), result.digest]
        what.append(sorted([image.digest, image.level] for image in result.images))
        name = canonical_digest("recorded", _MARKER_FORMAT, what).removeprefix("sha256:")
        return self._recorded / name


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
