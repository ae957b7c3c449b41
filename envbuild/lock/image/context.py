"""Own Dockerfiles: the digests of the images that their steps name, as far as registries say them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from envbuild.errors import FetchError, ResolveError
from envbuild.lock.base import BaseRequest, ResolvedBase, Upgrade
from envbuild.lock.model import ContextBase, ImagePin
from envbuild.oci.reference import Reference
from envbuild.progress import Progress, Silent
from envbuild.registry.base import Remote, UnreachableError
from envbuild.specs.dockerfile_images import DockerfileImage, dockerfile_images
from envbuild.specs.importers.dockerfile import DOCKERFILE_LIMIT
from envbuild.specs.model import BaseSpec, BuildContextSpec

_log = logging.getLogger(__name__)


class ContextResolver:
    """Bases that a Dockerfile of the user's makes; paths are relative to ``directory``.

    A registry is asked once for each image, for all platforms. ``remote`` connects when it is called."""

    name = "context"

    def __init__(
        self, remote: Callable[[], Remote], directory: Path, progress: Progress | None = None
    ) -> None:
        self._remote = remote
        self._directory = directory
        self._progress = progress or Silent()
        self._digests: dict[str, str | None] = {}
        self._silent: set[str] = set()
        """Registries that didn't answer."""

    def accepts(self, spec: BaseSpec) -> bool:
        return isinstance(spec, BuildContextSpec)

    def resolve(self, request: BaseRequest) -> ResolvedBase:
        """What no registry says is left to whoever builds, and said; what the present lock has stays.

        Raises ``ResolveError`` where an upgrade of a pin can't be done: no pin is lost by one."""
        spec = request.spec
        if not isinstance(spec, BuildContextSpec):
            raise ResolveError("not a build context")
        pins = tuple(sorted(set(self._pins(spec, request))))
        return ResolvedBase(
            base=ContextBase(digest=spec.digest, dockerfile=spec.dockerfile_path, images=pins), python=None
        )

    def _pins(self, spec: BuildContextSpec, request: BaseRequest) -> Iterator[ImagePin]:
        present = request.preferred.images if isinstance(request.preferred, ContextBase) else ()
        kept = {pin.reference: pin for pin in present}
        for image in self._named(spec):
            reference = image.reference
            if reference is None:
                self._leave(image.text, image.text, "only a build knows which image that is")
            elif reference in kept and not _is_upgraded(image, request.upgrade):
                yield kept[reference]
            elif (digest := self._digest(image, reference, reference in kept, request)) is not None:
                yield ImagePin(reference=reference, digest=digest)

    def _named(self, spec: BuildContextSpec) -> tuple[DockerfileImage, ...]:
        path = self._directory / spec.path / spec.dockerfile_path
        try:
            with path.open("rb") as file:
                content = file.read(DOCKERFILE_LIMIT + 1)
        except OSError as error:
            raise ResolveError(f"can't read {path}: {error.strerror}") from error
        if len(content) > DOCKERFILE_LIMIT:
            _log.warning("%s is larger than any Dockerfile: its images aren't pinned", spec.dockerfile_path)
            return ()
        return dockerfile_images(content.decode(errors="surrogateescape"))

    def _digest(
        self, image: DockerfileImage, reference: str, pinned: bool, request: BaseRequest
    ) -> str | None:
        """The digest that the tag names now; None where nobody says it."""
        if reference in self._digests:
            return self._digests[reference]
        parsed = Reference.parse(reference)
        try:
            if request.offline:
                raise FetchError("this is an offline run")
            if parsed.registry in self._silent:
                raise FetchError(f"{parsed.registry} didn't answer")
            digest = self._remote().manifest(parsed).digest
            self._progress.note(f"the Dockerfile's {image.name} is {reference}@{digest}")
        except FetchError as error:
            if pinned:
                raise ResolveError(
                    f"the Dockerfile's {image.name} can't be upgraded: {error.message}", hint=error.hint
                ) from error
            if isinstance(error, UnreachableError):
                self._silent.add(parsed.registry)
            self._leave(reference, image.name or image.text, error.message)
            return None
        self._digests[reference] = digest
        return digest

    def _leave(self, key: str, shown: str, reason: str) -> None:
        """Says once that an image isn't pinned."""
        if key not in self._digests:
            self._digests[key] = None
            _log.warning("the Dockerfile's %s isn't pinned: %s", shown, reason)


def _is_upgraded(image: DockerfileImage, upgrade: Upgrade) -> bool:
    names = {"base", image.name or "", image.reference or ""}
    if image.reference is not None:
        names.add(Reference.parse(image.reference).familiar)
    return any(upgrade.allows(name) for name in names)
