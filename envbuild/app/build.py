"""Builds the images of a spec where the store doesn't have them, and brings them where they are wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from envbuild.app.build_cache import BuildCache, base_references, lookup_of
from envbuild.app.lock import lock_to_build
from envbuild.app.plan import choose_engine, composer_settings, pins_of, plan_image
from envbuild.app.publish import attachments_of, check_outputs, loaded_reference, push_targets, sinks_of
from envbuild.app.record import record_build
from envbuild.app.requests import BuildRequest, BuildResult
from envbuild.app.session import Session
from envbuild.app.specs import inputs_of, is_registered
from envbuild.images.base import PushResult
from envbuild.images.repository import PushTarget, identity_tag, remember_names, repository_name
from envbuild.lazy import lazy
from envbuild.lock.identity import NATIVE_LEVEL
from envbuild.lock.model import ContextBase, ImageBase, Lock
from envbuild.oci.image import Image, ImageSet
from envbuild.plan.make import plan_identity
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import EnvironmentType, Spec
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    from envbuild.attest.attach import Attachments
    from envbuild.compose import image as image_documents
    from envbuild.engines.base import Engine
    from envbuild.images import contents as image_contents
    from envbuild.images import lookup as image_lookup
    from envbuild.images.sinks import registry as registry_sink
    from envbuild.lock.image import contents as base_contents
else:
    image_contents = lazy("envbuild.images.contents")
    image_documents = lazy("envbuild.compose.image")
    image_lookup = lazy("envbuild.images.lookup")
    registry_sink = lazy("envbuild.images.sinks.registry")
    base_contents = lazy("envbuild.lock.image.contents")

_log = logging.getLogger(__name__)
_LONGEST_TAG = 128
"""Characters (distribution-spec)."""


def build(session: Session, spec: Spec, request: BuildRequest) -> BuildResult:
    """The images of ``spec``. What was built is recorded in the workspace, which never makes it fail."""
    result = build_images(session, spec, request)
    record_build(session, spec, request, result)
    return result


def build_images(session: Session, spec: Spec, request: BuildRequest) -> BuildResult:
    """The images of ``spec``, composed where the store doesn't have them, and brought where asked."""
    started = session.clock()
    sinks = sinks_of(session, request.outputs, load=request.load)
    targets = push_targets(session, request.push)
    attachments = attachments_of(session) if targets else None
    lock = lock_to_build(session, spec, request)
    platforms = request.platforms or tuple(pins.platform for pins in lock.platforms)
    for platform in platforms:
        pins_of(spec, lock, platform)
    check_outputs(request.outputs, platforms)
    # Held until all is published, so that no prune takes a blob in between.
    with Lease(session.store) as lease:
        cache = BuildCache(
            session,
            lease,
            reuse=not request.no_cache,
            verify=request.verify_found,
            lookup=lookup_of(session, repository_name(spec.name), targets),
            layers=bool(sinks) or not targets or _serves(lock),
        )
        work = _Build(session, spec, lock, platforms, request, cache)
        # All engines are chosen before the first image is made: what can't be is said at once.
        jobs = [work.job(platform) for platform in platforms]
        built = [job() for job in jobs]
        images = tuple(result.image for result in built)
        _check_serving(session, images, lock)
        tag = identity_tag([image.lock_digest for image in images])
        identity = f"{repository_name(spec.name)}:{tag}"
        image_set = ImageSet(
            images=images,
            # Those who read an archive without a name take only one that holds a single name.
            names=request.tags or (identity,),
            index_digest=_store_index(session, images) if len(images) > 1 else None,
        )
        names = (identity, *request.tags)
        remember_names(session.store, image_set, names)
        published = tuple(_publish(session, sinks, image_set, names))
        pushed: tuple[PushResult, ...] = ()
        if targets:
            tags = (tag, *_moving_tags(session, spec, lock, images))
            pushed = tuple(work.push(image_set, targets, tags, attachments))
            remember_names(session.store, image_set, [name for result in pushed for name in result.names])
    reference = f"{(*request.tags, identity)[0]}@{image_set.digest}"
    if pushed:
        reference = pushed[0].references[0]
    elif request.load:
        reference = loaded_reference(session, image_set, reference)
    return BuildResult(
        reference=reference,
        digest=image_set.digest,
        images=tuple(map(cache.as_known, images)),
        cached=all(result.cached for result in built),
        engine=", ".join(sorted({result.engine for result in built})),
        seconds=session.clock() - started,
        published=published,
        pushed=pushed,
        names=(*(request.tags or (identity,)), *(name for result in pushed for name in result.names)),
        found=tuple(map(str, cache.references)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuiltImage:
    """One platform's image, whether it was there already, and which engine made it."""

    image: Image
    cached: bool
    engine: str


@dataclass(frozen=True, slots=True)
class _Build:
    """One build: what its platforms have in common."""

    session: Session
    spec: Spec
    lock: Lock
    platforms: Sequence[Platform]
    request: BuildRequest
    cache: BuildCache

    def job(self, platform: Platform) -> Callable[[], _BuiltImage]:
        """What makes the image of one of the platforms, or has it. A composed one is looked up by its lock
        digest first, because that needs neither a plan nor an engine."""
        if self.session.settings.engine in ("auto", "native"):
            image = self._composed_image(platform)
            if image is not None:
                present = _BuiltImage(image=image, cached=True, engine="native")
                return lambda: present
        plan = self._plan(platform)
        engine = choose_engine(self.session, self.spec, plan, self.request)

        def make_image() -> _BuiltImage:
            image = self._rendered_image(plan, engine) if engine.name != "native" else None
            built = image or engine.build(plan)
            self.cache.keep(built)
            return _BuiltImage(image=built, cached=image is not None, engine=engine.name)

        return make_image

    def push(
        self,
        image_set: ImageSet,
        targets: Sequence[PushTarget],
        tags: Sequence[str],
        attachments: Attachments | None,
    ) -> Iterator[PushResult]:
        """Pushes to each of ``targets``, under ``tags`` and its own."""
        attach = self._attachable(attachments, image_set.images)
        with self.session.progress.stage("push"):
            for target in targets:
                sink = registry_sink.RegistrySink(
                    remote=self.session.registry,
                    store=self.session.store,
                    repository=target.repository,
                    tags=target.with_own(tags),
                    # What a registry has in another repository needn't be sent again.
                    near=(*self.cache.references, *base_references(self.lock)),
                    fetch=self.cache.fetch,
                    attach=attach,
                )
                yield sink.publish(image_set)

    def _plan(self, platform: Platform) -> Plan:
        return plan_image(self.session, self.spec, self.lock, platform)

    def _composed_image(self, platform: Platform) -> Image | None:
        """The image that the native engine would make, where it is there."""
        settings = composer_settings(self.session)
        pins = pins_of(self.spec, self.lock, platform)
        digest = plan_identity(self.lock, pins, settings)
        image = self.cache.local(digest)
        if image is not None or not self.cache.asks or isinstance(pins.base, ContextBase):
            return image

        def follows(image: Image) -> bool:
            inherited = None
            if isinstance(pins.base, ImageBase):
                inherited = self._base_config(pins.base, platform)
            return image_documents.documents_follow(
                image, self._plan(platform), self.session.store, inherited=inherited
            )

        digests = {pins.platform: plan_identity(self.lock, pins, settings) for pins in self.lock.platforms}
        # As it would be pushed now; with the other platforms of the lock; and alone.
        tags = (
            identity_tag([digests[chosen] for chosen in self.platforms]),
            identity_tag(list(digests.values())),
            identity_tag([digest]),
        )
        expected = image_lookup.ExpectedImage(
            platform=platform,
            lock_digest=digest,
            definition_digest=self.lock.definition,
            level=NATIVE_LEVEL,
            follows=follows,
        )
        return self.cache.elsewhere(expected, tuple(dict.fromkeys(tags)), lambda: self._plan(platform))

    def _base_config(self, base: ImageBase, platform: Platform) -> Mapping[str, Any]:
        """The whole config document of an image base; no layer is brought. Raises ``FetchError``."""
        session = self.session
        source = image_contents.image_source(
            base.reference, session.store, session.registry, self.spec.directory
        )
        contents = image_contents.read_image(
            source, base.digest, session.store, platform=platform, expected=base.diff_ids, layers=False
        )
        return contents.config.document

    def _rendered_image(self, plan: Plan, engine: Engine) -> Image | None:
        """The image that an engine which runs a Dockerfile would make, where it is there."""
        digest = engine.identity(plan)
        image = self.cache.local(digest)
        if image is not None or not self.cache.asks:
            return image
        if self.cache.verifies:
            self.session.progress.note(
                f"no image is looked for: what the {engine.name} engine builds is never the same again"
            )
            return None
        described = self.session.engines(inputs_of(self.spec)).renderer().describe(plan, engine.name)
        expected = image_lookup.ExpectedImage(
            platform=plan.platform,
            lock_digest=digest,
            definition_digest=plan.definition_digest,
            level=described.level,
            follows=lambda image: image_documents.is_manifest_of(image, described, self.session.store),
        )
        return self.cache.elsewhere(expected, (identity_tag([digest]),), lambda: described)

    def _attachable(self, attachments: Attachments | None, images: Sequence[Image]) -> Attachments | None:
        """``attachments`` for what was composed or verified here: nothing else is attested or signed."""
        unverified = [image for image in images if image.digest in self.cache.unverified]
        if attachments is None or not unverified:
            return attachments
        named = ", ".join(str(image.platform) for image in unverified)
        _log.warning(
            "the image for %s was only found by what its labels say, so it is neither attested nor signed; "
            "--verify-found composes it and compares first",
            named,
        )
        return attachments.without(frozenset(image.digest for image in unverified))


def _check_serving(session: Session, images: Sequence[Image], lock: Lock) -> None:
    """Sees that what is to serve can, by what is inside: also of images that were there."""
    if not _serves(lock):
        return
    with session.progress.stage("check serving"):
        for image in images:
            base_contents.check_serving(image, session.store, lock.runtime)


def _serves(lock: Lock) -> bool:
    """Whether what is inside an image that was taken as it is decides if it may serve."""
    return lock.runtime.type == EnvironmentType.USER_MANAGED.value and bool(lock.runtime.ports)


def _store_index(session: Session, images: Sequence[Image]) -> str:
    created = session.settings.source_date_epoch
    return image_documents.store_index(session.store, images, created=created)


def _publish(
    session: Session,
    sinks: Mapping[str, Callable[[ImageSet], str]],
    image_set: ImageSet,
    names: tuple[str, ...],
) -> Iterator[str]:
    """Brings ``image_set`` to each output, and under all ``names`` into the engine."""
    for where, publish in sinks.items():
        with session.progress.stage(f"publish {where.partition(':')[0]}"):
            yield publish(replace(image_set, names=names) if where == "docker" else image_set)


def _moving_tags(session: Session, spec: Spec, lock: Lock, images: Sequence[Image]) -> tuple[str, ...]:
    """Tags besides its own that a push of ``images`` moves: ``v<version>`` of a registered version, and
    ``latest`` where it is the newest. Of images for all its platforms, since nobody who asks for a version
    should miss one."""
    platforms = {pins.platform for pins in lock.platforms}
    if (
        spec.version is None
        or not is_registered(session, spec)
        or {image.platform for image in images} != platforms
    ):
        return ()
    if any(image.definition_digest != definition_digest(spec) for image in images):
        # The lock was used without a look at the spec, and answers another one.
        return ()
    latest = session.workspace.environments.get(spec.name).version == spec.version
    tag = f"v{spec.version}"
    if len(tag) > _LONGEST_TAG:
        session.progress.note(f"the version {spec.version} is too long for a tag")
        return ("latest",) if latest else ()
    return (tag, "latest") if latest else (tag,)
