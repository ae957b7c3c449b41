"""Copies: what a source has, byte for byte, in a repository, with all that refers to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from envbuild.errors import FetchError
from envbuild.images.base import PushResult
from envbuild.images.closure import Tree, tree_of
from envbuild.images.repository import known_repositories, remember_repository
from envbuild.images.sinks.registry import ManifestPush, push_manifest
from envbuild.images.sources.base import ImageSource, RegistrySource
from envbuild.oci.image import ForeignImage
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Progress
from envbuild.registry.base import Remote
from envbuild.registry.referrers import COSIGN, enlist, fallback_tag, referrers
from envbuild.store.content import Store, blob_name
from envbuild.store.leases import Lease

_REFERRERS = 1000


def whole_of(tree: Tree) -> ForeignImage:
    """What ``tree`` is as a set of images."""
    top = tree.top
    return ForeignImage(
        digest=top.digest, media_type=top.media_type, size=len(top.content), blobs=tree.digests
    )


@dataclass(frozen=True, kw_only=True)
class Copier:
    """Copies from ``source`` to registries. What a registry has isn't fetched at all; where the source is a
    repository of the same registry, its blobs are mounted."""

    source: ImageSource
    remote: Remote
    store: Store
    progress: Progress
    lease: Lease

    def fetch(self, blob: Descriptor) -> None:
        """Brings a blob of the source into the store."""
        self.source.blob(blob.digest, blob.size)

    def push(
        self,
        tree: Tree,
        repository: Reference,
        tags: Sequence[str],
        *,
        attach: Callable[[Reference], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> PushResult:
        """Makes each of ``tags`` of ``repository`` name ``tree``; before, calls ``attach``, and
        ``prepare`` before that. Raises ``PublishError``."""
        self.lease.use(*map(blob_name, tree.digests))
        push = ManifestPush(
            digest=tree.top.digest,
            repository=repository,
            tags=tuple(dict.fromkeys(tags)),
            mount_from=self._near(repository),
            fetch=self.fetch,
            attach=attach,
            prepare=prepare,
        )
        done = push_manifest(push, self.remote, self.store)
        remember_repository(self.store, repository)
        return done

    def push_referrers(
        self, tree: Tree, repository: Reference, origin: Reference
    ) -> tuple[int, PushResult | None]:
        """Copies all that refers to a manifest of ``tree`` in ``origin``, and what refers to that, by the
        registry's list or by cosign's tags; how many there were, and what it came to."""
        count, moved = 0, None
        copier = replace(self, source=RegistrySource(origin, self.remote))
        todo = [manifest.digest for manifest in tree.manifests]
        for tag in (f"{fallback_tag(digest)}{suffix}" for digest in todo for suffix in COSIGN):
            signed = self.remote.find_manifest(origin, tag)
            if signed is not None:
                done = copier.push(tree_of(copier.source, signed), repository, (tag,))
                moved = done if moved is None else moved.plus(done.sent, done.mounted, done.present)
                count += 1
        seen = set(todo)
        while todo:
            subject = todo.pop()
            new = [
                referrer
                for referrer in referrers(self.remote, origin, subject)
                if referrer.digest not in seen
            ]
            for referrer in new:
                attached = tree_of(copier.source, copier.source.manifest(referrer.digest))
                done = copier.push(attached, repository, ())
                moved = done if moved is None else moved.plus(done.sent, done.mounted, done.present)
            if new:
                enlist(self.remote, repository, subject, new)
            seen.update(referrer.digest for referrer in new)
            todo += [referrer.digest for referrer in new]
            count += len(new)
            if count > _REFERRERS:
                raise FetchError(f"{origin.name}: more than {_REFERRERS} artifacts refer to the image")
        return count, moved

    def _near(self, repository: Reference) -> tuple[Reference, ...]:
        near = (self.source.reference,) if isinstance(self.source, RegistrySource) else ()
        known = known_repositories(self.store, repository.registry)
        named = (replace(place, tag=None, digest=None) for place in (*near, *known))
        return tuple(
            source
            for source in dict.fromkeys(named)
            if source.registry == repository.registry and source.repository != repository.repository
        )
