"""Images on another base, their software as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from envbuild.app.images import OpenedImage, inputs_here, open_image
from envbuild.app.publish import sinks_of
from envbuild.app.session import Session
from envbuild.compose.base import cannot_build
from envbuild.compose.image import store_index
from envbuild.compose.reuse import NotReusable
from envbuild.errors import BuildError, UsageError
from envbuild.images.repository import remember_names
from envbuild.images.sinks.base import blobs as publication_blobs
from envbuild.inspect.model import PinChange, Rebased
from envbuild.inspect.origin import additions_of_others, additions_to_plan, composition_of
from envbuild.inspect.rebase import rebased_lock, taken_layers
from envbuild.lock.base import BaseRequest, ResolvedBase, Upgrade
from envbuild.lock.diff import lock_changes
from envbuild.lock.identity import NATIVE_LEVEL, ComposerSettings
from envbuild.lock.image.embedded import embedded_lock
from envbuild.lock.make import Resolvers
from envbuild.lock.model import DebianBase, Lock
from envbuild.oci.image import Image, ImageSet
from envbuild.plan.make import make_plan
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.specs.model import BaseSpec, DebianBaseSpec, ImageBaseSpec
from envbuild.store.content import blob_name
from envbuild.store.images import ImageIndex, read_manifest


def rebase_image(
    session: Session,
    reference: str,
    onto: str,
    platform: Platform | None = None,
    *,
    tags: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Rebased:
    """The image ``reference`` on the base ``onto``: an image, or ``debian[:SUITE]`` for the newest
    packages. Its layers of software stay byte for byte what they are.

    The result is what composing its new lock gives. Where base and software are tied together, so that
    the layers would be others, everything is composed from packages, and the result says so. Raises
    ``BuildError`` for a base that the software doesn't fit, and as opening and building do."""
    publishers = sinks_of(session, outputs, load=False)
    opened = open_image(session, reference, platform)
    with session.progress.stage("pull"):
        opened.pull()
    composed = [_composed_image(session, image, opened) for image in opened.images]
    with session.progress.stage("resolve"):
        resolvers = session.resolvers(inputs_here(session))
        locks = [
            rebased_lock(image.lock, _resolve_base(session, resolvers, onto, image.lock))
            for image in composed
        ]
    toolchain = tuple(pins for lock in locks for pins in lock.platforms)
    images: list[Image] = []
    changes: list[PinChange] = []
    reasons: list[str] = []
    taken = 0
    for old, lock in zip(composed, locks, strict=True):
        changes += lock_changes(old.lock, lock)
        image, count, reason = _rebuild(session, old, replace(lock, toolchain=toolchain))
        taken += count
        reasons += [f"{image.platform}: {reason}"] if reason else []
        images.append(image)
    store = session.store
    for image in images:
        ImageIndex(store, time.time).put(f"manifest-{image.digest.removeprefix('sha256:')}", image)
    index = None
    if len(images) > 1:
        index = store_index(store, images, created=max(image.settings.created for image in composed))
    publication = ImageSet(images=tuple(images), names=tuple(tags), index_digest=index)
    session.lease.use(*(blob_name(digest) for digest in publication_blobs(publication, store)))
    remember_names(store, publication, publication.names)
    published = tuple(publish(publication) for publish in publishers.values())
    return Rebased(
        reference=f"{tags[0]}@{publication.digest}" if tags else publication.digest,
        digest=publication.digest,
        images=tuple(images),
        changes=tuple(changes),
        taken=taken,
        made=sum(1 for image in images for layer in image.layers if layer.artifacts) - taken,
        reasons=tuple(reasons),
        published=published,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _ComposedImage:
    """An image of ours, with the lock inside and how it was composed."""

    image: Image
    lock: Lock
    settings: ComposerSettings
    plan: Plan


def _composed_image(session: Session, image: Image, opened: OpenedImage) -> _ComposedImage:
    """``image``, if envbuild composed it. Raises ``BuildError`` where it didn't."""
    what = f"{opened.reference} ({image.platform})"
    if added := additions_of_others(image, opened.store):
        raise _derived(what, added)
    lock = embedded_lock(image, opened.store) if image.level == NATIVE_LEVEL else None
    if lock is None:
        raise BuildError(
            f"{what} wasn't composed by envbuild: it has no lock inside",
            hint="build it from its spec on the other base",
        )
    settings, follows = composition_of(
        image,
        read_manifest(image, opened.store),
        lock,
        lock.platforms[0],
        budget=session.settings.layer_budget,
    )
    if not follows:
        raise BuildError(
            f"{what}: its lock digest doesn't follow from the lock inside",
            hint="another version of envbuild made it, or it was changed: envbuild verify says more",
        )
    plan = make_plan(lock, lock.platforms[0], settings, host=Platform.host())
    if added := additions_to_plan(image, plan, opened.store):
        raise _derived(what, added)
    return _ComposedImage(image=image, lock=lock, settings=settings, plan=plan)


def _resolve_base(session: Session, resolvers: Resolvers, onto: str, lock: Lock) -> ResolvedBase:
    """The base that ``onto`` names, for the platform of ``lock``."""
    (pins,) = lock.platforms
    spec: BaseSpec = ImageBaseSpec(reference=onto)
    name, colon, suite = onto.partition(":")
    if name == "debian" and (not colon or suite.isalpha()):
        if not isinstance(pins.base, DebianBase):
            raise BuildError(
                f"the base of {pins.platform} is an image, whose Debian packages no lock names",
                hint="name an image: docker.io/library/debian:trixie-slim",
            )
        # All that the software may have been asked to find there; what those need comes with them.
        packages = tuple(package.name for package in pins.base.packages)
        spec = DebianBaseSpec(suite=suite or pins.base.suite, packages=packages)
    python = pins.python is not None and pins.python.of_base
    resolver = resolvers.base_for(spec)
    if resolver is None:
        raise UsageError(f"{onto} is no base")
    return resolver.resolve(
        BaseRequest(
            spec=spec,
            platform=pins.platform,
            with_python=python,
            upgrade=Upgrade(everything=True),
            offline=session.settings.offline,
        )
    )


def _rebuild(session: Session, old: _ComposedImage, lock: Lock) -> tuple[Image, int, str | None]:
    """The image of ``lock``, how many layers of ``old`` were taken over, and why none was."""
    plan = make_plan(lock, lock.platforms[0], old.settings, host=Platform.host())
    engine = session.engines(inputs_here(session)).native(reuse=True)
    if unable := engine.unable(plan):
        raise BuildError(cannot_build(engine.name, unable))
    try:
        with session.progress.stage("layers"):
            taken = taken_layers(old.image, old.plan, plan, session.store)
        return engine.build_over(plan, taken, session.lease), len(taken.layers), None
    except NotReusable as error:
        return engine.build(plan), 0, error.message


def _derived(what: str, added: str) -> BuildError:
    return BuildError(
        f"{what} has {added}: it was made of an image of envbuild's, and what was added would be lost",
        hint="rebase the image that it was made of, and make it anew of the result",
    )
