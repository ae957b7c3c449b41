"""Pushes: an image of the store becomes tags of a repository, and a tag only ever names what is all there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from envbuild.errors import FetchError, PublishError
from envbuild.images.base import PushResult
from envbuild.images.closure import Tree, tree_of
from envbuild.images.repository import PushTarget, known_repositories, remember_repository
from envbuild.images.sinks.contents import check_images
from envbuild.images.sources.base import StoreSource
from envbuild.oci.image import ImageSet
from envbuild.oci.manifest import Descriptor, parts_of
from envbuild.oci.reference import Reference
from envbuild.progress import Progress
from envbuild.registry.base import Remote
from envbuild.store.content import Store


class Attach(Protocol):
    """Adds to what was pushed, before a tag names it."""

    def prepare(self, publication: ImageSet) -> None:
        """Begins what needs no registry, while layers are on their way."""

    def __call__(
        self,
        repository: Reference,
        publication: ImageSet,
        fetch: Callable[[Descriptor], object] | None = None,
    ) -> None:
        """Attaches what isn't attached yet; ``fetch`` is the push's own."""


def push_everywhere(
    publication: ImageSet,
    targets: Sequence[PushTarget],
    tags: Sequence[str],
    remote: Remote,
    store: Store,
    progress: Progress,
    *,
    near: Sequence[Reference] = (),
    fetch: Callable[[Descriptor], object] | None = None,
    attach: Attach | None = None,
) -> Iterator[PushResult]:
    """Pushes to each of ``targets`` in turn, under the first of ``tags``, the target's own and the others.

    Blobs that a repository of ``near``, or one of earlier pushes, has on the same registry aren't sent again.
    Raises ``PublishError``."""
    for target in targets:
        repository = target.repository
        others = {each.name: each for each in (*near, *known_repositories(store, repository.registry))}
        yield push_publication(
            publication,
            repository,
            tuple(dict.fromkeys((*tags[:1], *([target.tag] if target.tag else ()), *tags[1:]))),
            remote,
            store,
            progress,
            mount_from=[
                other
                for other in others.values()
                if other.registry == repository.registry and other.name != repository.name
            ],
            fetch=fetch,
            attach=attach,
        )
        remember_repository(store, repository)


def push_publication(
    publication: ImageSet,
    repository: Reference,
    tags: Sequence[str],
    remote: Remote,
    store: Store,
    progress: Progress,
    *,
    mount_from: Sequence[Reference] = (),
    fetch: Callable[[Descriptor], object] | None = None,
    attach: Attach | None = None,
) -> PushResult:
    """Makes ``repository`` (its own tag and digest don't count) have all images of ``publication``, byte for
    byte, and then each of ``tags``, in this order, name what the publication's digest names.

    See ``push_top``. Raises ``PublishError``.
    """
    check_images(publication)
    return push_top(
        publication.digest,
        repository,
        tags,
        remote,
        store,
        progress,
        mount_from=mount_from,
        fetch=fetch,
        attach=partial(attach, publication=publication, fetch=fetch) if attach else None,
        prepare=partial(attach.prepare, publication) if attach else None,
    )


def push_top(
    digest: str,
    repository: Reference,
    tags: Sequence[str],
    remote: Remote,
    store: Store,
    progress: Progress,
    *,
    mount_from: Sequence[Reference] = (),
    fetch: Callable[[Descriptor], object] | None = None,
    attach: Callable[[Reference], None] | None = None,
    prepare: Callable[[], None] | None = None,
) -> PushResult:
    """Pushes the manifest or index ``digest`` of the store, with all below it, and lets ``tags`` name it.

    Layers go first, each once however many platforms share it, then configs, manifests, and the index with
    the tags: whatever fails, no tag names what isn't whole. Where the registry has ``digest`` under a tag,
    nothing below is asked for. Manifests are in the store; other blobs are, too, unless ``fetch`` brings
    those that must be sent. ``attach`` is called when all but the tags is there, and again where a tag is
    there already: the push before may have been one without. ``prepare`` is called before
    anything is sent, if anything is. Raises ``PublishError``.
    """
    target = replace(repository, tag=None, digest=digest)
    with _refusals(target):
        source = StoreSource(digest, store, "the image")
        tree = tree_of(source, source.manifest())
        there = _named(digest, target, tags, remote)
        done = PushResult(repository=target.name, digest=digest, tags=tuple(dict.fromkeys(tags)))
        if there:
            done = done.plus(present=sum(blob.size for blob in tree.blobs))
        else:
            if prepare is not None:
                prepare()
            for blobs in _layers_then_configs(tree):
                moved = remote.push_blobs(target, blobs, mount_from=mount_from, fetch=fetch)
                done = done.plus(moved.sent, moved.mounted, moved.present)
            for manifest in tree.manifests[:-1]:
                remote.push_manifest(target, manifest.content, manifest.media_type, manifest.digest)
            if attach is not None:
                remote.push_manifest(target, tree.top.content, tree.top.media_type, digest)
        if attach is not None:
            attach(target)
        for name in done.tags or (digest,):
            if name not in there:
                remote.push_manifest(target, tree.top.content, tree.top.media_type, name)
        return done


def _layers_then_configs(tree: Tree) -> tuple[list[Descriptor], list[Descriptor]]:
    """All blobs, each once. Configs come after the layers: some registries look below one when it arrives."""
    configs = {
        config.digest for top in tree.manifests for config in parts_of(top.content, top.digest).configs
    }
    return (
        [blob for blob in tree.blobs if blob.digest not in configs],
        [blob for blob in tree.blobs if blob.digest in configs],
    )


def _named(digest: str, target: Reference, tags: Sequence[str], remote: Remote) -> frozenset[str]:
    """Which of ``tags`` name ``digest`` there; a registry with one such tag has all below it."""
    found = set()
    for tag in dict.fromkeys(tags):
        present = remote.find_manifest(target, tag)
        if present is not None and present.digest == digest:
            found.add(tag)
    return frozenset(found)


@contextmanager
def _refusals(target: Reference) -> Iterator[None]:
    """Says what a registry, or the store, refused as a push that failed."""
    try:
        yield
    except FetchError as error:
        raise PublishError(f"the push to {target.name} failed: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise PublishError(
            f"the push to {target.name} failed: the store can't be read: {error}",
            hint="build the image again with --no-cache",
        ) from error
