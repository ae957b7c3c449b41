"""An image whose blobs are in the store, its layers, and the set of images that a push is about."""

from __future__ import annotations

from dataclasses import dataclass

from envbuild.platforms import Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
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
    layers: tuple[Layer, ...]
    lock_digest: str
    definition_digest: str
    level: str

    @property
    def blobs(self) -> tuple[str, ...]:
        """Digests of all that it consists of: manifest, config, layers from the lowest."""
        return (self.digest, self.config_digest, *(layer.digest for layer in self.layers))


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignImage:
    """A manifest or index as others made it, to be published byte for byte with all it leads to."""

    digest: str
    media_type: str
    size: int
    """Of the manifest or index itself, in bytes."""
    blobs: tuple[str, ...]
    """Digests of everything, itself included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSet:
    """One or more images (one a platform) to be published under ``names`` (``repository:tag``).

    With several images, ``index_digest`` names the index that lists them, in the store too. ``whole`` stands
    for both where others made the image; ``images`` are then those of it that engines run, if any."""

    images: tuple[Image, ...]
    names: tuple[str, ...]
    index_digest: str | None = None
    whole: ForeignImage | None = None

    @property
    def digest(self) -> str:
        """What a pinned reference ends with: the index's digest where there is one."""
        if self.whole is not None:
            return self.whole.digest
        return self.index_digest or self.images[0].digest
