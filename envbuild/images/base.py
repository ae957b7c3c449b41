"""What bringing images elsewhere, copying and pruning them came to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from envbuild.oci.image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
    """What a push to one repository came to. Blobs are counted in bytes."""

    repository: str
    """Registry and repository: ``registry.example.org/team/train``."""
    digest: str
    """Of the manifest or index."""
    tags: tuple[str, ...]
    """All that name it now, as they were asked for; empty: it was pushed by digest alone."""
    sent: int = 0
    mounted: int = 0
    """Taken over from another repository of the registry."""
    present: int = 0
    """The repository had them."""

    @property
    def names(self) -> tuple[str, ...]:
        """``repository:tag`` for each tag."""
        return tuple(f"{self.repository}:{tag}" for tag in self.tags)

    @property
    def references(self) -> tuple[str, ...]:
        """Pinned: ``repository:tag@sha256:…`` for each tag, or ``repository@sha256:…``."""
        return tuple(f"{self.repository}:{tag}@{self.digest}" for tag in self.tags) or (
            f"{self.repository}@{self.digest}",
        )

    def plus(self, sent: int = 0, mounted: int = 0, present: int = 0) -> PushResult:
        """With more bytes."""
        return replace(
            self,
            sent=self.sent + sent,
            mounted=self.mounted + mounted,
            present=self.present + present,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PullResult:
    """An image that is in the store now, and where it was brought."""

    reference: str
    """``name:tag@sha256:…``, or the digest alone of what has no name; of what was loaded, what the engine
    resolves: ``name:tag`` or an id where it knows no digest."""
    digest: str
    images: tuple[Image, ...]
    fetched: int
    """Bytes of blobs that came."""
    present: int
    """Bytes of blobs that were in the store."""
    seconds: float
    published: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyResult:
    """Something that is somewhere else now, byte for byte."""

    source: str
    """As it was asked for."""
    reference: str
    """``repository:tag@sha256:…`` of a registry, or the layout or archive."""
    digest: str
    media_type: str
    manifests: int
    """How many manifests and indexes it consists of."""
    size: int
    """Of all its blobs, in bytes."""
    seconds: float
    pushed: PushResult | None = None
    """What a registry was sent, with the referrers; None for another destination."""
    referrers: int = 0
    """How many artifacts that refer to it were copied too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnImage:
    """An image that envbuild made, under its own tag."""

    tag: str
    digest: str
    children: tuple[str, ...]
    """Digests of the manifests that an index lists."""
    pushed: datetime | None
    """When its provenance was attached, in UTC; None where it has none that says so."""
    kept: str = ""
    """Why it stays; empty: it goes."""

    @property
    def manifests(self) -> tuple[str, ...]:
        return (self.digest, *self.children)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunePlan:
    """What is to happen to a repository."""

    images: tuple[OwnImage, ...]
    """The newest first; those whose time isn't known come last."""
    others: tuple[str, ...]
    """Tags that aren't envbuild's; what they name stays."""
    live: frozenset[str]
    """Digests of all manifests that stay."""

    @property
    def remove(self) -> tuple[OwnImage, ...]:
        return tuple(image for image in self.images if not image.kept)
