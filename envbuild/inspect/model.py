"""What is found out about images that exist: values only."""

from __future__ import annotations

from dataclasses import dataclass

from envbuild.lock.diff import PinChange
from envbuild.oci.image import Image

__all__ = [
    "Contained",
    "ImageDifference",
    "InspectedImage",
    "InspectedLayer",
    "Inspection",
    "LayerDifference",
    "PathDifference",
    "PinChange",
    "Rebased",
    "ReferringDocument",
    "Value",
    "Verdict",
]

Value = tuple[str, str | None, str | None]
"""What a setting is called, and what it is in the one and the other; None: it isn't there."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Contained:
    """One package inside an image. ``kind`` is ``debian``, ``conda``, ``pip``, ``maven``…"""

    kind: str
    name: str
    version: str
    size: int | None = None
    """Of its download, in bytes; None where nothing says it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedLayer:
    """One layer, the lowest first. ``name`` is empty for one that envbuild didn't compose."""

    digest: str
    diff_id: str
    size: int
    media_type: str
    name: str
    packages: tuple[Contained, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedImage:
    """The image of one platform, as its config and, where it is ours, the lock inside say."""

    platform: str
    digest: str
    config_digest: str
    level: str
    """Empty for an image that isn't ours."""
    derived: str
    """What it has on top of the image of ours that it was made of; empty where it wasn't."""
    created: str
    lock_digest: str
    definition_digest: str
    base: str
    """``Debian trixie``, or an image's reference; empty where nothing says it."""
    base_digest: str
    python: str
    user: str
    working_dir: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    ports: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    layers: tuple[InspectedLayer, ...]
    activation: tuple[tuple[str, str], ...]
    """The variables that packages set when the environment was activated, each with its package."""
    packages_from: str
    """``lock``, ``layers`` (what lies in them), or empty where it wasn't looked for."""
    packages: tuple[Contained, ...] = ()
    """Those of no particular layer."""

    @property
    def size(self) -> int:
        """Of all layers, in bytes, compressed as they are."""
        return sum(distinct.size for distinct in {layer.digest: layer for layer in self.layers}.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringDocument:
    """Something that a registry has attached to the image."""

    digest: str
    artifact_type: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What a reference names."""

    reference: str
    digest: str
    media_type: str
    images: tuple[InspectedImage, ...]
    documents: tuple[ReferringDocument, ...] | None = None
    """None where there is no registry to ask."""

    @property
    def size(self) -> int:
        """Of all different layers, in bytes."""
        return sum({layer.digest: layer.size for image in self.images for layer in image.layers}.values())


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PathDifference:
    """A path that is not the same on both sides, and why: ``added``, ``removed``, ``missing``, ``extra``,
    or some of ``kind``, ``content``, ``mode``, ``owner``, ``mtime``, ``link``, ``order``."""

    path: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDifference:
    """What differs between two images of one platform. ``platform`` is empty where two were compared whose
    platforms differ."""

    platform: str
    packages: tuple[PinChange, ...]
    config: tuple[Value, ...]
    pulled: int
    """Bytes of layers of the second that the first hasn't."""
    size: int
    """Bytes of all layers of the second."""
    same: bool
    """Whether both are the same manifest."""
    paths: tuple[PathDifference, ...] | None = None
    """None where it wasn't asked for."""
    more_paths: int = 0
    """How many further paths differ."""
    only: tuple[str, ...] = ()
    """What alone differs, where the files and settings are the same: ``compression``, ``history``, ``the form
    of the manifest``."""

    @property
    def differs(self) -> bool:
        return not self.same


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerDifference:
    """A layer that isn't what the lock gives."""

    name: str
    digest: str | None
    """Of the image's; None: it has none like it."""
    expected: str | None
    """Of the recomposed; None: the lock gives none like it."""
    artifacts: tuple[str, ...]
    """What the lock puts into it."""
    paths: tuple[PathDifference, ...] = ()
    more_paths: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What verifying the image of one platform came to."""

    platform: str
    digest: str
    level: str
    """What the image says of itself."""
    reproduced: bool
    """Whether composing its lock again gave the very same manifest."""
    reason: str = ""
    """Why not, in one line; empty where it was reproduced."""
    layers: tuple[LayerDifference, ...] = ()
    config: tuple[Value, ...] = ()
    manifest: tuple[Value, ...] = ()
    """What differs in the manifest beside config and layers."""
    signed: bool | None = None
    """Whether it has a signature by the key; None where none was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebased:
    """An image on another base, in the store, and where it was brought."""

    reference: str
    """``name:tag@sha256:…``, or the digest alone."""
    digest: str
    images: tuple[Image, ...]
    changes: tuple[PinChange, ...]
    """Of the base."""
    taken: int
    """Layers that were taken over."""
    made: int
    """Layers that were composed."""
    reasons: tuple[str, ...] = ()
    """Why all layers of a platform were composed from packages, where they were."""
    published: tuple[str, ...] = ()
