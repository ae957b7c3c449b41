"""``--load``: an image into a Docker engine, without the layers that it already has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from envbuild.docker.client import NoEngine, connect
from envbuild.errors import PublishError
from envbuild.images.sinks.archive import hybrid_members
from envbuild.images.sinks.base import blob_path, check_images, names
from envbuild.images.sinks.tar_stream import Member, stream
from envbuild.lazy import lazy
from envbuild.oci.image import Image, ImageSet
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.store.content import Store

if TYPE_CHECKING:
    import docker
    import requests
else:
    docker = lazy("docker")
    requests = lazy("requests")

_log = logging.getLogger(__name__)

_INSPECTED = 500
"""The newest images of the engine whose layers are looked at; each costs a call of some milliseconds."""


class DaemonSink:
    """Loads the image of the engine's own platform and checks that the engine then has those very bytes."""

    def __init__(self, store: Store, progress: Progress, environ: Mapping[str, str]) -> None:
        self._store = store
        self._progress = progress
        self._environ = environ

    def publish(self, image_set: ImageSet) -> str:
        check_images(image_set)
        client = connect(self._environ)
        if isinstance(client, NoEngine):
            raise PublishError(client.reason, hint=client.hint)
        try:
            image = _image_for(client, image_set)
            loaded = load(client, image, image_set.names, self._store, self._progress)
        finally:
            client.close()
        return f"the Docker engine, as {', '.join(image_set.names) or loaded}"


def load(
    client: docker.DockerClient, image: Image, tags: tuple[str, ...], store: Store, progress: Progress
) -> str:
    """Makes the engine have ``image`` under ``tags`` and returns the id it has there.

    On the classic store the id is the config's digest, on containerd's the manifest's. Layers that an
    image of the engine starts with are not sent; an engine that won't have it that way is sent
    everything. Raises ``PublishError``, also where the result isn't the image that was sent.
    """
    try:
        return _load(client, image, tags, store, progress)
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise PublishError(
            f"the Docker engine failed: {error}", hint="see the engine's own log for the reason"
        ) from error


def bytes_to_load(client: docker.DockerClient, image: Image) -> int | None:
    """What ``load`` would send for ``image``, compressed; None where the engine doesn't say what it has."""
    try:
        if _find(client, image) is not None:
            return 0
        return sum(layer.size for layer in image.layers[_held_layers(client, image) :])
    except (docker.errors.DockerException, requests.RequestException):
        return None


def loaded_reference(image_set: ImageSet, pinned: str, environ: Mapping[str, str]) -> str:
    """What the engine resolves to the image that it has loaded: ``pinned`` (``name:tag@sha256:…``) where it
    can, else that name without the digest, else the image's id.

    Docker's classic store knows no digest of an image that was neither pulled nor pushed. Raises
    ``PublishError``."""
    client = connect(environ)
    if isinstance(client, NoEngine):
        raise PublishError(client.reason, hint=client.hint)
    try:
        identity = _find(client, _image_for(client, image_set))
        if identity is None:
            raise PublishError("the Docker engine has lost the image again", hint="load it once more")
        for name in (pinned, pinned.partition("@")[0]):
            with suppress(docker.errors.APIError):
                if str(_inspect(client, name)["Id"]) == identity:
                    return name
        return identity
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise PublishError(f"the Docker engine failed: {error}") from error
    finally:
        client.close()


def engine_platform(environ: Mapping[str, str]) -> Platform:
    """What the engine runs. Raises ``PublishError`` where there is none."""
    client = connect(environ)
    if isinstance(client, NoEngine):
        raise PublishError(client.reason, hint=client.hint)
    try:
        return _platform(client)
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise PublishError(f"the Docker engine failed: {error}") from error
    finally:
        client.close()


def _platform(client: docker.DockerClient) -> Platform:
    version = client.api.version()
    return Platform.parse(f"{version['Os']}/{version['Arch']}")


def _load(
    client: docker.DockerClient, image: Image, tags: tuple[str, ...], store: Store, progress: Progress
) -> str:
    image_set = ImageSet(images=(image,), names=tags)
    familiar = tuple(name.familiar for name in names(image_set))
    present = _find(client, image)
    if present is None:
        held = _held_layers(client, image)
        if held:
            _log.debug("the engine has %d of %d layers", held, len(image.layers))
        _send(client, image_set, store, progress, held)
        present = _find(client, image)
        if present is None:
            raise PublishError(
                f"the engine took the image, but has none with the id {image.config_digest}",
                hint="load a file written with -o docker-archive:FILE to see what the engine says",
            )
    for tag in familiar:
        repository, _, name = tag.rpartition(":")
        client.api.tag(present, repository, name, force=True)
        identifier = _inspect(client, tag)["Id"]
        if identifier != present:
            raise PublishError(f"the engine has {identifier} as {tag}, not {present}")
    return present


def _send(
    client: docker.DockerClient, image_set: ImageSet, store: Store, progress: Progress, held: int
) -> None:
    image = image_set.images[0]
    members = hybrid_members(image_set, store)
    # A layer may stand twice in an image; its blob is left out only if no later place needs it.
    needed = {layer.digest for layer in image.layers[held:]}
    spared = {blob_path(layer.digest) for layer in image.layers[:held] if layer.digest not in needed}
    try:
        _post(client, tuple(member for member in members if member.name not in spared), progress)
    except (docker.errors.APIError, PublishError):
        if not spared:
            raise
        _log.debug("the engine refused an image without the layers it has; sending all")
        _post(client, members, progress)
    else:
        if spared and _find(client, image) is None:
            _post(client, members, progress)


def _post(client: docker.DockerClient, members: tuple[Member, ...], progress: Progress) -> None:
    total = sum(member.size for member in members)
    with progress.task("publish", "the Docker engine", total=total) as task:
        for message in _responses(client, stream(members, task.advance)):
            if "error" in message:
                raise PublishError(f"the engine refused the image: {message['error']}")


def _responses(client: docker.DockerClient, body: Iterator[bytes]) -> Iterator[Mapping[str, Any]]:
    send: Callable[..., Iterator[Mapping[str, Any]] | None] = client.api.load_image
    yield from send(body, quiet=True) or ()


def _inspect(client: docker.DockerClient, name: str) -> Mapping[str, Any]:
    call: Callable[[str], Mapping[str, Any]] = client.api.inspect_image
    return call(name)


def _find(client: docker.DockerClient, image: Image) -> str | None:
    """The id under which the engine has the image, or None."""
    for digest in (image.config_digest, image.digest):
        try:
            inspected = _inspect(client, digest)
        except docker.errors.NotFound:
            continue
        identity = str(inspected["Id"])
        if identity in (image.config_digest, image.digest):
            return identity
    return None


def _held_layers(client: docker.DockerClient, image: Image) -> int:
    """How many layers, from the first on, some image of the engine begins with as well.

    Only Docker's classic store knows layers by their chain; containerd's needs the blobs, so 0 for it.
    """
    status = client.api.info().get("DriverStatus") or []
    if any("io.containerd.snapshotter" in str(value) for _, value in status):
        return 0
    wanted = [layer.diff_id for layer in image.layers]

    best = 0
    listed = sorted(client.api.images(), key=lambda image: -int(image.get("Created") or 0))
    for summary in listed[:_INSPECTED]:
        try:
            layers = _inspect(client, summary["Id"]).get("RootFS", {}).get("Layers") or []
        except docker.errors.NotFound:
            continue
        shared = 0
        for one, other in zip(wanted, layers, strict=False):
            if one != other:
                break
            shared += 1
        best = max(best, shared)
        if best == len(wanted):
            break
    return best


def _image_for(client: docker.DockerClient, image_set: ImageSet) -> Image:
    """The image of the engine's platform; the only one there is, whatever its platform."""
    if not image_set.images:
        raise PublishError("an engine loads images, and this is something else")
    if len(image_set.images) == 1:
        return image_set.images[0]
    engine = _platform(client)
    for image in image_set.images:
        if image.platform == engine:
            return image
    have = ", ".join(str(image.platform) for image in image_set.images)
    raise PublishError(
        f"the Docker engine runs {engine}; the image is for {have}",
        hint=f"add --platform {engine} to the build",
    )
