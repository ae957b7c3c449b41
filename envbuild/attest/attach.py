"""What a push attaches to images, before a tag names them: bills of materials, provenance, signatures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

from envbuild.attest.base import CYCLONEDX, SPDX, AttachedDocument
from envbuild.attest.cyclonedx import cyclonedx
from envbuild.attest.provenance import PREDICATE, provenance
from envbuild.attest.sbom import bill_of
from envbuild.attest.sign import Signer, sign_image
from envbuild.attest.spdx import spdx
from envbuild.errors import BuildError, FetchError
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import IN_TOTO, Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Progress
from envbuild.registry.base import RefusedError, Remote
from envbuild.registry.referrers import CREATED, AttachedArtifact, attach, referrers
from envbuild.store.content import Store

_log = logging.getLogger(__name__)

DOCUMENT = "dev.envbuild.document"
"""Annotation of what envbuild attached; its value is the document's file name."""

Fetch = Callable[[Descriptor], object]
"""Brings a layer into the store that isn't there."""

_TYPES = frozenset({CYCLONEDX, SPDX, IN_TOTO})
_REFUSALS = (400, 404, 405, 406, 413, 415, 422, 501)
"""How registries say that they take no such manifest, as opposed to: not from you, or not now."""


def image_documents(image: Image, store: Store) -> tuple[AttachedDocument, ...]:
    """All that is said about ``image``, whose blobs are in the store. Raises ``BuildError``."""
    bill = bill_of(image, store)
    return cyclonedx(bill), spdx(bill), provenance(image, store)


class Attachments:
    """Called by a push once all manifests are there and no tag is.

    ``documents`` says what is attached to each image that envbuild made; None: nothing. With a ``signer``,
    what was pushed is signed: each image, and the index above them. ``clock`` gives the time in seconds since
    the epoch.
    """

    def __init__(
        self,
        remote: Remote,
        store: Store,
        progress: Progress,
        *,
        clock: Callable[[], float],
        documents: Callable[[Image, Store], Sequence[AttachedDocument]] | None = image_documents,
        signer: Signer | None = None,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        self._remote = remote
        self._store = store
        self._progress = progress
        self._clock = clock
        self._documents = documents
        self._signer = signer
        self._left_out = left_out
        self._begun: dict[str, Future[Sequence[AttachedDocument]]] = {}

    def without(self, digests: frozenset[str]) -> Attachments:
        """The same, but nothing is said of the images ``digests``, nor of an index that lists one."""
        return Attachments(
            self._remote,
            self._store,
            self._progress,
            clock=self._clock,
            documents=self._documents,
            signer=self._signer,
            left_out=self._left_out | digests,
        )

    def prepare(self, image_set: ImageSet) -> None:
        """Begins to describe the images whose layers are all here, in a thread of its own: a push waits for
        its registry most of the time."""
        if self._documents is None:
            return
        worker = ThreadPoolExecutor(1)
        for image in self._images(image_set):
            whole = all(self._store.has_blob(layer.digest) for layer in image.layers)
            if image.lock_digest and whole and image.digest not in self._begun:
                self._begun[image.digest] = worker.submit(self._documents, image, self._store)
        worker.shutdown(wait=False)

    def __call__(self, repository: Reference, image_set: ImageSet, fetch: Fetch | None = None) -> None:
        """Attaches what isn't attached yet; asks little where all of it is.

        Of a registry that takes no documents people are warned; the image is as good without. One that fails,
        or takes no signature, raises ``FetchError``."""
        if self._documents is not None:
            for image in self._images(image_set):
                self._describe(repository, image, fetch)
        if self._signer is not None:
            digests = [image.digest for image in self._images(image_set)]
            if len(digests) == len(image_set.images):
                digests.append(image_set.digest)
            with self._progress.stage("sign"):
                for digest in dict.fromkeys(digests):
                    sign_image(self._remote, self._store, repository, digest, self._signer)

    def _images(self, image_set: ImageSet) -> list[Image]:
        """What something is said of."""
        return [image for image in image_set.images if image.digest not in self._left_out]

    def _describe(self, repository: Reference, image: Image, fetch: Fetch | None) -> None:
        if not image.lock_digest:
            return  # Somebody else's image: what is said about it is theirs.
        try:
            present = referrers(self._remote, repository, image.digest)
            if {artifact.artifact_type for artifact in present if artifact.annotation(DOCUMENT)} >= _TYPES:
                return
            documents = self._made(image, fetch)
            with self._progress.stage("attach"):
                subject = Descriptor(digest=image.digest, size=image.size, media_type=image.media_type)
                artifacts = [self._artifact(document) for document in documents]
                attach(self._remote, self._store, repository, subject, artifacts)
        except RefusedError as error:
            if error.status not in _REFUSALS:
                raise
            _log.warning("the registry takes no bill of materials and no provenance: %s", error.message)

    def _made(self, image: Image, fetch: Fetch | None) -> Sequence[AttachedDocument]:
        assert self._documents is not None
        with self._progress.stage("describe"):
            for layer in image.layers:
                if fetch is not None and not self._store.has_blob(layer.digest):
                    fetch(Descriptor(digest=layer.digest, size=layer.size, media_type=layer.media_type))
            try:
                if image.digest in self._begun:
                    return self._begun[image.digest].result()
                return self._documents(image, self._store)
            except FetchError:
                raise
            except BuildError as error:
                _log.warning("nothing is attached to %s: %s", image.digest, error.message)
                return ()

    def _artifact(self, document: AttachedDocument) -> AttachedArtifact:
        annotations = {DOCUMENT: document.name}
        if document.artifact_type == IN_TOTO:
            # When the image was pushed, which the document itself doesn't say: it is the same everywhere.
            now = datetime.fromtimestamp(int(self._clock()), timezone.utc)
            annotations[CREATED] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
            annotations["in-toto.io/predicate-type"] = PREDICATE
        return AttachedArtifact(
            name=document.name,
            artifact_type=document.artifact_type,
            media_type=document.media_type,
            content=document.content,
            annotations=tuple(sorted(annotations.items())),
        )


def attachments(
    remote: Remote,
    store: Store,
    progress: Progress,
    *,
    attest: bool,
    sign_key: Path | None,
    environ: Mapping[str, str],
    clock: Callable[[], float],
) -> Attachments | None:
    """What the settings mean; None: nothing is attached. Raises ``UsageError`` for a key that is no use."""
    if not attest and sign_key is None:
        return None
    return Attachments(
        remote,
        store,
        progress,
        clock=clock,
        documents=image_documents if attest else None,
        signer=None if sign_key is None else Signer.load(sign_key, environ),
    )
