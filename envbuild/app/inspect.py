"""What is inside images, and what differs between two of them."""

from __future__ import annotations

from envbuild.app.images import OpenedImage, open_image
from envbuild.app.session import Session
from envbuild.errors import FetchError, UsageError
from envbuild.images.sources.base import RegistrySource
from envbuild.inspect.compare import compared, only_one
from envbuild.inspect.inspect import inspected
from envbuild.inspect.model import ImageDifference, Inspection, ReferringDocument
from envbuild.platforms import Platform
from envbuild.registry.referrers import referrers


def inspect_image(
    session: Session, reference: str, platform: Platform | None = None, *, packages: bool | None = None
) -> Inspection:
    """What ``reference`` names. Without ``packages`` only manifests and configs are read, and of our own
    images the small layer with the lock; True looks into all layers of others' images, False into
    none. Raises ``FetchError``, ``BuildError`` and ``LockError``."""

    opened = open_image(session, reference, platform)
    with session.progress.stage("inspect"):
        return Inspection(
            reference=reference,
            digest=opened.top.digest,
            media_type=opened.top.media_type,
            images=tuple(
                inspected(
                    image,
                    opened.store,
                    packages=packages,
                    bring=opened.bring,
                    budget=session.settings.layer_budget,
                )
                for image in opened.images
            ),
            documents=_documents(session, opened),
        )


def _documents(session: Session, opened: OpenedImage) -> tuple[ReferringDocument, ...] | None:
    """What the registry has attached; None where no registry was asked."""

    if opened.repository is None or session.settings.offline:
        return None
    subjects = dict.fromkeys([opened.top.digest, *(image.digest for image in opened.images)])
    try:
        return tuple(
            ReferringDocument(
                digest=referrer.digest, artifact_type=referrer.artifact_type, size=referrer.size
            )
            for subject in subjects
            for referrer in referrers(session.registry, opened.repository, subject)
        )
    except FetchError as error:
        if isinstance(opened.source, RegistrySource):
            raise
        # The image is here, whatever has become of its registry.
        session.progress.note(f"what is attached isn't known: {error.message}")
        return None


def diff_images(
    session: Session, before: str, after: str, platform: Platform | None = None, *, files: bool = False
) -> tuple[ImageDifference, ...]:
    """What differs from one image to the other, for each platform that both have; two images of one
    platform each are compared whatever their platforms. Raises ``UsageError`` where they have none in
    common, ``FetchError``, ``BuildError`` and ``LockError``."""

    old, new = open_image(session, before, platform), open_image(session, after, platform)
    pairs = [(a, b) for a in old.images for b in new.images if a.platform == b.platform]
    if not pairs and len(old.images) == len(new.images) == 1:
        pairs = [(old.images[0], new.images[0])]
    if not pairs:
        raise UsageError(f"{before} and {after} have no platform in common")
    paired = {paired_image.platform for pair in pairs for paired_image in pair}
    with session.progress.stage("compare"):
        differences = [
            compared(
                a,
                b,
                session.store,
                bring_before=old.bring,
                bring_after=new.bring,
                files=files,
            )
            for a, b in pairs
        ]
    differences += [only_one(image, first=True) for image in old.images if image.platform not in paired]
    differences += [only_one(image, first=False) for image in new.images if image.platform not in paired]
    return tuple(differences)
