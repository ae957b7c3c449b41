"""Images that are there already, so that nothing is built twice: in the store, else in a registry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from envbuild.app.session import Session
from envbuild.errors import FetchError, NotReproducedError
from envbuild.images.repository import PushTarget, repository_of
from envbuild.lazy import lazy
from envbuild.lock.identity import FOUND_LEVEL
from envbuild.lock.model import ImageBase, Lock
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference, is_local
from envbuild.plan.model import Plan
from envbuild.store.content import blob_name
from envbuild.store.images import ImageIndex, composed_key, found_key
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    from envbuild.images import lookup as image_lookup
    from envbuild.images.lookup import ExpectedImage, Lookup, MatchedImage
    from envbuild.oci.manifest import Descriptor
    from envbuild.oci.reference import Reference
else:
    image_lookup = lazy("envbuild.images.lookup")

_log = logging.getLogger(__name__)


class BuildCache:
    """Looks for the images of one build and names in ``lease`` what it finds.

    ``lookup`` asks registries; None: only the store is looked at. Without ``reuse`` nothing is. ``layers``:
    whether the layers of an image that a registry has are brought into the store at once; else only when
    ``fetch`` asks for one. ``verify``: what a registry has is no answer, but what the image that is composed
    must be.
    """

    def __init__(
        self,
        session: Session,
        lease: Lease,
        *,
        reuse: bool = True,
        layers: bool = True,
        verify: bool = False,
        lookup: Lookup | None,
    ) -> None:
        self._session = session
        self._lease = lease
        self._reuse = reuse
        self._layers = layers
        self._verify = verify
        self._lookup = lookup
        self._index = ImageIndex(session.store, time.time)
        self._found: dict[str, MatchedImage] = {}
        self._unverified: set[str] = set()
        self._expected: dict[str, MatchedImage] = {}

    @property
    def unverified(self) -> frozenset[str]:
        """Digests of the images that a registry had, now or before, and that nobody here has composed."""
        return frozenset(self._unverified)

    def as_known(self, image: Image) -> Image:
        """``image`` with the level that may be said of it."""
        return replace(image, level=FOUND_LEVEL) if image.digest in self._unverified else image

    @property
    def asks(self) -> bool:
        """Whether a registry may be asked."""
        return self._reuse and self._lookup is not None

    @property
    def verifies(self) -> bool:
        """Whether what a registry has must be composed again."""
        return self._verify

    @property
    def references(self) -> tuple[Reference, ...]:
        """Where images were found in registries, each once."""
        return tuple(dict.fromkeys(match.reference for match in self._found.values()))

    def local(self, lock_digest: str) -> Image | None:
        """The image that the store has of a lock: built here, else found in a registry before."""
        if not self._reuse:
            return None
        with self._session.progress.stage("look up"):
            image = self._stored(composed_key(lock_digest))
            if image is None and not self._verify:
                image = self._stored(found_key(lock_digest))
                if image is not None:
                    self._unverified.add(image.digest)
            return image

    def _stored(self, key: str) -> Image | None:
        self._lease.use(f"images/{key}")
        image = self._index.get(key)
        if image is not None:
            self._lease.use(*map(blob_name, image.blobs))
        return image

    def elsewhere(self, wanted: ExpectedImage, tags: Sequence[str], plan: Callable[[], Plan]) -> Image | None:
        """The image that a registry has under one of ``tags``; one that can't be used is a warning.

        ``plan`` says which artifacts its layers hold. Raises ``PublishError`` where a registry that is to be
        pushed to can't be reached."""
        if not self.asks or self._lookup is None:
            return None
        with self._session.progress.stage("look up"):
            match = self._lookup.find(wanted, tags)
        if match is None:
            return None
        if self._verify:
            self._expected[wanted.lock_digest] = match
            return None
        self._lease.use(*map(blob_name, match.image.blobs))
        if self._layers and not self._pulled(match):
            return None
        image = _with_artifacts(match.image, plan())
        if all(self._session.store.has_blob(layer.digest) for layer in image.layers):
            self._index.put(found_key(wanted.lock_digest), image)
        self._found[image.digest] = match
        self._unverified.add(image.digest)
        self._session.progress.note(f"{wanted.platform}: found as {match.reference.tagged}")
        return image

    def keep(self, image: Image) -> None:
        """Names what was built, so that nobody prunes it.

        Raises ``NotReproducedError`` where a registry was found to have another image of that lock, and what
        it has is to be verified."""
        self._lease.use(*map(blob_name, image.blobs))
        expected = self._expected.get(image.lock_digest)
        if expected is None:
            return
        if expected.image.digest != image.digest:
            raise NotReproducedError(
                f"{expected.reference.tagged} is {expected.image.digest} for {image.platform}, and composing "
                f"its lock gives {image.digest}",
                hint="find out who pushed it: envbuild verify says what differs. What was composed is in the "
                "store now; without --verify-found a push puts it in the other's place",
            )
        self._found[image.digest] = expected
        self._session.progress.note(f"{image.platform}: the same as {expected.reference.tagged}")

    def fetch(self, blob: Descriptor) -> None:
        """Brings a layer of an image that was found into the store. Raises ``FetchError``."""
        for match in self._found.values():
            if any(layer.digest == blob.digest for layer in match.image.layers):
                self._session.registry.blob(match.reference, blob.digest, blob.size)
                return

    def _pulled(self, match: MatchedImage) -> bool:
        try:
            with self._session.progress.stage("pull"):
                image_lookup.pull_layers(match, self._session.registry, self._session.store)
        except FetchError as error:
            _log.warning("%s isn't used: %s", match.reference.tagged, error.message)
            return False
        return True


def lookup_of(session: Session, name: str, targets: Sequence[PushTarget]) -> Lookup | None:
    """What looks for the images of ``name`` in ``targets`` and in the setting's registry; None where there
    are none, or in an offline run."""
    setting = session.settings.registry
    if session.settings.offline or not (targets or setting):
        return None
    repositories = [
        image_lookup.CandidateRepository(
            repository=target.repository, remote=lambda: session.registry, required=True
        )
        for target in targets
    ]
    if setting is not None:
        repository = repository_of(name, setting)
        pushed = {target.repository.registry for target in targets}
        # Who is only asked whether an image is there may not hold up a build that can do without.
        hurried = repository.registry not in pushed
        repositories.append(
            image_lookup.CandidateRepository(
                repository=repository,
                remote=lambda: session.hurried_registry if hurried else session.registry,
            )
        )
    return image_lookup.Lookup(places=repositories, progress=session.progress)


def base_references(lock: Lock) -> tuple[Reference, ...]:
    """The images of registries that the lock's platforms stand on."""
    return tuple(
        Reference.parse(platform.base.reference)
        for platform in lock.platforms
        if isinstance(platform.base, ImageBase) and not is_local(platform.base.reference)
    )


def _with_artifacts(image: Image, plan: Plan) -> Image:
    """``image`` with what its plan puts into each layer, which no manifest says."""
    artifacts = {
        layer.name: tuple(f"{artifact.name} {artifact.version}" for artifact in layer.artifacts)
        for layer in plan.layers
    }
    return replace(
        image,
        layers=tuple(replace(layer, artifacts=artifacts.get(layer.name, ())) for layer in image.layers),
    )
