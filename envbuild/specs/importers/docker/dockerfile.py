"""A Dockerfile and the directory it stands in: a user-managed environment with that build context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.lazy import lazy
from envbuild.specs import fields
from envbuild.specs.model import BuildContextSpec, EnvironmentType, Spec
from envbuild.specs.text.source import SourceFile

if TYPE_CHECKING:
    from envbuild.specs import context as spec_context
else:
    spec_context = lazy("envbuild.specs.context")


class DockerfileImporter:
    """Takes a ``Dockerfile`` as it is."""

    name = "dockerfile"
    markers: tuple[str, ...] = ("Dockerfile", "Containerfile")

    def recognises(self, file: SourceFile) -> bool:
        name = file.path.name.lower()
        if name.endswith(".dockerignore") or not file.path.is_file():
            return False
        return name in ("dockerfile", "containerfile") or (
            name.startswith("dockerfile.") or name.endswith(".dockerfile")
        )

    def load(self, file: SourceFile) -> Spec:
        return user_managed(file.path, file.path.parent, source=file.path)


def user_managed(dockerfile: Path, context: Path, *, source: Path) -> Spec:
    """The environment that ``dockerfile`` makes from ``context``, which is ``source``'s directory.

    Raises ``SpecError`` where the context can't be read.
    """
    base = BuildContextSpec(path=Path(), dockerfile_path=dockerfile.relative_to(context).as_posix())
    return Spec(
        name=fields.fit_name(context.name),
        source=source,
        type=EnvironmentType.USER_MANAGED,
        base=spec_context.with_digest(base, context),
        user="",
    )
