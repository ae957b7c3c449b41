"""Operations on images that exist, wired for one call: ``Pipeline`` starts from a spec, this from an image.

An image is named by a reference of a registry, or ``oci:DIR[:NAME]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuild.progress import Progress
from envbuild.publish.base import Image
from envbuild.remote.base import Manifest
from envbuild.remote.contents import image_source
from envbuild.remote.describe import images_of
from envbuild.remote.source import ImageSource
from envbuild.settings import Settings
from envbuild.wiring import Parts


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedImage:
    """What a reference names: a manifest or an index, whose layers need not be here yet."""

    reference: str
    """As it was asked for."""
    top: Manifest
    images: tuple[Image, ...]
    """Each platform's; one, where ``top`` is no index."""
    source: ImageSource


class Images:
    """``environ`` is the process's environment; ``directory`` is what relative paths are relative to."""

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self._parts = Parts(settings, progress, environ)
        self._directory = directory or Path()

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def open(self, reference: str) -> OpenedImage:
        """The image or images that ``reference`` names: manifests and configs in the store, and checked.

        Raises ``FetchError``, and ``UsageError`` for what is no reference."""
        source = image_source(reference, self._parts.store, self._parts.registry, self._directory)
        with self.progress.stage("look up"):
            top = source.manifest()
            return OpenedImage(reference=reference, top=top, images=images_of(source, top), source=source)
