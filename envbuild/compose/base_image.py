"""A base taken by digest: its layers and config, as they are. Nothing of it is compressed again."""

from __future__ import annotations

from pathlib import Path

from envbuild.errors import BuildError, FetchError
from envbuild.lock.model import ImageBase
from envbuild.platforms import Platform
from envbuild.remote.client import RegistryClient
from envbuild.remote.contents import BaseContents, image_source, read_image
from envbuild.store.content import Store

__all__ = ["BaseContents", "load_base"]


def load_base(
    base: ImageBase,
    store: Store,
    client: RegistryClient,
    *,
    platform: Platform | None = None,
    directory: Path | None = None,
    layers: bool = True,
) -> BaseContents:
    """The base's layers and config, by the lock's digest and in the store afterwards.

    ``directory`` is where a relative ``oci:DIR`` stands. ``layers=False`` brings manifest and config only.
    Raises ``BuildError``: it can't be had, or it isn't what the lock says (platform, layers, diff_ids).
    """
    try:
        source = image_source(base.reference, store, client, directory or Path())
        return read_image(
            source, base.digest, store, platform=platform, expected=base.diff_ids, layers=layers
        )
    except FetchError as error:
        raise BuildError(f"base image {error.message}", hint=error.hint) from error
