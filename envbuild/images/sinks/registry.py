"""Pushes: an image of the store becomes tags of a repository, and a tag only ever names what is all there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from envbuild.errors import FetchError, PublishError
from envbuild.images.base import PushResult
from envbuild.images.closure import Tree, tree_of
from envbuild.images.repository import known_repositories, remember_repository
from envbuild.images.sinks.base import check_images
from envbuild.images.sources.base import StoreSource
from envbuild.oci.image import ImageSet
from envbuild.oci.manifest import Descriptor, parts_of
from envbuild.oci.reference import Reference
from envbuild.registry.base import Remote
from envbuild.store.content import Store


class Attach(Protocol):
    """Adds to what was pushed, before a tag names it."""

    def prepare(self, image_set: ImageSet) -> None:
        """Begins what needs no registry, while layers are on their way."""

    def __call__(
        self,
        repository: Reference,
        image_set: ImageSet,
        fetch: Callable[[Descriptor], object] | None = None,
    ) -> None:
        """Attaches what isn't attached yet; ``fetch`` is the push's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrySink:
    """The :class:`envbuild.images.sinks.base.Sink` of a repository and the tags that name what is pushed."""

    remote: Remote
    store: Store
    repository: Reference
    """Its own tag and digest don't count."""
    tags: Sequence[str]
    near: Sequence[Reference] | None = None
    """Repositories that may have blobs: those that this one's registry can take from them, or from one of
    earlier pushes, aren't sent. None: no other repository counts."""
    fetch: Callable[[Descriptor], object] | None = None
    """Brings blobs that must be sent and aren't in the store."""
    attach: Attach | None = None
    """Adds to what was pushed."""

    def publish(self, image_set: ImageSet) -> PushResult:
        """Makes the repository have all images of ``image_set``, byte for byte, and then each of the tags, in
        their order, name what the set's digest names.

        See ``push_manifest``. Raises ``PublishError``."""
        check_images(image_set)
        attach = self.attach
        push = ManifestPush(
            digest=image_set.digest,
            repository=self.repository,
            tags=tuple(dict.fromkeys(self.tags)),
            mount_from=self._lenders(),
            fetch=self.fetch,
            attach=partial(attach, image_set=image_set, fetch=self.fetch) if attach else None,
            prepare=partial(attach.prepare, image_set) if attach else None,
        )
        result = push_manifest(push, self.remote, self.store)
        if self.near is not None:
            remember_repository(self.store, self.repository)
        return result

    def _lenders(self) -> tuple[Reference, ...]:
        if self.near is None:
            return ()
        registry = self.repository.registry
        known = {other.name: other for other in (*self.near, *known_repositories(self.store, registry))}
        return tuple(
            other
            for other in known.values()
            if other.registry == registry and other.name != self.repository.name
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestPush:
    """A manifest or index of the store that is to be pushed."""

    digest: str
    repository: Reference
    tags: tuple[str, ...]
    mount_from: tuple[Reference, ...] = ()
    """Repositories of the same registry that may have blobs."""
    fetch: Callable[[Descriptor], object] | None = None
    """Brings a blob that must be sent into the store."""
    attach: Callable[[Reference], None] | None = None
    """Called when all but the tags is there, and again where a tag is there already: the push before may have
    been one without."""
    prepare: Callable[[], None] | None = None
    """Called before anything is sent, if anything is."""


def push_manifest(push: ManifestPush, remote: Remote, store: Store) -> PushResult:
    """Pushes the manifest or index with all below it, and lets the tags name it.

    Layers go first, each once however many platforms share it, then configs, manifests, and the index with
    the tags: whatever fails, no tag names what isn't whole. Where the registry has the digest under a tag,
    nothing below is asked for. Manifests are in the store; other blobs are, too, unless ``push.fetch`` brings
    those that must be sent. Raises ``PublishError``.
    """
    digest, tags = push.digest, push.tags
    target = replace(push.repository, tag=None, digest=digest)
    with _refusals(target):
        source = StoreSource(digest, store, "the image")
        tree = tree_of(source, source.manifest())
        there = _named(digest, target, tags, remote)
        done = PushResult(repository=target.name, digest=digest, tags=tuple(dict.fromkeys(tags)))
        if there:
            done = done.plus(present=sum(blob.size for blob in tree.blobs))
        else:
            if push.prepare is not None:
                push.prepare()
            for blobs in _layers_then_configs(tree):
                moved = remote.push_blobs(target, blobs, mount_from=push.mount_from, fetch=push.fetch)
                done = done.plus(moved.sent, moved.mounted, moved.present)
            for manifest in tree.manifests[:-1]:
                remote.push_manifest(target, manifest.content, manifest.media_type, manifest.digest)
            if push.attach is not None:
                remote.push_manifest(target, tree.top.content, tree.top.media_type, digest)
        if push.attach is not None:
            push.attach(target)
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
    held = set()
    for tag in dict.fromkeys(tags):
        present = remote.find_manifest(target, tag)
        if present is not None and present.digest == digest:
            held.add(tag)
    return frozenset(held)


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
