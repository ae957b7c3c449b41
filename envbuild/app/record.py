"""What a build leaves in the workspace: the spec, its lock, and the images with their digests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import envbuild
from envbuild.app.requests import BuildResult
from envbuild.app.workspace import Workspace, kept_content
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import Spec
from envbuild.workspace.base import NewImage


def record_build(
    workspace: Workspace, spec: Spec, lock_directory: Path, names: Sequence[str], result: BuildResult
) -> None:
    """Keeps an anonymous version of ``spec`` where it isn't registered, the lock it was built from, and
    every image. ``names`` are the images' names without a digest. Raises ``WorkspaceError``."""
    registry = workspace.registry
    definition = definition_digest(spec)
    if any(image.definition_digest == definition for image in result.images):
        # Else the lock was used without a look at the spec, and answers another one.
        registry.register(
            spec.name,
            definition=definition,
            content=kept_content(spec),
            description=spec.description,
            tags=spec.tags,
            anonymous=True,
            origin=str(spec.source),
        )
    lock = workspace.keep_lock(spec, lock_directory)
    index = result.digest if len(result.images) > 1 else None
    for image in result.images:
        registry.add_image(
            NewImage(
                digest=image.digest,
                platform=str(image.platform),
                lock_digest=image.lock_digest,
                lock=lock.digest if lock and lock.definition == image.definition_digest else None,
                definition=image.definition_digest,
                level=image.level,
                references=tuple(dict.fromkeys(names)),
                indexes=(index,) if index else (),
                engine=result.engine,
                size=sum(layer.size for layer in image.layers),
                envbuild=envbuild.__version__,
            )
        )
