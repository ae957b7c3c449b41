"""Which image a lock gave before: the index by lock digest that makes a second build a look-up; and what an
image of the store says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envbuild.errors import BuildError
from envbuild.oci.digest import digest_file
from envbuild.oci.image import Image, Layer
from envbuild.oci.manifest import ConfigDocument
from envbuild.platforms import Platform
from envbuild.store.content import Store
from envbuild.store.leases import Lease
from envbuild.store.locks import locked
from envbuild.store.records import Records

INDEX_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image of the index. ``uses`` are the caches it was made with, as names below the store's root
    (``segments/<key>``, ``artifacts/<hex>``…); ``used`` is when it was last asked for, in seconds."""

    key: str
    image: Image
    uses: tuple[str, ...]
    used: float


def composed_key(lock_digest: str) -> str:
    """Where the index has the image that was built from a lock."""
    return lock_digest.removeprefix("sha256:")


def found_key(lock_digest: str) -> str:
    """Where the index has the image of a lock that a registry was found to have."""
    return f"found-{composed_key(lock_digest)}"


class ImageIndex:
    """The images of a store, by the bare hex of their lock digest. ``clock`` gives the time in seconds
    since the epoch."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self._clock = clock
        self._records = Records(store, "images")

    def path(self, key: str) -> Path:
        return self._records.path(key)

    def get(self, key: str, *, thorough: bool = False) -> Image | None:
        """The image, if its record is sound and all its blobs are there: manifest and config by digest,
        layers by size, with ``thorough`` by digest too. Notes the time of use."""
        stored = self._load(key)
        if stored is None or not self._whole(stored.image, thorough):
            return None
        self._records.note_use(key, self._clock())
        return stored.image

    def only_found(self, image: Image) -> bool:
        """Whether a build has found ``image`` in a registry, and nobody here has composed it."""
        if not image.lock_digest:
            return False
        as_found, composed = (self.get(key(image.lock_digest)) for key in (found_key, composed_key))
        return as_found is not None and as_found.digest == image.digest and composed != as_found

    def put(self, key: str, image: Image, uses: tuple[str, ...] = ()) -> None:
        """Records the image, whose blobs are all in the store."""
        value = {"format": INDEX_FORMAT, "image": _dump(image), "uses": sorted(set(uses))}
        body = json.dumps(value, sort_keys=True)
        with self.store.scratch() as scratch:
            self._records.put(key, body, scratch / "image.json", used=self._clock())

    def entries(self) -> tuple[StoredImage, ...]:
        """All sound records, the most recently used first. Looks at no blob."""
        return tuple(sorted(self._all(), key=lambda stored: (-stored.used, stored.key)))

    def drop(self, key: str) -> None:
        self._records.drop(key)

    def _all(self) -> Iterator[StoredImage]:
        return (stored for key in self._records if (stored := self._load(key)) is not None)

    def _load(self, key: str) -> StoredImage | None:
        def parse(value: dict[str, Any]) -> StoredImage | None:
            if value["format"] != INDEX_FORMAT:
                return None
            image, used = _image(value["image"]), self.path(key).stat().st_mtime
            return StoredImage(key=key, image=image, uses=tuple(value["uses"]), used=used)

        return self._records.get(key, parse)

    def _whole(self, image: Image, thorough: bool) -> bool:
        try:
            for digest in (image.digest, image.config_digest):
                if digest_file(self.store.blob(digest)) != digest:
                    self.store.blob(digest).unlink()
                    return False
            for layer in image.layers:
                path = self.store.blob(layer.digest)
                sound = path.stat().st_size == layer.size
                if not sound or (thorough and digest_file(path) != layer.digest):
                    # Gone, so that the layer cache doesn't take it for sound either.
                    path.unlink()
                    return False
        except OSError:
            return False
        return True


def _dump(image: Image) -> dict[str, Any]:
    return {
        "platform": str(image.platform),
        "digest": image.digest,
        "media_type": image.media_type,
        "size": image.size,
        "config_digest": image.config_digest,
        "layers": [
            [layer.digest, layer.diff_id, layer.size, layer.media_type, layer.name, list(layer.artifacts)]
            for layer in image.layers
        ],
        "lock_digest": image.lock_digest,
        "definition_digest": image.definition_digest,
        "level": image.level,
    }


def _image(value: dict[str, Any]) -> Image:
    system, _, architecture = value["platform"].partition("/")
    return Image(
        platform=Platform(system, architecture),
        digest=value["digest"],
        media_type=value["media_type"],
        size=value["size"],
        config_digest=value["config_digest"],
        layers=tuple(
            Layer(
                digest=digest,
                diff_id=diff_id,
                size=size,
                media_type=kind,
                name=name,
                artifacts=tuple(artifacts),
            )
            for digest, diff_id, size, kind, name, artifacts in value["layers"]
        ),
        lock_digest=value["lock_digest"],
        definition_digest=value["definition_digest"],
        level=value["level"],
    )


def read_config(image: Image, store: Store) -> ConfigDocument:
    """The config of an image of the store. Raises ``BuildError``."""
    return ConfigDocument(_document(image.config_digest, store))


def read_manifest(image: Image, store: Store) -> dict[str, Any]:
    """The manifest of an image of the store. Raises ``BuildError``."""
    return _document(image.digest, store)


def _document(digest: str, store: Store) -> dict[str, Any]:
    try:
        document = json.loads(store.blob(digest).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(
            f"the store lacks a part of the image, {digest}", hint="build the image again, or pull it"
        ) from error
    return document if isinstance(document, dict) else {}


Made = tuple[Image, tuple[str, ...]]
"""An image, and the names below the store's root of what it was made with."""


def indexed_build(
    store: Store, digest: str, make: Callable[[Lease], Made], *, reuse: bool, clock: Callable[[], float]
) -> Image:
    """The image of the lock ``digest``: the store's, else the one that ``make`` builds, now the store's too.

    ``make`` names to the lease what it uses. ``reuse=False`` always builds.
    Raises ``BuildError``, also where the store's disk fails.
    """
    key = digest.removeprefix("sha256:")
    index = ImageIndex(store, clock)
    if reuse and (image := index.get(key)):
        return image
    with Lease(store) as lease, locked(store.root / "locks" / f"image-{key}"):
        lease.use(f"images/{key}")
        # Whoever had the lock may have built it meanwhile.
        if reuse and (image := index.get(key)):
            return image
        try:
            image, uses = make(lease)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise BuildError(
                f"can't build in {store.root}: {error.strerror or error}{where}",
                hint="check the directory's permissions and the space on its disk, or set "
                "ENVBUILD_CACHE_DIR to another",
            ) from error
        index.put(key, image, uses)
        return image
