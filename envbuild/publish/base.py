"""What an image is once it is in the store, and what brings it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from envbuild.platforms import Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRecord:
    """One layer as stored: digest of the compressed blob, diff_id of the tar, size in bytes of the blob."""

    digest: str
    diff_id: str
    size: int
    media_type: str
    name: str = ""
    artifacts: tuple[str, ...] = ()
    """``name version`` of each artifact inside; empty for a layer of the base."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A single-platform image whose blobs are all in the store."""

    platform: Platform
    digest: str
    """Of the manifest."""
    media_type: str
    size: int
    """Of the manifest, in bytes."""
    config_digest: str
    layers: tuple[LayerRecord, ...]
    lock_digest: str
    definition_digest: str
    level: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """One or more images (one a platform) to be published under ``names`` (``repository:tag``).

    With several images, ``index_digest`` names the index that lists them, in the store too."""

    images: tuple[Image, ...]
    names: tuple[str, ...]
    index_digest: str | None = None

    @property
    def digest(self) -> str:
        """What a pinned reference ends with: the index's digest where there is one."""
        return self.index_digest or self.images[0].digest


class Publisher(Protocol):
    """Brings a publication to one place."""

    def publish(self, publication: Publication) -> str:
        """Returns a line for people that says where it now is. Raises ``PublishError``."""
