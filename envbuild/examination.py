"""Looks at images that exist: what is inside, what differs, whether their locks give them again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import UsageError
from envbuild.examine.model import Document, ImageDifference, Inspection, Verdict
from envbuild.images import Images, OpenedImage
from envbuild.platforms import Platform
from envbuild.store.content import Store
from envbuild.wiring import Parts

if TYPE_CHECKING:
    from envbuild.engines.native import NativeEngine


class Examination:
    """What is asked of images that exist; ``images`` opens them, and holds what they need until it ends."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def inspect(
        self, reference: str, platform: Platform | None = None, *, packages: bool | None = None
    ) -> Inspection:
        """What ``reference`` names. Without ``packages`` only manifests and configs are read, and of our own
        images the small layer with the lock; True looks into all layers of others' images, False into
        none. Raises ``FetchError``, ``BuildError`` and ``LockError``."""
        from envbuild.examine.inspect import inspected

        opened = self._images.open(reference, platform)
        with self._images.progress.stage("inspect"):
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
                        budget=self._images.settings.layer_budget,
                    )
                    for image in opened.images
                ),
                documents=self._documents(opened),
            )

    def _documents(self, opened: OpenedImage) -> tuple[Document, ...] | None:
        """What the registry has attached; None where no registry was asked."""
        from envbuild.remote.referrers import referrers
        from envbuild.remote.source import RegistrySource

        source = opened.source
        if not isinstance(source, RegistrySource) or self._images.settings.offline:
            return None
        subjects = dict.fromkeys([opened.top.digest, *(image.digest for image in opened.images)])
        return tuple(
            Document(digest=each.digest, artifact_type=each.artifact_type, size=each.size)
            for subject in subjects
            for each in referrers(self._images.parts.registry, source.reference, subject)
        )

    def diff(
        self, before: str, after: str, platform: Platform | None = None, *, files: bool = False
    ) -> tuple[ImageDifference, ...]:
        """What differs from one image to the other, for each platform that both have; two images of one
        platform each are compared whatever their platforms. Raises ``UsageError`` where they have none in
        common, ``FetchError``, ``BuildError`` and ``LockError``."""
        from envbuild.examine.compare import compared

        old, new = self._images.open(before, platform), self._images.open(after, platform)
        pairs = [(a, b) for a in old.images for b in new.images if a.platform == b.platform]
        if not pairs and len(old.images) == len(new.images) == 1:
            pairs = [(old.images[0], new.images[0])]
        if not pairs:
            raise UsageError(f"{before} and {after} have no platform in common")
        with self._images.progress.stage("compare"):
            return tuple(
                compared(
                    a, b, self._images.parts.store, bring_before=old.bring, bring_after=new.bring, files=files
                )
                for a, b in pairs
            )

    def verify(
        self, reference: str, platform: Platform | None = None, *, key: Path | None = None
    ) -> tuple[Verdict, ...]:
        """Whether each image is what its digests say, and what composing its own lock again from packages
        comes to; with ``key``, whether it is signed by that.

        Raises ``FetchError`` for an image that isn't what its digests say, ``BuildError`` and ``FetchError``
        where a package can't be had any more, ``LockError`` where the lock inside isn't sound."""
        from envbuild.examine.verify import Verification, check_image, drop_damaged
        from envbuild.lock.image.embedded import embedded_lock

        opened = self._images.open(reference, platform)
        with self._images.progress.stage("pull"):
            drop_damaged(opened.store, [each.digest for image in opened.images for each in image.layers])
            opened.bring([layer for image in opened.images for layer in image.layers])
        with self._images.progress.stage("check"):
            for image in opened.images:
                check_image(image, opened.store, opened.source.what)
            signed = None if key is None else self._signed(opened, key)
            locks = {
                image.digest: embedded_lock(image, opened.store) if image.lock_digest else None
                for image in opened.images
            }
        verification = Verification(
            store=opened.store,
            apart=self._apart,
            lease=self._images.lease,
            toolchain=tuple(pins for lock in locks.values() if lock for pins in lock.platforms),
            budget=self._images.settings.layer_budget,
            host=Platform.host(),
        )
        return tuple(
            replace(verification.verdict(image, locks[image.digest]), signed=signed)
            for image in opened.images
        )

    def _signed(self, opened: OpenedImage, key: Path) -> bool:
        """Whether the registry has a signature of what was named by the public key in the file ``key``."""
        from envbuild.attest.sign import load_public_key, verify_signature
        from envbuild.remote.source import RegistrySource

        source = opened.source
        if not isinstance(source, RegistrySource):
            raise UsageError(
                f"{opened.reference} was found outside a registry, where signatures are",
                hint="name it with its registry: HOST/REPOSITORY:TAG",
            )
        return verify_signature(
            self._images.parts.registry, source.reference, opened.top.digest, load_public_key(key)
        )

    @contextmanager
    def _apart(self, blobs: Sequence[str]) -> Iterator[NativeEngine]:
        """A composer with an empty store, which shares only downloads, named by their hashes, and
        ``blobs``, whose digests were checked."""
        from envbuild.spec.model import Spec

        with self._images.parts.store.scratch() as scratch:
            store = Store(scratch / "store")
            store.directory("blobs/sha256")
            (store.root / "artifacts").symlink_to(self._images.parts.store.directory("artifacts").absolute())
            for digest in dict.fromkeys(blobs):
                os.link(self._images.parts.store.blob(digest), store.blob(digest))
            settings = replace(self._images.settings, cache_dir=store.root, cache_from=(), cache_to=None)
            parts = Parts(settings, self._images.progress, self._images.parts.environ)
            try:
                spec = Spec(name="image", source=self._images.directory.absolute() / "envbuild.yaml")
                yield parts.native_engine(spec, reuse=False)
            finally:
                parts.close()
