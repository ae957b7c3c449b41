"""Operations on images that exist, wired for one call: ``Pipeline`` starts from a spec, this from an image.

What names an image (REF) is one of

* ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, ``docker-archive:FILE[:NAME]``: files of this machine;
* ``docker-daemon:NAME``: an image of the Docker engine;
* ``sha256:HEX``: a manifest or index of the store;
* ``[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]``. Without a host it is the name that a build gave, where the
  store has it, else one of Docker Hub. With a host it is the registry's, and the store's where the registry
  has none of that name or can't be asked (``--offline``). ``docker://`` in front leaves the store out.

``remote.place`` reads these forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from envbuild.errors import FetchError
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.publish.base import Image
from envbuild.remote.base import Manifest
from envbuild.remote.describe import images_of, top_for
from envbuild.remote.manifest import Descriptor
from envbuild.remote.place import Place
from envbuild.remote.source import ImageSource
from envbuild.remote.sources import Sources
from envbuild.settings import Settings
from envbuild.store.content import Store, blob_name
from envbuild.store.leases import Lease
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
    store: Store
    lease: Lease

    def image(self, platform: Platform | None = None) -> Image:
        """The image of ``platform``; None: the only one, or this machine's. Raises ``FetchError``."""
        if platform is None and len(self.images) == 1:
            return self.images[0]
        wanted = platform or Platform.host()
        for image in self.images:
            if image.platform == wanted:
                return image
        have = ", ".join(str(image.platform) for image in self.images)
        raise FetchError(
            f"{self.reference} has no image for {wanted}, only for {have}", hint="choose one with --platform"
        )

    def pull(self, platform: Platform | None = None) -> tuple[Image, ...]:
        """All images, or that of ``platform``, with all their layers in the store: each has its digest, and
        the diff_id that its config says. Raises ``FetchError``."""
        from envbuild.remote.diff_ids import check_diff_ids

        chosen = self.images if platform is None else (self.image(platform),)
        layers = [
            (Descriptor(digest=each.digest, size=each.size, media_type=each.media_type), each.diff_id)
            for image in chosen
            for each in image.layers
        ]
        self.lease.use(*(blob_name(layer.digest) for layer, _ in layers))
        self.source.pull([layer for layer, _ in layers])
        check_diff_ids(self.store, layers, self.source.what)
        return chosen


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
        self._stack = ExitStack()
        self._held: Lease | None = None

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._held = None
        self._parts.close()

    @property
    def _lease(self) -> Lease:
        """Held until the end, so that no prune takes what an opened image has brought here."""
        if self._held is None:
            self._held = self._stack.enter_context(Lease(self._parts.store))
        return self._held

    @cached_property
    def _sources(self) -> Sources:
        from envbuild.engines.docker_save import save_image

        parts = self._parts
        return Sources(
            parts.store,
            lambda: parts.registry,
            scratch=lambda: self._stack.enter_context(parts.store.scratch()),
            save=lambda name, file: save_image(parts.environ, name, file, self.progress),
            offline=self.settings.offline,
        )

    def open(self, reference: str, platform: Platform | None = None) -> OpenedImage:
        """The image or images that ``reference`` names, or that of ``platform``: manifests and configs are in
        the store, and checked.

        Raises ``FetchError``, and ``UsageError`` for what is no reference."""
        place = Place.parse(reference, self._directory)
        with self.progress.stage("look up"):
            source = self._sources.open(place)
            top = top_for(source, source.manifest(), platform)
            images = images_of(source, top)
        blobs = [each for image in images for each in (image.digest, image.config_digest)]
        self._lease.use(*(blob_name(digest) for digest in (top.digest, *blobs)))
        return OpenedImage(
            reference=reference,
            top=top,
            images=images,
            source=source,
            store=self._parts.store,
            lease=self._lease,
        )
