"""Rules about what an environment stands on: images by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from envbuild.errors import SpecError
from envbuild.lint.subject import Doubt, Subject
from envbuild.lock.model import ContextBase, ImageBase, ImagePin, PlatformLock
from envbuild.oci.reference import is_local
from envbuild.specs.dockerfile_images import dockerfile_images
from envbuild.specs.importers.dockerfile import DOCKERFILE_LIMIT, absent_sources, context_sources
from envbuild.specs.model import BuildContextSpec, ImageBaseSpec
from envbuild.specs.problems import Place
from envbuild.specs.text.source import SourceFile


def untagged(subject: Subject) -> Iterator[Doubt]:
    reference = _reference(subject)
    if reference is not None and _tag(reference) is None and "@" not in reference:
        yield Doubt(
            message=f"the image {reference} has no tag: that means latest, whatever that is",
            where=subject.places.key("image"),
            hint="name a tag, or better a digest",
        )


def unpinned(subject: Subject) -> Iterator[Doubt]:
    reference = _reference(subject)
    if reference is None or "@" in reference or _tag(reference) in (None, "latest"):
        return
    if subject.locked and all(isinstance(pins.base, ImageBase) for pins in subject.locked):
        return
    yield Doubt(
        message=f"the image {reference} has no digest, and no lock holds it: the tag may move",
        where=subject.places.key("image"),
        hint="'envbuild lock' records the digest for each platform; commit the lock",
    )


def latest(subject: Subject) -> Iterator[Doubt]:
    reference = _reference(subject)
    if reference is not None and _tag(reference) == "latest" and "@" not in reference:
        yield Doubt(
            message=f"the image {reference} says nothing of its version",
            where=subject.places.key("image"),
            hint="name the tag of a version, or a digest",
        )


def dockerfile(subject: Subject) -> Iterator[Doubt]:
    """Images that a Dockerfile names without a digest, and whose digest no lock holds."""
    base = subject.spec.base
    if not isinstance(base, BuildContextSpec):
        return
    path = base.path / base.dockerfile_path
    locked = [{pin.reference for pin in _images(pins)} for pins in subject.locked]
    for image in dockerfile_images(_dockerfile_text(subject, path)):
        # What a build argument stands for isn't known here.
        known = image.reference is None or (locked and all(image.reference in pins for pins in locked))
        if not known:
            yield Doubt(
                message=f"the Dockerfile names {image.name} without a digest, and no lock holds it",
                where=Place(file=path.as_posix(), line=image.line),
                hint="envbuild lock --upgrade records it where its registry answers; or write NAME@sha256:…",
            )


def _images(pins: PlatformLock) -> tuple[ImagePin, ...]:
    return pins.base.images if isinstance(pins.base, ContextBase) else ()


def absent(subject: Subject) -> Iterator[Doubt]:
    """What a Dockerfile copies and its context hasn't."""
    base = subject.spec.base
    if not isinstance(base, BuildContextSpec):
        return
    path = base.path / base.dockerfile_path
    context = SourceFile.at(subject.spec.directory / base.path / "Dockerfile")
    for source in absent_sources(context_sources(_dockerfile_text(subject, path)), context):
        yield Doubt(
            message=f"the Dockerfile copies {source}, which the build context hasn't",
            where=Place(file=path.as_posix()),
            hint="name the directory that has it: build: {path: DIRECTORY, dockerfile_path: …}",
        )


def _dockerfile_text(subject: Subject, path: Path) -> str:
    """The Dockerfile at ``path``; empty where it can't be read."""
    try:
        return SourceFile.at(subject.spec.directory / path).read(DOCKERFILE_LIMIT)
    except SpecError:
        return ""


def _reference(subject: Subject) -> str | None:
    """The image of a registry; a local layout has no tag that could move."""
    base = subject.spec.base
    if not isinstance(base, ImageBaseSpec) or is_local(base.reference):
        return None
    return base.reference


def _tag(reference: str) -> str | None:
    return reference.partition("@")[0].rpartition("/")[2].partition(":")[2] or None
