"""The root file system of an image, unpacked once and kept in the store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from envbuild.compose.unpack import unpack_layers
from envbuild.errors import BuildError, RunError
from envbuild.oci.image import Image
from envbuild.progress import Progress, Silent
from envbuild.store.content import Store, blob_name
from envbuild.store.leases import Lease

MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "run", "workspace")
"""Directories that a run mounts something on; made where an image lacks them."""


def image_rootfs(image: Image, store: Store) -> Path:
    """The unpacked root file system of ``image``, in the store; unpacked once, complete or not there.

    Nobody may write to it, and a prune takes it unless a lease names it. Raises ``RunError``."""
    target = store.directory("rootfs") / image.digest.removeprefix("sha256:")
    if target.is_dir():
        return target
    with store.scratch() as scratch:
        root = scratch / "rootfs"
        root.mkdir()
        try:
            unpack_image(image, store, root)
            root.replace(target)
        except BuildError as error:
            raise RunError(error.message, hint=error.hint) from error
        except OSError as error:
            if not target.is_dir():
                raise RunError(
                    f"can't unpack the image into {target}: {error.strerror or error}",
                    hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
                ) from error
    return target


@contextlib.contextmanager
def held_rootfs(image: Image, store: Store, progress: Progress | None = None) -> Iterator[Path]:
    """As ``image_rootfs``; no prune takes the tree, nor the image's blobs, while the context is open. Raises
    ``RunError`` and ``BuildError``."""
    name = f"rootfs/{image.digest.removeprefix('sha256:')}"
    with Lease(store) as lease:
        # Before anybody looks whether the tree is there.
        lease.hold(name, *map(blob_name, image.blobs))
        if (store.root / name).is_dir():
            yield store.root / name
            return
        layers = len(image.layers)
        with (progress or Silent()).task("unpack", "the image", total=layers, unit="layers") as task:
            root = image_rootfs(image, store)
            task.advance(layers)
        yield root


def unpack_image(image: Image, store: Store, root: Path) -> None:
    """Unpacks ``image`` into the empty directory ``root``, which a launcher can use then.

    Raises ``BuildError``, and ``OSError`` of the file system."""
    unpack_layers([(store.blob(layer.digest), layer.media_type) for layer in image.layers], root)
    for name in MOUNT_POINTS:
        with contextlib.suppress(FileExistsError):
            (root / name).mkdir()
