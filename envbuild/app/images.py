"""Operations on images that exist, wired for one call: ``Pipeline`` starts from a spec, this from an image.

What names an image (REF) is one of

* ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, ``docker-archive:FILE[:NAME]``: files of this machine;
* ``docker-daemon:NAME``: an image of the Docker engine;
* ``sha256:HEX``: a manifest or index of the store;
* ``[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]``. Without a host it is the name that a build gave, where the
  store has it, else one of Docker Hub. With a host it is the registry's, and the store's where the registry
  has none of that name or can't be asked (``--offline``). ``docker://`` in front leaves the store out.

``remote.place`` reads these forms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.session import Session
from envbuild.attest.base import CYCLONEDX, SPDX, Document
from envbuild.errors import FetchError, UsageError
from envbuild.images.base import CopyResult, PullResult
from envbuild.images.closure import Tree, tree_of
from envbuild.images.copy import Copier, whole_of
from envbuild.images.describe import images_of, top_for
from envbuild.images.locator import ImageLocator, Kind
from envbuild.images.repository import PushTarget, identity_tag, push_target
from envbuild.images.sources.base import ImageSource, RegistrySource
from envbuild.images.sources.locate import Sources
from envbuild.images.sources.store import StoreSource
from envbuild.oci.image import Image, ImageSet, Layer
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.registry.base import Manifest
from envbuild.settings import Settings
from envbuild.store.content import Store, blob_name
from envbuild.store.images import ImageIndex
from envbuild.store.leases import Lease
from envbuild.store.names import Names

if TYPE_CHECKING:
    from envbuild.attest.attach import Attachments
    from envbuild.images.prune import RepositoryPruner

_log = logging.getLogger(__name__)

NAME_ITS_REGISTRY = "name it with its registry: HOST/REPOSITORY:TAG"
_FEW = 2
"""Platforms that nobody is surprised to get: as many as envbuild builds for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedImage:
    """What a reference names: a manifest or an index, whose layers need not be here yet."""

    reference: str
    """As it was asked for."""
    top: Manifest
    images: tuple[Image, ...]
    """Each platform's; one, where ``top`` is no index."""
    source: ImageSource
    repository: Reference | None
    """Of a registry, where the reference names one: what is attached is there, even if the image is here."""
    store: Store
    lease: Lease

    def image(self, platform: Platform | None = None) -> Image:
        """The image of ``platform``; None: the only one, or this machine's. Raises ``FetchError``."""
        if platform is None and len(self.images) == 1:
            return self.images[0]
        wanted = platform or Platform.host()
        for image in self.images:
            if image.platform == wanted:
                return image
        have = ", ".join(str(image.platform) for image in self.images)
        raise FetchError(
            f"{self.reference} has no image for {wanted}, only for {have}", hint="choose one with --platform"
        )

    def pull(self, platform: Platform | None = None) -> tuple[Image, ...]:
        """All images, or that of ``platform``, with all their layers in the store: each has its digest, and
        the diff_id that its config says. Raises ``FetchError``."""
        chosen = self.images if platform is None else (self.image(platform),)
        self.bring([layer for image in chosen for layer in image.layers])
        return chosen

    def bring(self, wanted: Sequence[Layer]) -> None:
        """These layers in the store, checked as ``pull`` does. Raises ``FetchError``."""
        from envbuild.images.diff_ids import check_diff_ids

        layers = [
            (Descriptor(digest=each.digest, size=each.size, media_type=each.media_type), each.diff_id)
            for each in wanted
        ]
        self.lease.use(*(blob_name(layer.digest) for layer, _ in layers))
        self.source.pull([layer for layer, _ in layers])
        check_diff_ids(self.store, layers, self.source.what)


class Images:
    """``environ`` is the process's environment; ``directory`` is what relative paths are relative to;
    ``clock`` counts seconds, for durations only."""

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self._parts = Session(settings, progress, environ)
        self._directory = directory or Path()
        self._clock = clock
        self._stack = ExitStack()
        self._held: Lease | None = None

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._held = None
        self._parts.close()

    @property
    def parts(self) -> Session:
        """The parts that the images are opened with."""
        return self._parts

    @property
    def directory(self) -> Path:
        """What relative paths are relative to."""
        return self._directory

    @property
    def lease(self) -> Lease:
        """Held until the end; what is opened is named in it."""
        return self._lease

    @property
    def _lease(self) -> Lease:
        """Held until the end, so that no prune takes what an opened image has brought here."""
        if self._held is None:
            self._held = self._stack.enter_context(Lease(self._parts.store))
        return self._held

    @cached_property
    def _sources(self) -> Sources:
        from envbuild.docker.save import save_image

        parts = self._parts
        # Older than all that a source brings: what it has brought is named only later.
        _ = self._lease
        return Sources(
            parts.store,
            lambda: parts.registry,
            scratch=lambda: self._stack.enter_context(parts.store.scratch()),
            save=lambda name, file: save_image(parts.environ, name, file, self.progress),
            offline=self.settings.offline,
        )

    def open(self, reference: str, platform: Platform | None = None) -> OpenedImage:
        """The image or images that ``reference`` names, or that of ``platform``: manifests and configs are in
        the store, and checked.

        Raises ``FetchError``, and ``UsageError`` for what is no reference."""
        place = ImageLocator.parse(reference, self._directory)
        with self.progress.stage("look up"):
            source = self._sources.open(place)
            return self._opened(place, source, top_for(source, source.manifest(), platform))

    def _opened(self, place: ImageLocator, source: ImageSource, top: Manifest) -> OpenedImage:
        images = images_of(source, top)
        blobs = [each for image in images for each in (image.digest, image.config_digest)]
        self._lease.use(*(blob_name(digest) for digest in (top.digest, *blobs)))
        return OpenedImage(
            reference=place.text,
            top=top,
            images=images,
            source=source,
            repository=_repository(place, source),
            store=self._parts.store,
            lease=self._lease,
        )

    def sbom(
        self,
        reference: str,
        *,
        platform: Platform | None = None,
        form: str = "cyclonedx",
        attached: bool = False,
    ) -> Document:
        """The bill of materials (``cyclonedx`` or ``spdx``) of the image that ``reference`` names, of
        ``platform`` or this machine's where there are several: made from its layers, or with ``attached`` the
        one that its registry has. Raises ``FetchError``, ``BuildError`` and ``UsageError``."""
        from envbuild.attest.cyclonedx import cyclonedx
        from envbuild.attest.sbom import bill_of
        from envbuild.attest.spdx import spdx

        opened = self.open(reference, platform)
        image = opened.image(platform)
        if attached:
            return self._attached(opened, image, CYCLONEDX if form == "cyclonedx" else SPDX)
        with self.progress.stage("pull"):
            self._lease.use(*(blob_name(layer.digest) for layer in image.layers))
            opened.source.pull(
                [
                    Descriptor(digest=layer.digest, size=layer.size, media_type=layer.media_type)
                    for layer in image.layers
                ]
            )
        with self.progress.stage("look inside"):
            bill = bill_of(image, self._parts.store)
        return spdx(bill) if form == "spdx" else cyclonedx(bill)

    def _attached(self, opened: OpenedImage, image: Image, artifact_type: str) -> Document:
        from envbuild.attest.fetch import attached_document

        reference, repository = opened.reference, opened.repository
        if repository is None:
            raise UsageError(
                f"{reference} names no registry, so nothing is attached to it", hint=NAME_ITS_REGISTRY
            )
        if self.settings.offline:
            raise UsageError("what is attached is in the registry, which --offline doesn't ask")
        with self.progress.stage("pull"):
            found = attached_document(self._parts.registry, repository, image.digest, artifact_type)
        if found is None:
            raise FetchError(
                f"{reference}: no {artifact_type} is attached to {image.digest}",
                hint="without --attached it is made from the image's layers",
            )
        return found

    def pull(
        self,
        reference: str,
        *,
        platform: Platform | None = None,
        outputs: Sequence[str] = (),
        load: bool = False,
    ) -> PullResult:
        """What ``reference`` names, whole in the store under its name, and brought to ``outputs``, as of a
        build, and with ``load`` into the Docker engine. Of an index all images, or that of ``platform``; with
        ``load`` and no outputs, of the engine's.

        A registry is asked, whatever the store has under that name, except offline. Raises ``FetchError``
        and ``PublishError``."""
        started = self._clock()
        publishers = self._parts.publishers(outputs, load=load)
        if platform is None and load and not outputs:
            platform = self._parts.engine_platform()
        place = ImageLocator.parse(reference, self._directory)
        with self.progress.stage("look up"):
            source = self._sources.open(place if self.settings.offline else place.fresh())
            tree = tree_of(source, top_for(source, source.manifest(), platform))
            self._lease.use(*map(blob_name, tree.digests))
            missing = self._missing(tree)
            opened = self._opened(place, source, tree.top)
        if len(opened.images) > _FEW:
            self.progress.note(f"all {len(opened.images)} platforms are pulled; --platform takes one")
        with self.progress.stage("pull"):
            opened.source.pull(tree.blobs)
            opened.pull()
        name = place.given_name
        self._keep(opened, tree, name)
        publication = ImageSet(
            images=opened.images,
            names=(_familiar(name),) if name else (),
            whole=whole_of(tree),
        )
        published = []
        for where, publish in publishers.items():
            with self.progress.stage(f"publish {where.partition(':')[0]}"):
                published.append(publish(publication))
        fetched = sum(each.size for each in missing)
        pinned = f"{_familiar(name)}@{opened.top.digest}" if name else opened.top.digest
        return PullResult(
            reference=self._parts.loaded_reference(publication, pinned) if load else pinned,
            digest=opened.top.digest,
            images=opened.images,
            fetched=fetched,
            present=sum(blob.size for blob in tree.blobs) - fetched,
            seconds=self._clock() - started,
            published=tuple(published),
        )

    def _missing(self, tree: Tree) -> list[Descriptor]:
        return [blob for blob in tree.blobs if not self._parts.store.has_blob(blob.digest)]

    def _keep(self, opened: OpenedImage, tree: Tree, name: Reference | None) -> None:
        """Records images that are whole in the store, for a prune to treat them as those that were built."""
        index = ImageIndex(self._parts.store, time.time)
        for image in opened.images:
            index.put(f"manifest-{image.digest.removeprefix('sha256:')}", image)
        if name is not None:
            self._name(name, opened.images, tree)

    def _name(self, name: Reference, images: Sequence[Image], tree: Tree) -> None:
        digests = [image.digest for image in images]
        Names(self._parts.store, time.time).put(name.tagged, tree.top.digest, digests, tree.digests)

    def push(self, reference: str, repositories: Sequence[str]) -> tuple[CopyResult, ...]:
        """The image ``reference``, of the store before any registry, in each of ``repositories``
        (``REPO[:TAG]``) byte for byte; without ``TAG`` under its own. Raises ``PublishError``,
        ``FetchError`` and ``UsageError``."""
        targets = self._parts.push_targets(repositories)
        attachments = self._parts.attachments()
        place = ImageLocator.parse(reference, self._directory)
        with self.progress.stage("look up"):
            source = self._sources.open(place, own_first=True)
            top = source.manifest()
        return tuple(
            self._copied(place, source, top, target, referrers=False, attachments=attachments)
            for target in targets
        )

    def pruner(self, repository: str) -> RepositoryPruner:
        """What plans and removes old images of ``repository`` (``REPO``). Raises ``UsageError``."""
        from envbuild.images.prune import RepositoryPruner

        target = push_target(repository, self.settings.registry)
        if target.tag is not None:
            raise UsageError(f"{repository!r} is an image, not a repository", hint="leave out the tag")
        return RepositoryPruner(self._parts.registry, target.repository)

    def copy(
        self, source: str, destination: str, *, platform: Platform | None = None, referrers: bool = True
    ) -> CopyResult:
        """``source`` at ``destination``, byte for byte: an image, an index with all it lists, or any other
        artifact; of an index the image of ``platform`` alone, where one is given.

        From registry to registry, what refers to it is copied too, unless ``referrers`` is False. Raises
        ``PublishError``, ``FetchError`` and ``UsageError``."""
        started = self._clock()
        place = ImageLocator.parse(source, self._directory)
        there = ImageLocator.parse(destination, self._directory)
        if there.kind in (Kind.DAEMON, Kind.DIGEST):
            raise UsageError(
                f"nothing is copied to {destination!r}",
                hint="an engine gets images by envbuild pull --load, the store by envbuild pull",
            )
        target = None
        if there.path is None:
            (target,) = self._parts.push_targets([destination.removeprefix("docker://")])
        with self.progress.stage("look up"):
            opened = self._sources.open(place)
            top = top_for(opened, opened.manifest(), platform)
        if target is not None:
            return self._copied(place, opened, top, target, referrers=referrers)
        assert there.path is not None
        images: tuple[Image, ...] = ()
        if there.kind is Kind.DOCKER_ARCHIVE:
            from envbuild.images.sinks.archive import one_platform

            images = images_of(opened, top)
            one_platform(images)
            top = opened.manifest(images[0].digest)
        tree = tree_of(opened, top)
        with self.progress.stage("pull"):
            self._lease.use(*map(blob_name, tree.digests))
            opened.pull(tree.blobs)
        name = there.name or (_familiar(place.given_name) if place.given_name else None)
        publisher = self._parts.publishers([f"{there.kind.value}:{there.path}"], load=False)
        publication = ImageSet(images=images, names=(name,) if name else (), whole=whole_of(tree))
        with self.progress.stage(f"publish {there.kind.value}"):
            (where,) = (publish(publication) for publish in publisher.values())
        return _copy_result(source, where, tree, self._clock() - started)

    def _copied(
        self,
        place: ImageLocator,
        source: ImageSource,
        top: Manifest,
        target: PushTarget,
        *,
        referrers: bool,
        attachments: Attachments | None = None,
    ) -> CopyResult:
        started = self._clock()
        tree = tree_of(source, top)
        tag = target.tag or self._own_tag(place, source, top)
        copier = Copier(
            source=source,
            remote=self._parts.registry,
            store=self._parts.store,
            progress=self.progress,
            lease=self._lease,
        )
        count = 0
        with self.progress.stage("push"):
            attach = prepare = None
            if attachments is not None:
                publication = _publication(source, tree)
                attachments = self._attachable(attachments, publication, place)
                attach = partial(attachments, publication=publication, fetch=copier.fetch)
                prepare = partial(attachments.prepare, publication)
            pushed = copier.push(tree, target.repository, (tag,), attach=attach, prepare=prepare)
            origin = _repository(place, source) if referrers and not self.settings.offline else None
            if origin is not None:
                count, more = copier.push_referrers(tree, target.repository, origin)
                if more is not None:
                    pushed = pushed.plus(more.sent, more.mounted, more.present)
        if isinstance(source, StoreSource) and (images := _publication(source, tree).images):
            # As of what a build pushes, the store knows that name from now on.
            self._name(replace(target.repository, tag=tag), images, tree)
        result = _copy_result(place.text, pushed.references[0], tree, self._clock() - started)
        return replace(result, pushed=pushed, referrers=count)

    def _attachable(
        self, attachments: Attachments, publication: ImageSet, place: ImageLocator
    ) -> Attachments:
        """``attachments`` for all but what a build has only found in a registry by its labels."""
        index = ImageIndex(self._parts.store, time.time)
        unverified = {image.digest for image in publication.images if index.only_found(image)}
        if unverified:
            _log.warning(
                "%s was only found by what its labels say, so it is neither attested nor signed; "
                "envbuild build --verify-found composes it and compares first",
                place.text,
            )
        return attachments.without(frozenset(unverified)) if unverified else attachments

    def _own_tag(self, place: ImageLocator, source: ImageSource, top: Manifest) -> str:
        """The tag that the image has where it is, or that a build gave it."""
        name = place.given_name
        if name is not None and name.tag is not None:
            return name.tag
        with suppress(FetchError):
            locks = [each.lock_digest for each in images_of(source, top)]
            if all(locks):
                return identity_tag(locks)
        raise UsageError(f"{place.text} has no tag of its own", hint="name one: REPO:TAG")


def _repository(place: ImageLocator, source: ImageSource) -> Reference | None:
    """Of a registry, where ``place`` names one, whether ``source`` is that or the store."""
    return place.reference if place.hosted or isinstance(source, RegistrySource) else None


def _publication(source: ImageSource, tree: Tree) -> ImageSet:
    """``tree`` with the images that it has, of which there are none in an artifact."""
    images: tuple[Image, ...] = ()
    with suppress(FetchError):
        images = images_of(source, tree.top)
    return ImageSet(images=images, names=(), whole=whole_of(tree))


def _copy_result(source: str, where: str, tree: Tree, seconds: float) -> CopyResult:
    return CopyResult(
        source=source,
        reference=where,
        digest=tree.top.digest,
        media_type=tree.top.media_type,
        manifests=len(tree.manifests),
        size=sum(blob.size for blob in tree.blobs),
        seconds=seconds,
    )


def _familiar(name: Reference) -> str:
    return f"{name.familiar}:{name.tag}" if name.tag else name.familiar
