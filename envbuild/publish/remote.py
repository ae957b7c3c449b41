"""Pushes: an image of the store becomes tags of a repository, and a tag only ever names what is all there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from envbuild.digest import digest_bytes
from envbuild.errors import EnvbuildError, FetchError, PublishError
from envbuild.progress import Progress
from envbuild.publish.base import Publication, PushResult
from envbuild.publish.contents import check_images
from envbuild.publish.repository import PushTarget, known_repositories, remember_repository
from envbuild.remote.base import Remote
from envbuild.remote.manifest import Descriptor, media_type_of, parts_of
from envbuild.remote.media import INDEXES
from envbuild.remote.reference import Reference
from envbuild.store.content import Store

_DEPTH = 3
"""How deep indexes may lie within indexes."""


class RemotePublisher:
    """Pushes to one repository, under each of ``tags``; without any, by digest alone."""

    def __init__(
        self,
        repository: Reference,
        tags: Sequence[str],
        remote: Remote,
        store: Store,
        progress: Progress,
        *,
        mount_from: Sequence[Reference] = (),
        fetch: Callable[[Descriptor], object] | None = None,
    ) -> None:
        self._repository = repository
        self._tags = tuple(tags)
        self._remote = remote
        self._store = store
        self._progress = progress
        self._mount_from = tuple(mount_from)
        self._fetch = fetch

    def publish(self, publication: Publication) -> str:
        pushed = self.push(publication)
        return pushed.references[0]

    def push(self, publication: Publication) -> PushResult:
        """As ``publish``, with what it came to."""
        return push_publication(
            publication,
            self._repository,
            self._tags,
            self._remote,
            self._store,
            self._progress,
            mount_from=self._mount_from,
            fetch=self._fetch,
        )


def push_everywhere(
    publication: Publication,
    targets: Sequence[PushTarget],
    tags: Sequence[str],
    remote: Remote,
    store: Store,
    progress: Progress,
    *,
    near: Sequence[Reference] = (),
    fetch: Callable[[Descriptor], object] | None = None,
) -> Iterator[PushResult]:
    """Pushes to each of ``targets`` in turn, under the first of ``tags``, the target's own and the others.

    Blobs that a repository of ``near``, or one of earlier pushes, has on the same registry aren't sent again.
    Raises ``PublishError``."""
    for target in targets:
        repository = target.repository
        others = {each.name: each for each in (*near, *known_repositories(store, repository.registry))}
        publisher = RemotePublisher(
            repository,
            tuple(dict.fromkeys((*tags[:1], *([target.tag] if target.tag else ()), *tags[1:]))),
            remote,
            store,
            progress,
            mount_from=[
                each
                for each in others.values()
                if each.registry == repository.registry and each.name != repository.name
            ],
            fetch=fetch,
        )
        yield publisher.push(publication)
        remember_repository(store, repository)


def push_publication(
    publication: Publication,
    repository: Reference,
    tags: Sequence[str],
    remote: Remote,
    store: Store,
    progress: Progress,
    *,
    mount_from: Sequence[Reference] = (),
    fetch: Callable[[Descriptor], object] | None = None,
) -> PushResult:
    """Makes ``repository`` (its own tag and digest don't count) have all images of ``publication``, byte for
    byte, and then each of ``tags``, in this order, name what the publication's digest names.

    See ``push_top``. Raises ``PublishError``.
    """
    check_images(publication)
    return push_top(
        publication.digest, repository, tags, remote, store, progress, mount_from=mount_from, fetch=fetch
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
) -> PushResult:
    """Pushes the manifest or index ``digest`` of the store, with all below it, and lets ``tags`` name it.

    Layers go first, each once however many platforms share it, then configs, manifests, and the index with
    the tags: whatever fails, no tag names what isn't whole. Where the registry has ``digest`` under a tag,
    nothing below is asked for. Manifests are in the store; other blobs are, too, unless ``fetch`` brings
    those that must be sent. Raises ``PublishError``.
    """
    target = replace(repository, tag=None, digest=digest)
    with _refusals(target, store):
        tree = _tree(digest, store)
        there = _named(digest, target, tags, remote)
        done = PushResult(repository=target.name, digest=digest, tags=tuple(dict.fromkeys(tags)))
        if not there:
            for blobs in (tree.layers, tree.configs):
                # Configs come after the layers: some registries look below a config when it arrives.
                moved = remote.push_blobs(target, blobs, mount_from=mount_from, fetch=fetch)
                done = done.plus(moved.sent, moved.mounted, moved.present)
            for content in tree.manifests[:-1]:
                remote.push_manifest(target, content, media_type_of(content), digest_bytes(content))
        top = tree.manifests[-1]
        for name in done.tags or (digest,):
            if name not in there:
                remote.push_manifest(target, top, media_type_of(top), name)
        if there:
            done = done.plus(present=sum(each.size for each in (*tree.layers, *tree.configs)))
        return done


def _named(digest: str, target: Reference, tags: Sequence[str], remote: Remote) -> frozenset[str]:
    """Which of ``tags`` name ``digest`` there; a registry with one such tag has all below it."""
    found = set()
    for tag in dict.fromkeys(tags):
        present = remote.find_manifest(target, tag)
        if present is not None and present.digest == digest:
            found.add(tag)
    return frozenset(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tree:
    """All that a manifest or index names: each blob once, manifests with what they name before them."""

    layers: tuple[Descriptor, ...]
    configs: tuple[Descriptor, ...]
    manifests: tuple[bytes, ...]


def _tree(digest: str, store: Store) -> _Tree:
    layers: dict[str, Descriptor] = {}
    configs: dict[str, Descriptor] = {}
    manifests: dict[str, bytes] = {}

    def visit(digest: str, depth: int) -> None:
        content = store.blob(digest).read_bytes()
        if digest_bytes(content) != digest:
            raise PublishError(
                f"the manifest {digest} in the store is damaged", hint="build the image again with --no-cache"
            )
        parts = parts_of(content, digest)
        if media_type_of(content) in INDEXES:
            if depth == _DEPTH:
                raise PublishError(f"{digest}: indexes within indexes")
            for each in parts.manifests:
                visit(each.digest, depth + 1)
        layers.update((each.digest, each) for each in parts.layers)
        configs.update((each.digest, each) for each in parts.configs)
        manifests[digest] = content

    visit(digest, 0)
    return _Tree(
        layers=tuple(layers.values()),
        configs=tuple(each for each in configs.values() if each.digest not in layers),
        manifests=tuple(manifests.values()),
    )


@contextmanager
def _refusals(target: Reference, store: Store) -> Iterator[None]:
    """Says what a registry, or the store, refused as a push that failed."""
    try:
        yield
    except FetchError as error:
        raise PublishError(f"the push to {target.name} failed: {error.message}", hint=error.hint) from error
    except EnvbuildError:
        raise
    except OSError as error:
        raise PublishError(
            f"the push to {target.name} failed: the store lacks parts of the image: {error}",
            hint="build it again with --no-cache",
        ) from error
