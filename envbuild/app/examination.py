"""Looks at images that exist: what is inside, what differs, whether their locks give them again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.images import NAME_ITS_REGISTRY, Images, OpenedImage
from envbuild.app.session import Session
from envbuild.errors import BuildError, FetchError, UsageError
from envbuild.images.sinks.contents import blobs as publication_blobs
from envbuild.inspect.model import Document, ImageDifference, Inspection, PinChange, Rebased, Verdict
from envbuild.platforms import Platform
from envbuild.store.content import Store, blob_name

if TYPE_CHECKING:
    from envbuild.attest.sign import PublicKey
    from envbuild.compose.engine import NativeEngine
    from envbuild.lock.base import ResolvedBase
    from envbuild.lock.identity import ComposerSettings
    from envbuild.lock.model import Lock
    from envbuild.oci.image import Image
    from envbuild.specs.model import Spec


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
        from envbuild.inspect.inspect import inspected

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
        from envbuild.images.sources.base import RegistrySource
        from envbuild.registry.referrers import referrers

        if opened.repository is None or self._images.settings.offline:
            return None
        subjects = dict.fromkeys([opened.top.digest, *(image.digest for image in opened.images)])
        try:
            return tuple(
                Document(digest=referrer.digest, artifact_type=referrer.artifact_type, size=referrer.size)
                for subject in subjects
                for referrer in referrers(self._images.parts.registry, opened.repository, subject)
            )
        except FetchError as error:
            if isinstance(opened.source, RegistrySource):
                raise
            # The image is here, whatever has become of its registry.
            self._images.progress.note(f"what is attached isn't known: {error.message}")
            return None

    def diff(
        self, before: str, after: str, platform: Platform | None = None, *, files: bool = False
    ) -> tuple[ImageDifference, ...]:
        """What differs from one image to the other, for each platform that both have; two images of one
        platform each are compared whatever their platforms. Raises ``UsageError`` where they have none in
        common, ``FetchError``, ``BuildError`` and ``LockError``."""
        from envbuild.inspect.compare import compared, only_one

        old, new = self._images.open(before, platform), self._images.open(after, platform)
        pairs = [(a, b) for a in old.images for b in new.images if a.platform == b.platform]
        if not pairs and len(old.images) == len(new.images) == 1:
            pairs = [(old.images[0], new.images[0])]
        if not pairs:
            raise UsageError(f"{before} and {after} have no platform in common")
        paired = {each.platform for pair in pairs for each in pair}
        with self._images.progress.stage("compare"):
            found = [
                compared(
                    a,
                    b,
                    self._images.parts.store,
                    bring_before=old.bring,
                    bring_after=new.bring,
                    files=files,
                )
                for a, b in pairs
            ]
        found += [only_one(image, first=True) for image in old.images if image.platform not in paired]
        found += [only_one(image, first=False) for image in new.images if image.platform not in paired]
        return tuple(found)

    def verify(
        self, reference: str, platform: Platform | None = None, *, key: Path | None = None
    ) -> tuple[Verdict, ...]:
        """Whether each image is what its digests say, and what composing its own lock again from packages
        comes to; with ``key``, whether it is signed by that.

        Raises ``FetchError`` for an image that isn't what its digests say, ``BuildError`` and ``FetchError``
        where a package can't be had any more, ``LockError`` where the lock inside isn't sound."""
        from envbuild.attest.sign import load_public_key
        from envbuild.inspect.inspect import sound_lock
        from envbuild.inspect.verify import Verification, check_image, drop_damaged
        from envbuild.lock.image.embedded import embedded_lock

        # A key that is no use is said before anything is pulled.
        public_key = None if key is None else load_public_key(key)
        # The whole index, whatever platform was asked for: another one's python may compile for it.
        opened = self._images.open(reference)
        images = opened.images if platform is None else (opened.image(platform),)
        signed = None if public_key is None else self._signed(opened, public_key)
        with self._images.progress.stage("pull"):
            drop_damaged(opened.store, [layer.digest for image in images for layer in image.layers])
            opened.bring([layer for image in images for layer in image.layers])
        with self._images.progress.stage("check"):
            for image in images:
                check_image(image, opened.store, opened.source.what)
            locks = {
                image.digest: embedded_lock(image, opened.store) if image.lock_digest else None
                for image in images
            }
        others = [sound_lock(image, opened.store, opened.bring) for image in opened.images]
        verification = Verification(
            store=opened.store,
            apart=self._apart,
            lease=self._images.lease,
            toolchain=tuple(pins for lock in others if lock for pins in lock.platforms),
            budget=self._images.settings.layer_budget,
            host=Platform.host(),
        )
        return tuple(
            replace(verification.verdict(image, locks[image.digest]), signed=signed) for image in images
        )

    def _signed(self, opened: OpenedImage, key: PublicKey) -> bool:
        """Whether the registry has a signature of what was named by ``key``."""
        from envbuild.attest.sign import verify_signature

        if opened.repository is None:
            raise UsageError(
                f"{opened.reference} names no registry, where signatures are", hint=NAME_ITS_REGISTRY
            )
        return verify_signature(self._images.parts.registry, opened.repository, opened.top.digest, key)

    @contextmanager
    def _apart(self, blobs: Sequence[str]) -> Iterator[NativeEngine]:
        """A composer with an empty store, which shares only downloads, named by their hashes, and
        ``blobs``, whose digests were checked."""
        with self._images.parts.store.scratch() as scratch:
            store = Store(scratch / "store")
            store.directory("blobs/sha256")
            (store.root / "artifacts").symlink_to(self._images.parts.store.directory("artifacts").absolute())
            for digest in dict.fromkeys(blobs):
                os.link(self._images.parts.store.blob(digest), store.blob(digest))
            settings = replace(self._images.settings, cache_dir=store.root, cache_from=(), cache_to=None)
            parts = Session(settings, self._images.progress, self._images.parts.environ)
            try:
                yield parts.native_engine(self._spec, reuse=False)
            finally:
                parts.close()

    @property
    def _spec(self) -> Spec:
        """What says where relative paths start; nothing else of it is read."""
        from envbuild.specs.model import Spec

        return Spec(name="image", source=self._images.directory.absolute() / "envbuild.yaml")

    # --- rebase ---------------------------------------------------------------------------------------

    def rebase(
        self,
        reference: str,
        onto: str,
        platform: Platform | None = None,
        *,
        tags: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> Rebased:
        """The image ``reference`` on the base ``onto``: an image, or ``debian[:SUITE]`` for the newest
        packages. Its layers of software stay byte for byte what they are.

        The result is what composing its new lock gives. Where base and software are tied together, so that
        the layers would be others, everything is composed from packages, and the result says so. Raises
        ``BuildError`` for a base that the software doesn't fit, and as opening and building do."""
        from envbuild.images.repository import remember_names
        from envbuild.lock.diff import lock_changes
        from envbuild.oci.image import ImageSet
        from envbuild.store.images import ImageIndex

        publishers = self._images.parts.publishers(outputs, load=False)
        opened = self._images.open(reference, platform)
        with self._images.progress.stage("pull"):
            opened.pull()
        works = [self._work(image, opened) for image in opened.images]
        with self._images.progress.stage("resolve"):
            locks = [self._on(onto, lock) for _, lock, _ in works]
        toolchain = tuple(pins for lock in locks for pins in lock.platforms)
        images: list[Image] = []
        changes: list[PinChange] = []
        reasons: list[str] = []
        taken = 0
        for (image, lock, composition), new in zip(works, locks, strict=True):
            changes += lock_changes(lock, new)
            built, count, reason = self._put(image, lock, replace(new, toolchain=toolchain), composition)
            taken += count
            reasons += [f"{image.platform}: {reason}"] if reason else []
            images.append(built)
        store = self._images.parts.store
        for image in images:
            ImageIndex(store, time.time).put(f"manifest-{image.digest.removeprefix('sha256:')}", image)
        index = None
        if len(images) > 1:
            from envbuild.compose.image import store_index

            index = store_index(store, images, created=max(work.created for _, _, work in works))
        publication = ImageSet(images=tuple(images), names=tuple(tags), index_digest=index)
        self._images.lease.use(*(blob_name(digest) for digest in publication_blobs(publication, store)))
        remember_names(store, publication, publication.names)
        published = tuple(publish(publication) for publish in publishers.values())
        return Rebased(
            reference=f"{tags[0]}@{publication.digest}" if tags else publication.digest,
            digest=publication.digest,
            images=tuple(images),
            changes=tuple(changes),
            taken=taken,
            made=sum(1 for image in images for layer in image.layers if layer.artifacts) - taken,
            reasons=tuple(reasons),
            published=published,
        )

    def _work(self, image: Image, opened: OpenedImage) -> tuple[Image, Lock, ComposerSettings]:
        """``image`` with the lock inside and how it was composed. Raises ``BuildError`` where it wasn't."""
        from envbuild.inspect.derived import additions_of_others, additions_to_plan
        from envbuild.inspect.documents import manifest_of
        from envbuild.inspect.parameters import composition_of
        from envbuild.lock.identity import NATIVE_LEVEL
        from envbuild.lock.image.embedded import embedded_lock
        from envbuild.plan.make import make_plan

        what = f"{opened.reference} ({image.platform})"
        if added := additions_of_others(image, opened.store):
            raise _derived(what, added)
        lock = embedded_lock(image, opened.store) if image.level == NATIVE_LEVEL else None
        if lock is None:
            raise BuildError(
                f"{what} wasn't composed by envbuild: it has no lock inside",
                hint="build it from its spec on the other base",
            )
        composition, follows = composition_of(
            image,
            manifest_of(image, opened.store),
            lock,
            lock.platforms[0],
            budget=self._images.settings.layer_budget,
        )
        if not follows:
            raise BuildError(
                f"{what}: its lock digest doesn't follow from the lock inside",
                hint="another version of envbuild made it, or it was changed: envbuild verify says more",
            )
        plan = make_plan(lock, lock.platforms[0], composition, host=Platform.host())
        if added := additions_to_plan(image, plan, opened.store):
            raise _derived(what, added)
        return image, lock, composition

    def _on(self, onto: str, lock: Lock) -> Lock:
        """``lock`` on the base that ``onto`` names."""
        from envbuild.inspect.rebase import rebased_lock

        return rebased_lock(lock, self._resolved(onto, lock))

    def _resolved(self, onto: str, lock: Lock) -> ResolvedBase:
        from envbuild.lock.base import Upgrade
        from envbuild.lock.model import DebianBase
        from envbuild.specs.model import BaseSpec, DebianBaseSpec, ImageBaseSpec

        (pins,) = lock.platforms
        spec: BaseSpec = ImageBaseSpec(reference=onto)
        name, colon, suite = onto.partition(":")
        if name == "debian" and (not colon or suite.isalpha()):
            if not isinstance(pins.base, DebianBase):
                raise BuildError(
                    f"the base of {pins.platform} is an image, whose Debian packages no lock names",
                    hint="name an image: docker.io/library/debian:trixie-slim",
                )
            # All that the software may have been asked to find there; what those need comes with them.
            packages = tuple(package.name for package in pins.base.packages)
            spec = DebianBaseSpec(suite=suite or pins.base.suite, packages=packages)
        python = pins.python is not None and pins.python.provider != "conda"
        for make in self._images.parts.resolvers(self._spec).bases:
            resolver = make()
            if resolver.accepts(spec):
                return resolver.resolve(
                    spec,
                    pins.platform,
                    with_python=python,
                    upgrade=Upgrade(everything=True),
                    offline=self._images.settings.offline,
                )
        raise UsageError(f"{onto} is no base")

    def _put(
        self, image: Image, lock: Lock, new: Lock, composition: ComposerSettings
    ) -> tuple[Image, int, str | None]:
        """The image of ``new``, how many layers were taken over, and why none was."""
        from envbuild.compose.reuse import NotReusable
        from envbuild.engines.base import cannot_build
        from envbuild.inspect.rebase import taken_layers
        from envbuild.plan.make import make_plan

        host = Platform.host()
        before = make_plan(lock, lock.platforms[0], composition, host=host)
        after = make_plan(new, new.platforms[0], composition, host=host)
        engine = self._images.parts.native_engine(self._spec, reuse=True)
        if unable := engine.unable(after):
            raise BuildError(cannot_build(engine.name, unable))
        try:
            with self._images.progress.stage("layers"):
                taken = taken_layers(image, before, after, self._images.parts.store)
            return engine.build_over(after, taken, self._images.lease), len(taken.layers), None
        except NotReusable as error:
            return engine.build(after), 0, error.message


def _derived(what: str, added: str) -> BuildError:
    return BuildError(
        f"{what} has {added}: it was made of an image of envbuild's, and what was added would be lost",
        hint="rebase the image that it was made of, and make it anew of the result",
    )
