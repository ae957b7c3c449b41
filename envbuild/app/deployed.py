"""What is asked of ``publish``, what it gives back, and how its files come into a directory: each as a whole,
and none in the place of somebody else's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from envbuild.app.requests import BuildRequest
from envbuild.app.save import write_file
from envbuild.errors import PublishError, UsageError
from envbuild.images.base import PushResult
from envbuild.platforms import Platform
from envbuild.targets.base import Finding, TargetFile

_MARKED = 4096
"""Bytes within which a file of ours says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishRequest:
    """What is to be published: a command, or a service; neither, where files are of the environment alone or
    its image serves by itself."""

    to: tuple[str, ...]
    """Targets of the workspace, or kinds of files: ``compose``, ``github``, ``kubernetes``…"""
    command: tuple[str, ...] = ()
    code: Path | None = None
    """The command's, or the entry script's; None: no code, or the directory that the script stands in."""
    serve: Path | None = None
    """An entry script: what is published answers HTTP."""
    model: Path | None = None
    """Directory of the model that it serves."""
    env: tuple[tuple[str, str], ...] = ()
    push: str | None = None
    """``REPO[:TAG]``, instead of the targets' own registries."""
    directory: Path | None = None
    """Where the files are written; None: they are only returned."""
    single: bool = False
    """Whether more than one file is refused, as there is one place for it."""
    build: BuildRequest = field(default_factory=BuildRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTo:
    """What was published for one target."""

    target: str
    kind: str
    platform: Platform
    reference: str
    """What the files name: with the code, if there is any."""
    base_reference: str
    """The environment's own image."""
    code: str | None
    """Digest of the code directory."""
    files: tuple[TargetFile, ...]
    paths: tuple[Path, ...] = ()
    """Where the files are, in their order; empty where they weren't written."""
    findings: tuple[Finding, ...] = ()
    how: tuple[str, ...] = ()
    """The commands that hand the files in, where the target has a tool for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What became of a request: an entry for each target, in the order of the request."""

    environment: str
    """``name:version``; the name alone where nothing is recorded."""
    targets: tuple[PublishedTo, ...]
    pushed: tuple[PushResult, ...]


def places_of(results: Sequence[PublishedTo], request: PublishRequest) -> list[tuple[Path, ...]]:
    """Where each file goes; with several targets, below a directory of its own for each. Raises
    ``UsageError`` where something is in the way."""
    for result in results:
        for name in (result.target, *(file.name for file in result.files)):
            if Path(name).name != name or name.startswith("."):
                raise PublishError(f"the kind {result.kind} names a file {name!r}, which is no file name")
    if request.single and sum(len(result.files) for result in results) != 1:
        names = ", ".join(file.name for result in results for file in result.files)
        raise UsageError(f"several files are written: {names}", hint="name a directory: --output DIR")
    directory = request.directory
    if directory is None:
        return [()] * len(results)
    below = [directory] if len(results) == 1 else [directory / result.target for result in results]
    places = [
        tuple(place / file.name for file in each.files) for each, place in zip(results, below, strict=True)
    ]
    for each, paths in zip(results, places, strict=True):
        for file, path in zip(each.files, paths, strict=True):
            _free(path, file)
    return places


def _free(path: Path, file: TargetFile) -> None:
    """Returns where ``path`` may be written: it isn't there, is ours, or says the same."""
    from envbuild.targets.files.base import is_ours

    beyond = next(parent for parent in path.parents if os.path.lexists(parent))
    if not beyond.is_dir() or not os.access(beyond, os.W_OK):
        raise UsageError(f"{path} can't be written: {beyond} is no directory to write in")
    if not os.path.lexists(path):
        return
    there = b""
    if path.is_file():
        try:
            with path.open("rb") as opened:
                # Enough to know whose it is, and whether it is the same.
                there = opened.read(len(file.content.encode()) + _MARKED)
        except OSError as error:
            raise UsageError(f"{path} can't be replaced: {error.strerror}") from error
    content = there.decode(errors="replace")
    if not is_ours(content) and content != file.content:
        raise UsageError(
            f"{path} is there, and envbuild didn't write it", hint="choose another directory, or remove it"
        )


def written(result: PublishedTo, places: tuple[Path, ...]) -> PublishedTo:
    """``result`` with its files in ``places``, if there are any. Raises ``PublishError``."""
    try:
        for file, path in zip(result.files, places, strict=False):
            write_file(path, file.content.encode())
            if file.executable:
                path.chmod(path.stat().st_mode | 0o111)
    except OSError as error:
        raise PublishError(
            f"can't write {error.filename or places[0]}: {error.strerror}",
            hint="the image is pushed; call it again with another directory",
        ) from error
    return replace(result, paths=places)
