"""The root file system of an image, unpacked once and kept in the store."""

from __future__ import annotations

import contextlib
from pathlib import Path

from envbuild.compose.unpack import unpack_layers
from envbuild.errors import BuildError, RunError
from envbuild.publish.base import Image
from envbuild.store.content import Store

MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "run", "workspace")
"""Directories that a run mounts something on; made where an image lacks them."""


def image_rootfs(image: Image, store: Store) -> Path:
    """The unpacked root file system of ``image``, in the store; unpacked once, complete or not there.

    Nobody may write to it. Raises ``RunError``."""
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


def unpack_image(image: Image, store: Store, root: Path) -> None:
    """Unpacks ``image`` into the empty directory ``root``, which a launcher can use then.

    Raises ``BuildError``, and ``OSError`` of the file system."""
    unpack_layers([(store.blob(layer.digest), layer.media_type) for layer in image.layers], root)
    for name in MOUNT_POINTS:
        with contextlib.suppress(FileExistsError):
            (root / name).mkdir()
