"""Repositories and tags of images: how they are named, written, and remembered from one push to the next."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from envbuild.errors import EnvbuildError, UsageError
from envbuild.oci.digest import canonical_digest
from envbuild.oci.image import ImageSet
from envbuild.oci.reference import Reference, without_login
from envbuild.store.content import Store
from envbuild.store.names import Names

_TAG_DIGITS = 12
_KNOWN = 4
"""Repositories of a registry that are remembered; each is a question for every blob that must be sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushTarget:
    """One ``REPO[:TAG]`` that an image goes to."""

    repository: Reference
    """Without a meaning to its tag: the image's own tag is always there."""
    tag: str | None = None
    """That was asked for besides."""

    def with_own(self, tags: Sequence[str]) -> tuple[str, ...]:
        """``tags`` with the target's own after the first: before those that move from image to image."""
        return (*tags[:1], *([self.tag] if self.tag else ()), *tags[1:])


def push_target(text: str, registry: str | None) -> PushTarget:
    """What ``REPO[:TAG]`` means. One without a host is below the setting ``registry``.

    Raises ``UsageError``; also where there is no such setting, since nobody's image should become public
    because a host was forgotten.
    """
    name = text.strip()
    if without_login(name) != name:
        raise UsageError(
            f"a repository is named without a login: {without_login(name)!r}",
            hint="write REPO or REPO:TAG; 'docker login' keeps logins",
        )
    if "@" in name:
        raise UsageError(
            f"a push goes to a repository, not to a digest: {text!r}", hint="write REPO or REPO:TAG"
        )
    if not _has_host(name):
        if registry is None:
            raise UsageError(
                f"{text!r} names no registry to push to",
                hint=f"write docker.io/{name} or HOST[:PORT]/{name}, or set registry (ENVBUILD_REGISTRY)",
            )
        name = f"{registry}/{name}"
    reference = Reference.parse(name)
    tagged = ":" in name.rpartition("/")[2]
    return PushTarget(repository=replace(reference, tag=None), tag=reference.tag if tagged else None)


def repository_of(name: str, registry: str) -> Reference:
    """The repository of an image's ``name`` below the setting ``registry``. Raises ``UsageError``."""
    return replace(Reference.parse(f"{registry}/{name}"), tag=None)


def identity_tag(lock_digests: Sequence[str]) -> str:
    """The first 12 hex digits of the lock digest, or of all of several platforms' lock digests."""
    digest = lock_digests[0]
    if len(lock_digests) > 1:
        digest = canonical_digest("lock-index", 1, sorted(lock_digests))
    return digest.removeprefix("sha256:")[:_TAG_DIGITS]


def repository_name(name: str) -> str:
    """``name`` as a repository's: in lower case, and single separators only (distribution spec)."""
    return re.sub(r"[^a-z0-9]+$", "", re.sub(r"([._-])[._-]+", r"\1", name.lower()))


def remember_names(store: Store, image_set: ImageSet, names: Sequence[str]) -> None:
    """Lets the store know the image set by ``names``; what can't be a name is for sinks to refuse."""
    known = Names(store, time.time)
    images = [image.digest for image in image_set.images]
    others = [image_set.index_digest] if image_set.index_digest else []
    for name in names:
        with contextlib.suppress(UsageError):
            known.put(Reference.parse(name).tagged, image_set.digest, images, others)


def known_repositories(store: Store, registry: str) -> tuple[Reference, ...]:
    """Where this store has pushed to in ``registry``, the latest first: what they have can be mounted."""
    try:
        names = json.loads((store.root / "metadata" / "pushed" / registry).read_bytes())
        return tuple(repository_of(name, registry) for name in names[:_KNOWN] if isinstance(name, str))
    except (OSError, ValueError, TypeError, EnvbuildError):
        return ()


def remember_repository(store: Store, repository: Reference) -> None:
    """Notes a push, for the next to another repository. What can't be written is forgotten."""
    known = [other.repository for other in known_repositories(store, repository.registry)]
    if known[:1] == [repository.repository]:
        return
    names = list(dict.fromkeys([repository.repository, *known]))[:_KNOWN]
    with contextlib.suppress(OSError, EnvbuildError), store.scratch() as scratch:
        part = scratch / "pushed"
        part.write_text(json.dumps(names), encoding="utf-8")
        part.replace(store.directory("metadata/pushed") / repository.registry)


def _has_host(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")
