"""Whether images are what composing their own locks again gives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.images import NAME_ITS_REGISTRY, OpenedImage, inputs_here, open_image
from envbuild.app.session import Session
from envbuild.attest.sign import load_public_key, verify_signature
from envbuild.compose.engine import NativeEngine
from envbuild.errors import UsageError
from envbuild.inspect.inspect import sound_lock
from envbuild.inspect.model import Verdict
from envbuild.inspect.verify import Verification, check_image, drop_damaged
from envbuild.lock.image.embedded import embedded_lock
from envbuild.platforms import Platform
from envbuild.store.content import Store

if TYPE_CHECKING:
    from envbuild.attest.sign import PublicKey


def verify_image(
    session: Session, reference: str, platform: Platform | None = None, *, key: Path | None = None
) -> tuple[Verdict, ...]:
    """Whether each image is what its digests say, and what composing its own lock again from packages
    comes to; with ``key``, whether it is signed by that.

    Raises ``FetchError`` for an image that isn't what its digests say, ``BuildError`` and ``FetchError``
    where a package can't be had any more, ``LockError`` where the lock inside isn't sound."""
    # A key that is no use is said before anything is pulled.
    public_key = None if key is None else load_public_key(key)
    # The whole index, whatever platform was asked for: another one's python may compile for it.
    opened = open_image(session, reference)
    images = opened.images if platform is None else (opened.image(platform),)
    signed = None if public_key is None else _signed(session, opened, public_key)
    with session.progress.stage("pull"):
        drop_damaged(opened.store, [layer.digest for image in images for layer in image.layers])
        opened.bring([layer for image in images for layer in image.layers])
    with session.progress.stage("check"):
        for image in images:
            check_image(image, opened.store, opened.source.what)
        locks = {
            image.digest: embedded_lock(image, opened.store) if image.lock_digest else None
            for image in images
        }
    others = [sound_lock(image, opened.store, opened.bring) for image in opened.images]
    verification = Verification(
        store=opened.store,
        apart=partial(_apart, session),
        lease=session.lease,
        toolchain=tuple(pins for lock in others if lock for pins in lock.platforms),
        budget=session.settings.layer_budget,
        host=Platform.host(),
    )
    return tuple(replace(verification.verdict(image, locks[image.digest]), signed=signed) for image in images)


def _signed(session: Session, opened: OpenedImage, key: PublicKey) -> bool:
    """Whether the registry has a signature of what was named by ``key``."""
    if opened.repository is None:
        raise UsageError(
            f"{opened.reference} names no registry, where signatures are", hint=NAME_ITS_REGISTRY
        )
    return verify_signature(session.registry, opened.repository, opened.top.digest, key)


@contextmanager
def _apart(session: Session, blobs: Sequence[str]) -> Iterator[NativeEngine]:
    """A composer with an empty store, which shares only downloads, named by their hashes, and
    ``blobs``, whose digests were checked."""
    with session.store.scratch() as scratch:
        store = Store(scratch / "store")
        store.directory("blobs/sha256")
        (store.root / "artifacts").symlink_to(session.store.directory("artifacts").absolute())
        for digest in dict.fromkeys(blobs):
            os.link(session.store.blob(digest), store.blob(digest))
        with session.apart(store) as apart:
            yield apart.engines(inputs_here(session)).native(reuse=False)
