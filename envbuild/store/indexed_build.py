"""Builds that the store remembers: a lock's image is looked up, or built by one process at a time."""

from __future__ import annotations

from collections.abc import Callable

from envbuild.errors import BuildError
from envbuild.oci.image import Image
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from envbuild.store.leases import Lease
from envbuild.store.locks import locked

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
