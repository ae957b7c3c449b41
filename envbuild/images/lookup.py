"""Images that a registry has already: found by their tag, and believed only if they say in full that they
are what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from envbuild.errors import FetchError, PublishError
from envbuild.images.closure import for_platform
from envbuild.images.contents import check_diff_ids
from envbuild.images.describe import image_of
from envbuild.images.sources.base import RegistrySource
from envbuild.oci.image import Image
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.registry.base import Manifest, Remote, UnreachableError
from envbuild.store.content import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedImage:
    """What an image must say of itself to be the one."""

    platform: Platform
    lock_digest: str
    definition_digest: str
    level: str
    follows: Callable[[Image], bool] | None = None
    """Whether manifest and config are those that the lock gives: asked of an image that says it is the one;
    None: it isn't asked. May raise ``FetchError``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedImage:
    """An image whose manifest and config are in the store; layers needn't be."""

    image: Image
    reference: Reference
    """Where it was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateRepository:
    """A repository that may have images."""

    repository: Reference
    remote: Callable[[], Remote]
    required: bool = False
    """Whether there is no going on without it, because it is pushed to: then it had better be reached before
    a long build than after it."""


@dataclass(kw_only=True)
class Lookup:
    """Looks into ``places``, in their order, for one call: no tag is asked for twice, and a registry that
    doesn't answer isn't asked again."""

    places: Sequence[CandidateRepository]
    progress: Progress
    _tops: dict[tuple[str, str], Manifest | None] = field(default_factory=dict)
    _away: set[str] = field(default_factory=set)

    def find(self, wanted: ExpectedImage, tags: Sequence[str]) -> MatchedImage | None:
        """The image under one of ``tags``, itself or in an index. What can't be believed is a warning.

        Raises ``PublishError`` for a required registry that can't be reached."""
        for place in self.places:
            for tag in tags:
                top = self._top(place, tag)
                matched_image = self._checked(place, tag, top, wanted) if top is not None else None
                if matched_image is not None:
                    return matched_image
        return None

    def _top(self, place: CandidateRepository, tag: str) -> Manifest | None:
        registry, key = place.repository.registry, (place.repository.name, tag)
        if key not in self._tops:
            self._tops[key] = None
            if registry in self._away:
                return None
            try:
                self._tops[key] = place.remote().find_manifest(place.repository, tag)
            except UnreachableError as error:
                if place.required:
                    raise PublishError(error.message, hint=error.hint) from error
                self._give_up(registry, error)
            except FetchError as error:
                self._give_up(registry, error)
        return self._tops[key]

    def _give_up(self, registry: str, error: FetchError) -> None:
        self._away.add(registry)
        self.progress.note(f"no image is looked for in {registry}: {error.message}")

    def _checked(
        self, place: CandidateRepository, tag: str, top: Manifest, wanted: ExpectedImage
    ) -> MatchedImage | None:
        repository = place.repository
        where = f"{repository.name}:{tag}"
        source = RegistrySource(repository, place.remote())
        try:
            manifest = for_platform(source, wanted.platform, top)
            if isinstance(manifest, tuple):
                return None
            image = image_of(source, manifest)
            differs = _differences(image, wanted)
            if not differs and wanted.follows is not None and not wanted.follows(image):
                differs = ["it isn't what its lock gives: others have put layers on it, or changed settings"]
        except FetchError as error:
            _log.warning("%s isn't used: %s", where, error.message)
            return None
        if differs:
            _log.warning("%s isn't used: %s", where, "; ".join(differs))
            return None
        return MatchedImage(image=image, reference=Reference.parse(f"{where}@{top.digest}"))


def _differences(image: Image, wanted: ExpectedImage) -> list[str]:
    """What ``image`` says of itself that isn't what was wanted."""
    return [
        f"its {what} is {stated or 'not stated'}, not {asked}"
        for what, stated, asked in (
            ("platform", str(image.platform), str(wanted.platform)),
            ("lock", image.lock_digest, wanted.lock_digest),
            ("definition", image.definition_digest, wanted.definition_digest),
            ("level", image.level, wanted.level),
        )
        if stated != asked
    ]


def pull_layers(matched_image: MatchedImage, remote: Remote, store: Store) -> None:
    """All layers of ``found`` in the store, each with its manifest's digest and its config's diff_id.

    Raises ``FetchError``."""
    layers = [
        (Descriptor(digest=layer.digest, size=layer.size, media_type=layer.media_type), layer.diff_id)
        for layer in matched_image.image.layers
    ]
    remote.pull_blobs(matched_image.reference, list(dict.fromkeys(layer for layer, _ in layers)))
    check_diff_ids(store, layers, matched_image.reference.name)
