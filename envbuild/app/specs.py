"""The spec that a command names: a path, a registered version, or a curated environment."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from envbuild.app.environments import VersionReference
from envbuild.app.session import Session
from envbuild.errors import SpecError, suggestion
from envbuild.plan.model import Inputs
from envbuild.resources import curated_names, curated_spec
from envbuild.specs.cache import remembered_spec
from envbuild.specs.model import BuildContextSpec, EnvironmentType, Spec
from envbuild.specs.paths import located_pip

_SUFFIXES = (".yaml", ".yml", ".txt", ".in", ".toml", ".json", ".py", ".lock")
"""What ends so is meant as a file, not as a name."""


def find_spec(session: Session, text: str) -> Spec:
    """The spec at a path, a file or a directory that has one; else the workspace's version of that name; else
    the curated one. Raises ``SpecError`` with the nearest names of all three."""
    spec = _registered_spec(session, text)
    if spec is None:
        try:
            spec = _read_spec(session, text)
        except SpecError as error:
            raise _unknown_name(session, text) or error from None
    strategy = session.settings.index_strategy
    if strategy is not None and spec.pip.requirements:
        spec = replace(spec, pip=replace(spec.pip, index_strategy=strategy))
    for line in spec.left_out:
        session.progress.note(f"left out: {line}")
    return spec


def inputs_of(spec: Spec) -> Inputs:
    """What a build of ``spec`` reads beside its lock."""
    pip = located_pip(spec.pip, spec.directory)
    return Inputs(
        directory=spec.directory,
        source=spec.source,
        context=spec.base.path if isinstance(spec.base, BuildContextSpec) else None,
        pip_options=pip.named_options,
        package_indexes=tuple(index for index in pip.indexes if index.packages),
        spark_repositories=spec.spark.repositories if spec.spark else (),
    )


def is_registered(session: Session, spec: Spec) -> bool:
    """Whether ``spec`` was read from the workspace, not from a file of the user's."""
    return spec.directory.parent == session.store.root / "metadata" / "versions"


def version_of_file(session: Session, spec: Spec) -> str | None:
    """The version that the file of ``spec`` gives the environment; None where it gives none. That of a
    project is the project's, and what is registered or curated already has its own."""
    own = (
        spec.type is EnvironmentType.CURATED or spec.source.suffix == ".toml" or is_registered(session, spec)
    )
    return None if own else spec.version


def _read_spec(session: Session, text: str) -> Spec:
    path = Path(text)
    if not path.exists() and (curated := curated_spec(text)):
        path = curated
    with session.progress.stage("spec"):
        return remembered_spec(path, session.store.root / "metadata" / "specs")


def _registered_spec(session: Session, text: str) -> Spec | None:
    if _exists(text) or VersionReference.of(text) is None:
        return None
    version = session.workspace.find(text)
    return session.workspace.spec(version) if version is not None else None


def _unknown_name(session: Session, text: str) -> SpecError | None:
    """What is said where ``text`` could have been a name; None where it can only be a path."""
    named = VersionReference.of(text)
    if named is None or _exists(text) or text.endswith(_SUFFIXES):
        return None

    known = {*session.workspace.names(), *curated_names()}
    with contextlib.suppress(OSError):
        known |= {path.name for path in Path().iterdir() if not path.name.startswith(".")}
    return SpecError(
        f"{text}: no such file or directory, and no environment of that name",
        hint=suggestion(named.name, sorted(known), most=3) or "envbuild env list shows what there is",
    )


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
