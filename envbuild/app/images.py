"""Images that exist: opened by what names them, pulled, pushed, copied.

What names an image (REF) is one of

* ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, ``docker-archive:FILE[:NAME]``: files of this machine;
* ``docker-daemon:NAME``: an image of the Docker engine;
* ``sha256:HEX``: a manifest or index of the store;
* ``[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]``. Without a host it is the name that a build gave, where the
  store has it, else one of Docker Hub. With a host it is the registry's, and the store's where the registry
  has none of that name or can't be asked (``--offline``). ``docker://`` in front leaves the store out.

``images.locator`` reads these forms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from envbuild.app.publish import attachments_of, engine_platform, loaded_reference, push_targets, sinks_of
from envbuild.app.session import Session
from envbuild.attest.base import CYCLONEDX, SPDX, AttachedDocument
from envbuild.attest.cyclonedx import cyclonedx
from envbuild.attest.fetch import attached_document
from envbuild.attest.sbom import bill_of
from envbuild.attest.spdx import spdx
from envbuild.errors import FetchError, UsageError
from envbuild.images.base import CopyResult, PullResult
from envbuild.images.closure import Tree, tree_of
from envbuild.images.contents import check_diff_ids
from envbuild.images.copy import Copier, whole_of
from envbuild.images.describe import images_of, top_for
from envbuild.images.locator import ImageLocator, Kind
from envbuild.images.prune import RepositoryPruner
from envbuild.images.repository import PushTarget, identity_tag, push_target
from envbuild.images.sinks.archive import one_platform
from envbuild.images.sources.base import ImageSource, RegistrySource, StoreSource
from envbuild.oci.image import Image, ImageSet, Layer
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference
from envbuild.plan.model import Inputs
from envbuild.platforms import Platform
from envbuild.registry.base import Manifest
from envbuild.store.content import Store, blob_name
from envbuild.store.images import ImageIndex
from envbuild.store.leases import Lease
from envbuild.store.names import Names

if TYPE_CHECKING:
    from envbuild.attest.attach import Attachments

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
        layers = [
            (
                Descriptor(
                    digest=wanted_layer.digest, size=wanted_layer.size, media_type=wanted_layer.media_type
                ),
                wanted_layer.diff_id,
            )
            for wanted_layer in wanted
        ]
        self.lease.use(*(blob_name(layer.digest) for layer, _ in layers))
        self.source.pull([layer for layer, _ in layers])
        check_diff_ids(self.store, layers, self.source.what)


def open_image(session: Session, reference: str, platform: Platform | None = None) -> OpenedImage:
    """The image or images that ``reference`` names, or that of ``platform``: manifests and configs are in
    the store, and checked.

    Raises ``FetchError``, and ``UsageError`` for what is no reference."""
    locator = ImageLocator.parse(reference, session.directory)
    with session.progress.stage("look up"):
        source = session.image_sources.open(locator)
        return _open_source(session, locator, source, top_for(source, source.manifest(), platform))


def _open_source(session: Session, locator: ImageLocator, source: ImageSource, top: Manifest) -> OpenedImage:
    images = images_of(source, top)
    blobs = [blob for image in images for blob in (image.digest, image.config_digest)]
    session.lease.use(*(blob_name(digest) for digest in (top.digest, *blobs)))
    return OpenedImage(
        reference=locator.text,
        top=top,
        images=images,
        source=source,
        repository=_repository(locator, source),
        store=session.store,
        lease=session.lease,
    )


def sbom(
    session: Session,
    reference: str,
    *,
    platform: Platform | None = None,
    form: str = "cyclonedx",
    attached: bool = False,
) -> AttachedDocument:
    """The bill of materials (``cyclonedx`` or ``spdx``) of the image that ``reference`` names, of
    ``platform`` or this machine's where there are several: made from its layers, or with ``attached`` the
    one that its registry has. Raises ``FetchError``, ``BuildError`` and ``UsageError``."""
    opened = open_image(session, reference, platform)
    image = opened.image(platform)
    if attached:
        return _attached_document(session, opened, image, CYCLONEDX if form == "cyclonedx" else SPDX)
    with session.progress.stage("pull"):
        session.lease.use(*(blob_name(layer.digest) for layer in image.layers))
        opened.source.pull(
            [
                Descriptor(digest=layer.digest, size=layer.size, media_type=layer.media_type)
                for layer in image.layers
            ]
        )
    with session.progress.stage("look inside"):
        bill = bill_of(image, session.store)
    return spdx(bill) if form == "spdx" else cyclonedx(bill)


def _attached_document(
    session: Session, opened: OpenedImage, image: Image, artifact_type: str
) -> AttachedDocument:
    reference, repository = opened.reference, opened.repository
    if repository is None:
        raise UsageError(
            f"{reference} names no registry, so nothing is attached to it", hint=NAME_ITS_REGISTRY
        )
    if session.settings.offline:
        raise UsageError("what is attached is in the registry, which --offline doesn't ask")
    with session.progress.stage("pull"):
        document = attached_document(session.registry, repository, image.digest, artifact_type)
    if document is None:
        raise FetchError(
            f"{reference}: no {artifact_type} is attached to {image.digest}",
            hint="without --attached it is made from the image's layers",
        )
    return document


def pull_image(
    session: Session,
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
    started = session.clock()
    publishers = sinks_of(session, outputs, load=load)
    if platform is None and load and not outputs:
        platform = engine_platform(session)
    locator = ImageLocator.parse(reference, session.directory)
    with session.progress.stage("look up"):
        source = session.image_sources.open(locator if session.settings.offline else locator.fresh())
        tree = tree_of(source, top_for(source, source.manifest(), platform))
        session.lease.use(*map(blob_name, tree.digests))
        missing = _missing(session, tree)
        opened = _open_source(session, locator, source, tree.top)
    if len(opened.images) > _FEW:
        session.progress.note(f"all {len(opened.images)} platforms are pulled; --platform takes one")
    with session.progress.stage("pull"):
        opened.source.pull(tree.blobs)
        opened.pull()
    name = locator.given_name
    _keep_images(session, opened, tree, name)
    publication = ImageSet(
        images=opened.images,
        names=(_familiar(name),) if name else (),
        whole=whole_of(tree),
    )
    published = []
    for where, publish in publishers.items():
        with session.progress.stage(f"publish {where.partition(':')[0]}"):
            published.append(publish(publication))
    fetched = sum(missing_blob.size for missing_blob in missing)
    pinned = f"{_familiar(name)}@{opened.top.digest}" if name else opened.top.digest
    return PullResult(
        reference=loaded_reference(session, publication, pinned) if load else pinned,
        digest=opened.top.digest,
        images=opened.images,
        fetched=fetched,
        present=sum(blob.size for blob in tree.blobs) - fetched,
        seconds=session.clock() - started,
        published=tuple(published),
    )


def _missing(session: Session, tree: Tree) -> list[Descriptor]:
    return [blob for blob in tree.blobs if not session.store.has_blob(blob.digest)]


def _keep_images(session: Session, opened: OpenedImage, tree: Tree, name: Reference | None) -> None:
    """Records images that are whole in the store, for a prune to treat them as those that were built."""
    index = ImageIndex(session.store, time.time)
    for image in opened.images:
        index.put(f"manifest-{image.digest.removeprefix('sha256:')}", image)
    if name is not None:
        _remember_name(session, name, opened.images, tree)


def _remember_name(session: Session, name: Reference, images: Sequence[Image], tree: Tree) -> None:
    digests = [image.digest for image in images]
    Names(session.store, time.time).put(name.tagged, tree.top.digest, digests, tree.digests)


def push_image(session: Session, reference: str, repositories: Sequence[str]) -> tuple[CopyResult, ...]:
    """The image ``reference``, of the store before any registry, in each of ``repositories``
    (``REPO[:TAG]``) byte for byte; without ``TAG`` under its own. Raises ``PublishError``,
    ``FetchError`` and ``UsageError``."""
    targets = push_targets(session, repositories)
    attachments = attachments_of(session)
    locator = ImageLocator.parse(reference, session.directory)
    with session.progress.stage("look up"):
        source = session.image_sources.open(locator, own_first=True)
        top = source.manifest()
    return tuple(
        _copy_to_registry(session, locator, source, top, target, referrers=False, attachments=attachments)
        for target in targets
    )


def repository_pruner(session: Session, repository: str) -> RepositoryPruner:
    """What plans and removes old images of ``repository`` (``REPO``). Raises ``UsageError``."""
    target = push_target(repository, session.settings.registry)
    if target.tag is not None:
        raise UsageError(f"{repository!r} is an image, not a repository", hint="leave out the tag")
    return RepositoryPruner(session.registry, target.repository)


def copy_image(
    session: Session,
    source: str,
    destination: str,
    *,
    platform: Platform | None = None,
    referrers: bool = True,
) -> CopyResult:
    """``source`` at ``destination``, byte for byte: an image, an index with all it lists, or any other
    artifact; of an index the image of ``platform`` alone, where one is given.

    From registry to registry, what refers to it is copied too, unless ``referrers`` is False. Raises
    ``PublishError``, ``FetchError`` and ``UsageError``."""
    started = session.clock()
    locator = ImageLocator.parse(source, session.directory)
    goal = ImageLocator.parse(destination, session.directory)
    if goal.kind in (Kind.DAEMON, Kind.DIGEST):
        raise UsageError(
            f"nothing is copied to {destination!r}",
            hint="an engine gets images by envbuild pull --load, the store by envbuild pull",
        )
    target = None
    if goal.path is None:
        (target,) = push_targets(session, [destination.removeprefix("docker://")])
    with session.progress.stage("look up"):
        opened = session.image_sources.open(locator)
        top = top_for(opened, opened.manifest(), platform)
    if target is not None:
        return _copy_to_registry(session, locator, opened, top, target, referrers=referrers)
    assert goal.path is not None
    images: tuple[Image, ...] = ()
    if goal.kind is Kind.DOCKER_ARCHIVE:
        images = images_of(opened, top)
        one_platform([image.platform for image in images])
        top = opened.manifest(images[0].digest)
    tree = tree_of(opened, top)
    with session.progress.stage("pull"):
        session.lease.use(*map(blob_name, tree.digests))
        opened.pull(tree.blobs)
    name = goal.name or (_familiar(locator.given_name) if locator.given_name else None)
    publisher = sinks_of(session, [f"{goal.kind.value}:{goal.path}"], load=False)
    publication = ImageSet(images=images, names=(name,) if name else (), whole=whole_of(tree))
    with session.progress.stage(f"publish {goal.kind.value}"):
        (where,) = (publish(publication) for publish in publisher.values())
    return _copy_result(source, where, tree, session.clock() - started)


def _copy_to_registry(
    session: Session,
    locator: ImageLocator,
    source: ImageSource,
    top: Manifest,
    target: PushTarget,
    *,
    referrers: bool,
    attachments: Attachments | None = None,
) -> CopyResult:
    started = session.clock()
    tree = tree_of(source, top)
    tag = target.tag or _own_tag(locator, source, top)
    copier = Copier(
        source=source,
        remote=session.registry,
        store=session.store,
        progress=session.progress,
        lease=session.lease,
    )
    count = 0
    with session.progress.stage("push"):
        attach = prepare = None
        if attachments is not None:
            publication = _publication(source, tree)
            attachments = _attachable(session, attachments, publication, locator)
            attach = partial(attachments, image_set=publication, fetch=copier.fetch)
            prepare = partial(attachments.prepare, publication)
        pushed = copier.push(tree, target.repository, (tag,), attach=attach, prepare=prepare)
        origin = _repository(locator, source) if referrers and not session.settings.offline else None
        if origin is not None:
            count, more = copier.push_referrers(tree, target.repository, origin)
            if more is not None:
                pushed = pushed.plus(more.sent, more.mounted, more.present)
    if isinstance(source, StoreSource) and (images := _publication(source, tree).images):
        # As of what a build pushes, the store knows that name from now on.
        _remember_name(session, replace(target.repository, tag=tag), images, tree)
    result = _copy_result(locator.text, pushed.references[0], tree, session.clock() - started)
    return replace(result, pushed=pushed, referrers=count)


def _attachable(
    session: Session, attachments: Attachments, publication: ImageSet, locator: ImageLocator
) -> Attachments:
    """``attachments`` for all but what a build has only found in a registry by its labels."""
    index = ImageIndex(session.store, time.time)
    unverified = {image.digest for image in publication.images if index.only_found(image)}
    if unverified:
        _log.warning(
            "%s was only found by what its labels say, so it is neither attested nor signed; "
            "envbuild build --verify-found composes it and compares first",
            locator.text,
        )
    return attachments.without(frozenset(unverified)) if unverified else attachments


def _own_tag(locator: ImageLocator, source: ImageSource, top: Manifest) -> str:
    """The tag that the image has where it is, or that a build gave it."""
    name = locator.given_name
    if name is not None and name.tag is not None:
        return name.tag
    with suppress(FetchError):
        locks = [image.lock_digest for image in images_of(source, top)]
        if all(locks):
            return identity_tag(locks)
    raise UsageError(f"{locator.text} has no tag of its own", hint="name one: REPO:TAG")


def _repository(locator: ImageLocator, source: ImageSource) -> Reference | None:
    """Of a registry, where ``locator`` names one, whether ``source`` is that or the store."""
    return locator.reference if locator.hosted or isinstance(source, RegistrySource) else None


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


def inputs_here(session: Session) -> Inputs:
    """What composing an existing image's lock again reads beside it: files that are named relative to where
    the user stands."""
    return Inputs(directory=session.directory.absolute())
