"""From a spec to an image: the only module that sees every stage, with ``wiring``, which makes the parts."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.build_cache import BuildCache, base_references, blob_names
from envbuild.app.requests import (
    BuildRequest,
    BuildResult,
    LockResult,
    RenderRequest,
    RenderResult,
    RunRequest,
)
from envbuild.app.session import Session
from envbuild.errors import LockError, StaleLockError, UsageError
from envbuild.images.base import PushResult
from envbuild.images.repository import PushTarget, identity_tag, remember_names, repository_name
from envbuild.lock.diff import lock_changes
from envbuild.lock.identity import NATIVE_LEVEL, ComposerSettings
from envbuild.lock.model import ContextBase, ImageBase, Lock, PlatformLock
from envbuild.lock.request import LockRequest, answers
from envbuild.oci.image import Image, ImageSet
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.specs.model import EnvironmentType, Spec

if TYPE_CHECKING:
    from envbuild.attest.attach import Attachments
    from envbuild.engines.base import Engine

_log = logging.getLogger(__name__)

LOCK_DIRECTORY = "lockfiles"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Built:
    """One platform's image, whether it was there already, and which engine made it."""

    image: Image
    cached: bool
    engine: str


class Pipeline:
    """The stages, wired for one call. Makes no client and touches no file before it must.

    ``environ`` is the process's environment; ``clock`` counts seconds, for durations only."""

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self._parts = Session(settings, progress, environ)
        self._clock = clock

    @property
    def parts(self) -> Session:
        """What this call is wired of."""
        return self._parts

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what connections were opened; the pipeline may be used again."""
        self._parts.close()

    def load(self, spec: str) -> Spec:
        """The spec at a path, a file or a directory that has one; or the curated one of that name. Raises
        ``SpecError``."""
        from envbuild.specs.cache import remembered_spec
        from envbuild.specs.catalogue import curated_spec

        path = Path(spec)
        if not path.exists() and (curated := curated_spec(spec)):
            path = curated
        with self.progress.stage("spec"):
            return remembered_spec(path, self._parts.store.root / "metadata" / "specs")

    def lock_directory(self, spec: Spec) -> Path:
        """Where the spec's lock stands: ``lockfiles/<name>`` beside it, or below the setting; a curated
        one's beside its spec."""
        if spec.type is EnvironmentType.CURATED:
            return spec.directory
        return (self.settings.lock_dir or spec.directory / LOCK_DIRECTORY) / spec.name

    def present_lock(self, spec: Spec) -> Lock | None:
        """The lock that is there, whether it answers the spec or not. Raises ``LockError`` for a damaged
        one."""
        from envbuild.lock.files import read_lock

        return read_lock(self.lock_directory(spec))

    def lock(self, spec: Spec, request: LockRequest) -> LockResult:
        """The spec's lock, resolved where it is missing or stale, kept where it answers."""
        from envbuild.lock.files import read_lock

        directory = self.lock_directory(spec)
        with self.progress.stage("lock"):
            present = self._present(directory, request, read_lock)
            if present is not None and answers(present, spec, request):
                return LockResult(lock=present, directory=directory, changes=(), written=False)
            lock = self._make_lock(spec, request, present)
            written = False
            if lock != present and not request.dry_run and self._is_read_only(spec):
                raise UsageError(
                    f"{spec.name} is curated, and its lock is read-only",
                    hint=f"clone it to change it: cp -r {spec.directory} . and take type: curated out",
                )
            if lock != present and not request.dry_run:
                from envbuild.lock.files import write_lock

                written = write_lock(directory, lock)
        return LockResult(
            lock=lock, directory=directory, changes=lock_changes(present, lock), written=written
        )

    def _is_read_only(self, spec: Spec) -> bool:
        """A curated lock is changed by naming the catalogue's own directory, as ``make locks`` does."""
        if spec.type is not EnvironmentType.CURATED:
            return False
        named = self.settings.lock_dir
        return named is None or named.resolve() != spec.directory.parent.resolve()

    def _make_lock(self, spec: Spec, request: LockRequest, present: Lock | None) -> Lock:
        from envbuild.lock.make import make_lock
        from envbuild.store.leases import Lease

        # The layers of a base that are looked into belong to no image of the store yet.
        with Lease(self._parts.store):
            return make_lock(
                spec,
                request,
                present,
                self._parts.resolvers(spec),
                progress=self.progress,
                offline=self.settings.offline,
            )

    @staticmethod
    def _present(directory: Path, request: LockRequest, read: Callable[[Path], Lock | None]) -> Lock | None:
        """The lock that is there; a damaged one counts as none where everything is resolved anew."""
        with contextlib.ExitStack() as stack:
            if request.upgrade:
                stack.enter_context(contextlib.suppress(LockError))
            return read(directory)
        return None

    def check(self, spec: Spec) -> None:
        """Returns if the lock on disk answers the spec; offline.

        Raises ``StaleLockError`` with all reasons, ``LockError`` where it can't be read."""
        self._checked_lock(spec)

    def _checked_lock(self, spec: Spec) -> Lock:
        from envbuild.lock.check import lock_problems
        from envbuild.lock.files import read_lock

        directory = self.lock_directory(spec)
        lock = read_lock(directory)
        remedy = f"envbuild lock {spec.source}"
        if lock is None:
            raise StaleLockError(f"{spec.source} has no lock in {directory}", hint=f"make it with: {remedy}")
        problems = lock_problems(spec, lock)
        if problems:
            raise StaleLockError(
                "\n".join([f"the lock in {directory} does not answer {spec.source}:", *problems]),
                hint=f"bring it up to date with: {remedy}",
            )
        return lock

    def plan(self, spec: Spec, lock: Lock, platform: Platform) -> Plan:
        """The plan of one platform of ``lock``. Raises ``UsageError`` where the lock hasn't that platform."""
        from envbuild.plan.make import make_plan

        with self.progress.stage("plan"):
            return make_plan(lock, _pins(spec, lock, platform), self._composition, host=Platform.host())

    @cached_property
    def _composition(self) -> ComposerSettings:
        from envbuild.compose.composer import composer_identity

        compression = self.settings.compression
        return ComposerSettings(
            composer=composer_identity(compression),
            compression=compression,
            layer_budget=self.settings.layer_budget,
            created=self.settings.source_date_epoch,
        )

    def build(self, spec: Spec, request: BuildRequest) -> BuildResult:
        """The images of a spec, composed where the store doesn't have them, and brought where asked."""
        from envbuild.store.leases import Lease

        started = self._clock()
        publishers = self._parts.publishers(request.outputs, load=request.load)
        targets = self._parts.push_targets(request.push)
        attach = self._parts.attachments() if targets else None
        lock = self._lock_for(spec, request)
        platforms = request.platforms or tuple(pins.platform for pins in lock.platforms)
        for platform in platforms:
            _pins(spec, lock, platform)
        # Held until all is published, so that no prune takes a blob in between.
        with Lease(self._parts.store) as lease:
            existing = BuildCache(
                self._parts,
                lease,
                reuse=not request.no_cache,
                verify=request.verify_found,
                lookup=self._parts.lookup(repository_name(spec.name), targets),
                layers=bool(publishers) or not targets or _serves(lock),
            )
            # All engines are chosen before the first image is made: what can't be is said at once.
            jobs = [self._job(spec, lock, platform, platforms, request, existing) for platform in platforms]
            built = [job() for job in jobs]
            images = tuple(each.image for each in built)
            self._check_serving(images, lock)
            tag = identity_tag([image.lock_digest for image in images])
            identity = f"{repository_name(spec.name)}:{tag}"
            publication = ImageSet(
                images=images,
                # Those who read an archive without a name take only one that holds a single name.
                names=request.tags or (identity,),
                index_digest=self._index(images) if len(images) > 1 else None,
            )
            known = (identity, *request.tags)
            remember_names(self._parts.store, publication, known)
            published = tuple(self._publish(publishers, publication, known))
            moving = self.moving_tags(spec, lock, images) if targets else ()
            attach = self._attachable(attach, images, existing)
            pushed = tuple(self._push(publication, targets, (tag, *moving), lock, existing, attach))
            remember_names(self._parts.store, publication, [name for each in pushed for name in each.names])
        reference = f"{(*request.tags, identity)[0]}@{publication.digest}"
        if pushed:
            reference = pushed[0].references[0]
        elif request.load:
            reference = self._parts.loaded_reference(publication, reference)
        return BuildResult(
            reference=reference,
            digest=publication.digest,
            images=tuple(map(existing.as_known, images)),
            cached=all(each.cached for each in built),
            engine=", ".join(sorted({each.engine for each in built})),
            seconds=self._clock() - started,
            published=published,
            pushed=pushed,
            names=(
                *(request.tags or (identity,)),
                *(name for each in pushed for name in each.names),
            ),
            found=tuple(map(str, existing.references)),
        )

    def _job(
        self,
        spec: Spec,
        lock: Lock,
        platform: Platform,
        platforms: Sequence[Platform],
        request: BuildRequest,
        existing: BuildCache,
    ) -> Callable[[], _Built]:
        """What makes the image of one of ``platforms``, or has it. A composed one is looked up by its lock
        digest first, because that needs neither a plan nor an engine."""
        if self.settings.engine in ("auto", "native"):
            image = self._composed(spec, lock, platform, platforms, existing)
            if image is not None:
                found = _Built(image=image, cached=True, engine="native")
                return lambda: found
        plan = self.plan(spec, lock, platform)
        engine = self._engine(spec, plan, request)

        def work() -> _Built:
            image = None
            if engine.name != "native":
                image = self._rendered(spec, plan, engine, existing)
            built = image or engine.build(plan)
            existing.keep(built)
            return _Built(image=built, cached=image is not None, engine=engine.name)

        return work

    def _composed(
        self,
        spec: Spec,
        lock: Lock,
        platform: Platform,
        platforms: Sequence[Platform],
        existing: BuildCache,
    ) -> Image | None:
        """The image that the native engine would make, where it is there."""
        from envbuild.plan.make import plan_identity

        pins = _pins(spec, lock, platform)
        digest = plan_identity(lock, pins, self._composition)
        image = existing.local(digest)
        if image is not None or not existing.asks or isinstance(pins.base, ContextBase):
            return image
        from envbuild.compose.image import documents_follow
        from envbuild.images.lookup import ExpectedImage

        def follows(image: Image) -> bool:
            inherited = None
            if isinstance(pins.base, ImageBase):
                inherited = self._parts.base_config(spec, pins.base, platform)
            return documents_follow(image, self.plan(spec, lock, platform), inherited=inherited)

        digests = {each.platform: plan_identity(lock, each, self._composition) for each in lock.platforms}
        # As it would be pushed now; with the other platforms of the lock; and alone.
        tags = (
            identity_tag([digests[platform] for platform in platforms]),
            identity_tag(list(digests.values())),
            identity_tag([digest]),
        )
        wanted = ExpectedImage(
            platform=platform,
            lock_digest=digest,
            definition_digest=lock.definition,
            level=NATIVE_LEVEL,
            follows=follows,
        )
        return existing.elsewhere(wanted, tuple(dict.fromkeys(tags)), lambda: self.plan(spec, lock, platform))

    def _rendered(self, spec: Spec, plan: Plan, engine: Engine, existing: BuildCache) -> Image | None:
        """The image that an engine which runs a Dockerfile would make, where it is there."""
        digest = engine.identity(plan)
        image = existing.local(digest)
        if image is not None or not existing.asks:
            return image
        if existing.verifies:
            self.progress.note(
                f"no image is looked for: what the {engine.name} engine builds is never the same again"
            )
            return None
        from envbuild.compose.image import is_manifest_of
        from envbuild.images.lookup import ExpectedImage

        described = self._parts.renderer(spec).describe(plan, engine.name)
        wanted = ExpectedImage(
            platform=plan.platform,
            lock_digest=digest,
            definition_digest=plan.definition_digest,
            level=described.level,
            follows=lambda image: is_manifest_of(image, described, self._parts.store),
        )
        return existing.elsewhere(wanted, (identity_tag([digest]),), lambda: described)

    def _engine(self, spec: Spec, plan: Plan, request: BuildRequest) -> Engine:
        from envbuild.engines.choose import choose_engine

        engines = self._parts.engines(
            spec, reuse=not request.no_cache, keep=request.load, secrets=request.secrets
        )
        engine = choose_engine(self.settings.engine, plan, engines, self.progress)
        if request.secrets and engine.name == "native":
            self.progress.note("the secrets are for nobody: the native engine runs no steps")
        return engine

    def described(self, spec: Spec, lock: Lock, platform: Platform, request: BuildRequest) -> Plan:
        """The plan as the engine describes it that would build it; chosen, and refused, as for a build."""
        plan = self.plan(spec, lock, platform)
        engine = self._engine(spec, plan, request)
        return plan if engine.name == "native" else self._parts.renderer(spec).describe(plan, engine.name)

    def _check_serving(self, images: Sequence[Image], lock: Lock) -> None:
        """Sees that what is to serve can, by what is inside: also of images that were there."""
        if not _serves(lock):
            return
        from envbuild.lock.image.serving import check_serving

        with self.progress.stage("check serving"):
            for image in images:
                check_serving(image, self._parts.store, lock.runtime)

    def render(self, spec: Spec, request: RenderRequest) -> tuple[RenderResult, ...]:
        """Dockerfiles and everything their builds need, written below ``request.output``."""
        from envbuild.render.context import context_size, write_context

        lock = self._lock_for(spec, request.build)
        platforms = request.build.platforms or tuple(pins.platform for pins in lock.platforms)
        renderer = self._parts.renderer(spec)
        results = []
        for platform in platforms:
            plan = renderer.describe(self.plan(spec, lock, platform), "dockerfile")
            with self.progress.stage("render"):
                context = renderer.context(plan, offline=request.offline_context)
                directory = request.output if len(platforms) == 1 else request.output / platform.subdir
                write_context(context, directory)
            results.append(
                RenderResult(
                    platform=platform,
                    directory=directory,
                    files=len(context.files),
                    size=context_size(context),
                    digest=context.digest,
                    lock_digest=plan.lock_digest,
                    level=plan.level,
                )
            )
        return tuple(results)

    def _lock_for(self, spec: Spec, request: BuildRequest) -> Lock:
        if request.locked:
            return self._checked_lock(spec)
        if not request.frozen:
            return self.lock(spec, request.lock).lock
        lock = self.present_lock(spec)
        if lock is None:
            raise LockError(
                f"{spec.source} has no lock in {self.lock_directory(spec)}",
                hint=f"make it with: envbuild lock {spec.source}",
            )
        return lock

    def _index(self, images: Sequence[Image]) -> str:
        from envbuild.compose.image import store_index

        return store_index(self._parts.store, images, created=self.settings.source_date_epoch)

    def _publish(
        self,
        publishers: Mapping[str, Callable[[ImageSet], str]],
        publication: ImageSet,
        known: tuple[str, ...],
    ) -> Iterator[str]:
        """Brings ``publication`` to each output, and under all ``known`` names into the engine."""
        for where, publish in publishers.items():
            with self.progress.stage(f"publish {where.partition(':')[0]}"):
                yield publish(replace(publication, names=known) if where == "docker" else publication)

    def moving_tags(self, spec: Spec, lock: Lock, images: Sequence[Image]) -> tuple[str, ...]:
        """Tags besides its own that a push of ``images`` moves: none, as nothing knows of versions here."""
        return ()

    def _attachable(
        self, attach: Attachments | None, images: Sequence[Image], existing: BuildCache
    ) -> Attachments | None:
        """``attach`` for what was composed or verified here: nothing else is attested or signed."""
        unverified = [image for image in images if image.digest in existing.unverified]
        if attach is None or not unverified:
            return attach
        named = ", ".join(str(image.platform) for image in unverified)
        _log.warning(
            "the image for %s was only found by what its labels say, so it is neither attested nor signed; "
            "--verify-found composes it and compares first",
            named,
        )
        return attach.without(frozenset(image.digest for image in unverified))

    def _push(
        self,
        publication: ImageSet,
        targets: Sequence[PushTarget],
        tags: Sequence[str],
        lock: Lock,
        existing: BuildCache,
        attach: Attachments | None,
    ) -> Iterator[PushResult]:
        """Pushes to each of ``targets``, under ``tags`` and its own."""
        if not targets:
            return
        from envbuild.images.sinks.registry import push_everywhere

        pushes = push_everywhere(
            publication,
            targets,
            tags,
            self._parts.registry,
            self._parts.store,
            self.progress,
            # What a registry has in another repository needn't be sent again.
            near=(*existing.references, *base_references(lock)),
            fetch=existing.fetch,
            attach=attach,
        )
        with self.progress.stage("push"):
            yield from pushes

    def run(self, spec: Spec, request: RunRequest) -> int:
        """The command's exit status (128 + n where signal n ended it). Builds the image where need be."""
        from envbuild.run.base import Command, Mount
        from envbuild.store.leases import Lease

        runner = self._parts.runner(request.backend)
        platform = request.platform or Platform.host()
        if request.build.platforms != (platform,):
            request = replace(request, build=replace(request.build, platforms=(platform,)))
        here = request.workdir or Path()
        mounts = tuple(Mount.parse(mount, relative_to=here) for mount in request.mounts)
        # What the command runs in must outlast it, whoever prunes; nothing else, as it may run for weeks.
        with Lease(self._parts.store) as lease:
            image = self.build(spec, request.build).images[0]
            lease.hold(*blob_names(image))
            return runner.run(
                Command(
                    image=image,
                    arguments=request.command,
                    env=request.env,
                    workdir=request.workdir,
                    mounts=mounts,
                )
            )


def _pins(spec: Spec, lock: Lock, platform: Platform) -> PlatformLock:
    pins = lock.platform(platform)
    if pins is None:
        have = ", ".join(str(each.platform) for each in lock.platforms)
        raise UsageError(
            f"{spec.name} is not locked for {platform}, only for {have}",
            hint=f"add {platform} to platforms in {spec.source}",
        )
    return pins


def _serves(lock: Lock) -> bool:
    """Whether what is inside an image that was taken as it is decides if it may serve."""
    return lock.runtime.type == EnvironmentType.USER_MANAGED.value and bool(lock.runtime.ports)
