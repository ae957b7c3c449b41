"""What a workspace takes: sizes and forms of everything that comes from outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from envbuild.errors import WorkspaceError
from envbuild.lock.identity import FOUND_LEVEL
from envbuild.oci.digest import is_digest
from envbuild.targets.base import TargetRecord
from envbuild.workspace.base import LATEST, RESERVED, NewImage, NewRun, NewVersion, Pairs, check_name

LARGEST_CONTENT = 4_000_000
"""Characters of a spec."""
LARGEST_TEXT = 65_536
"""Characters of a description, an origin, an actor."""
LARGEST_REFERENCE = 1_024
MOST_PAIRS = 200
"""Tags of a version, labels of one call, references of an image."""
LARGEST_FILES = 256_000_000
"""Bytes of a lock directory."""
LARGEST_CONTEXT = 256_000_000
"""Bytes of a context's archive: a database is no place for larger ones."""

# NUL, which PostgreSQL can't keep, and lone surrogates, which are no text.
_UNFIT = re.compile("[\x00\ud800-\udfff]")
_LEVELS = ("L0", "L1", "L2", "L3", FOUND_LEVEL)


def check_new_name(name: str) -> str:
    """``name``, which a normal version may have. Raises ``WorkspaceError``."""
    check_name("an environment", name)
    if name.lower().startswith(RESERVED):
        raise WorkspaceError(
            f"names that begin with Microsoft or AzureML are reserved: {name}", hint="choose another name"
        )
    return name


def check_new_version(new: NewVersion) -> NewVersion:
    """``new`` with sorted tags and labels. Raises ``WorkspaceError``."""
    check_name("an environment", new.environment)
    check_digest("a definition", new.definition)
    check_text("a spec", new.content, LARGEST_CONTENT)
    if new.version is not None:
        check_version(new.version)
    if new.description is not None:
        check_text("a description", new.description)
    checked = replace(new, tags=check_tags(new.tags), labels=check_labels(new.labels))
    if new.context is not None:
        check_digest("a context", new.context)
    check_text("an origin", new.origin)
    if new.anonymous and (new.version is not None or new.labels):
        raise WorkspaceError("an anonymous version has neither a version nor labels of its own")
    if not new.anonymous:
        check_new_name(new.environment)
    return checked


def check_version(version: str) -> str:
    check_name("a version", version)
    if version.lower() == LATEST:
        raise WorkspaceError("no version can be called 'latest': that is the label of the newest one")
    return version


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorted, each once; none is ``latest``, which is computed."""
    names = tuple(sorted({check_name("a label", label) for label in labels}))
    _bounded("labels", len(names), MOST_PAIRS)
    if any(label.lower() == LATEST for label in names):
        raise WorkspaceError("the label 'latest' can't be set: it is always the version registered last")
    return names


def check_tags(tags: Iterable[tuple[str, str]]) -> Pairs:
    """Sorted by key. Raises ``WorkspaceError`` for a key with two values."""
    pairs: dict[str, str] = {}
    for key, value in tags:
        if pairs.setdefault(check_text("a tag", key), check_text("a tag", value)) != value:
            raise WorkspaceError(f"tag {key[:80]!r} has two values")
    _bounded("tags", len(pairs), MOST_PAIRS)
    return tuple(sorted(pairs.items()))


def check_text(noun: str, text: str, largest: int = LARGEST_TEXT) -> str:
    _bounded(f"characters of {noun}", len(text), largest)
    if _UNFIT.search(text):
        raise WorkspaceError(f"{noun} holds a character that no database keeps (NUL or half a surrogate)")
    return text


def check_digest(noun: str, text: str) -> str:
    if not is_digest(text):
        raise WorkspaceError(f"{text[:80]!r} is no digest of {noun}: sha256: and 64 hex digits")
    return text


def check_files(files: Mapping[str, bytes]) -> None:
    """Plain file names, ``envbuild.lock`` among them."""
    for name in files:
        check_name("a lock's file", name)
    _bounded("bytes of a lock's files", sum(map(len, files.values())), LARGEST_FILES)
    if "envbuild.lock" not in files:
        raise WorkspaceError("a lock without envbuild.lock can't be kept")


def check_image(image: NewImage) -> None:
    check_digest("an image", image.digest)
    check_digest("a lock", image.lock_digest)
    check_digest("a definition", image.definition)
    for digest in image.indexes:
        check_digest("an index", digest)
    if image.lock is not None:
        check_digest("envbuild.lock", image.lock)
    for reference in image.references:
        check_text("a reference", reference, LARGEST_REFERENCE)
    for noun, text in (("platform", image.platform), ("engine", image.engine), ("version", image.envbuild)):
        check_text(f"an image's {noun}", text, 64)
    _bounded("references", len(image.references) + len(image.indexes), MOST_PAIRS)
    if image.level not in _LEVELS:
        raise WorkspaceError(f"{image.level[:20]!r} is no level of an image")
    _bounded("bytes of an image", image.size, 1 << 62)


def check_target(target: TargetRecord) -> None:
    check_name("a target", target.name)
    check_text("a target's kind", target.kind, 64)
    check_tags(target.options)


def check_run(run: NewRun) -> None:
    for noun, name in (("a run", run.name), ("a target", run.target), ("an environment", run.environment)):
        check_name(noun, name)
    check_name("a version", run.version)
    check_text("a target's kind", run.kind, 64)
    for noun, digest in (("an image", run.image), ("an image", run.base_image), ("a spec", run.definition)):
        check_digest(noun, digest)
    if run.code is not None:
        check_digest("a directory", run.code)
    check_text("a reference", run.reference, LARGEST_REFERENCE)
    _bounded("words of a command", len(run.command), 10_000)
    check_text("a command", " ".join(run.command), LARGEST_CONTENT)
    _bounded("variables", len(run.variables), 10_000)
    check_text("variables", " ".join(run.variables), LARGEST_CONTENT)


def _bounded(noun: str, number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise WorkspaceError(f"{number} {noun}: at most {most} can be kept")
