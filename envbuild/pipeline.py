"""From a spec to an image: the only module that sees every stage, with ``wiring``, which makes the parts."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.digest import canonical_digest
from envbuild.errors import LockError, StaleLockError, UsageError
from envbuild.lock.diff import lock_changes
from envbuild.lock.identity import Composition
from envbuild.lock.model import Lock, PlatformLock
from envbuild.lock.request import LockRequest, answers
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.publish.base import Image, Publication
from envbuild.request import (
    BuildRequest,
    BuildResult,
    LockResult,
    RenderRequest,
    RenderResult,
    RunRequest,
)
from envbuild.settings import Settings
from envbuild.spec.model import EnvironmentType, Spec
from envbuild.store.content import blob_name
from envbuild.wiring import Parts

if TYPE_CHECKING:
    from envbuild.engines.base import Engine
    from envbuild.store.leases import Lease

LOCK_DIRECTORY = "lockfiles"
_TAG_DIGITS = 12


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
        self._parts = Parts(settings, progress, environ)
        self._clock = clock

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
        from envbuild.spec.catalogue import curated_spec
        from envbuild.spec.memory import remembered_spec

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
    def _composition(self) -> Composition:
        from envbuild.compose.bytecode import BYTECODE_FORMAT
        from envbuild.compose.codec import FORMAT, codec

        compression = self.settings.compression
        return Composition(
            composer=f"{FORMAT} {codec(compression).identity} {BYTECODE_FORMAT}",
            compression=compression,
            layer_budget=self.settings.layer_budget,
            created=self.settings.source_date_epoch,
        )

    def build(self, spec: Spec, request: BuildRequest) -> BuildResult:
        """The images of a spec, composed where the store doesn't have them, and brought where asked."""
        from envbuild.store.leases import Lease

        started = self._clock()
        publishers = self._parts.publishers(request.outputs, load=request.load)
        lock = self._lock_for(spec, request)
        platforms = request.platforms or tuple(each.platform for each in lock.platforms)
        # Held until all is published, so that no prune takes a blob in between.
        with Lease(self._parts.store) as lease:
            # All engines are chosen before the first image is made: what can't be is said at once.
            jobs = [self._job(spec, lock, platform, request, lease) for platform in platforms]
            built = [job() for job in jobs]
            images = tuple(each.image for each in built)
            self._check_serving(images, lock)
            identity = _tag(spec.name, [image.lock_digest for image in images])
            publication = Publication(
                images=images,
                names=(identity, *request.tags),
                index_digest=self._index(images) if len(images) > 1 else None,
            )
            published = tuple(self._publish(publishers, publication))
        return BuildResult(
            reference=f"{request.tags[0] if request.tags else identity}@{publication.digest}",
            digest=publication.digest,
            images=images,
            cached=all(each.cached for each in built),
            engine=", ".join(sorted({each.engine for each in built})),
            seconds=self._clock() - started,
            published=published,
        )

    def _job(
        self, spec: Spec, lock: Lock, platform: Platform, request: BuildRequest, lease: Lease
    ) -> Callable[[], _Built]:
        """What makes the image of one platform, or has it. A composed one is looked up by its lock digest
        first, because that needs neither a plan nor an engine."""
        from envbuild.plan.make import plan_identity

        if self.settings.engine in ("auto", "native"):
            digest = plan_identity(lock, _pins(spec, lock, platform), self._composition)
            image = self._looked_up(digest, request, lease)
            if image is not None:
                found = _Built(image=image, cached=True, engine="native")
                return lambda: found
        plan = self.plan(spec, lock, platform)
        engine = self._engine(spec, plan, request)

        def work() -> _Built:
            image = None
            if engine.name != "native":
                image = self._looked_up(engine.identity(plan), request, lease)
            built = image or engine.build(plan)
            lease.use(*_blobs(built))
            return _Built(image=built, cached=image is not None, engine=engine.name)

        return work

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
        if lock.runtime.type != EnvironmentType.USER_MANAGED.value or not lock.runtime.ports:
            return
        from envbuild.lock.image.serving import check_serving

        with self.progress.stage("check serving"):
            for image in images:
                check_serving(image, self._parts.store, lock.runtime)

    def _looked_up(self, lock_digest: str, request: BuildRequest, lease: Lease) -> Image | None:
        from envbuild.store.images import ImageIndex

        if request.no_cache:
            return None
        with self.progress.stage("look up"):
            key = lock_digest.removeprefix("sha256:")
            lease.use(f"images/{key}")
            image = ImageIndex(self._parts.store, time.time).get(key)
            if image is not None:
                lease.use(*_blobs(image))
            return image

    def render(self, spec: Spec, request: RenderRequest) -> tuple[RenderResult, ...]:
        """Dockerfiles and everything their builds need, written below ``request.output``."""
        from envbuild.render.context import context_size, write_context

        lock = self._lock_for(spec, request.build)
        platforms = request.build.platforms or tuple(each.platform for each in lock.platforms)
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
        self, publishers: Mapping[str, Callable[[Publication], str]], publication: Publication
    ) -> Iterator[str]:
        for where, publish in publishers.items():
            with self.progress.stage(f"publish {where.partition(':')[0]}"):
                yield publish(publication)

    def run(self, spec: Spec, request: RunRequest) -> int:
        """The command's exit status (128 + n where signal n ended it). Builds the image where need be."""
        from envbuild.run.base import Command, Mount
        from envbuild.store.leases import Lease

        runner = self._parts.runner(request.backend)
        platform = request.platform or Platform.host()
        if request.build.platforms != (platform,):
            request = replace(request, build=replace(request.build, platforms=(platform,)))
        here = request.workdir or Path()
        mounts = tuple(Mount.parse(each, relative_to=here) for each in request.mounts)
        # What the command runs in must outlast it, whoever prunes.
        with Lease(self._parts.store) as lease:
            image = self.build(spec, request.build).images[0]
            lease.use(*_blobs(image), f"rootfs/{image.digest.removeprefix('sha256:')}")
            return runner.run(
                Command(
                    image=image,
                    arguments=request.command,
                    env=request.env,
                    workdir=request.workdir,
                    mounts=mounts,
                )
            )


def _blobs(image: Image) -> list[str]:
    digests = [image.digest, image.config_digest, *(layer.digest for layer in image.layers)]
    return [blob_name(digest) for digest in digests]


def _pins(spec: Spec, lock: Lock, platform: Platform) -> PlatformLock:
    pins = lock.platform(platform)
    if pins is None:
        have = ", ".join(str(each.platform) for each in lock.platforms)
        raise UsageError(
            f"{spec.name} is not locked for {platform}, only for {have}",
            hint=f"add {platform} to platforms in {spec.source}",
        )
    return pins


def _tag(name: str, lock_digests: Sequence[str]) -> str:
    """``<name>:<first 12 hex digits of the lock digest>``, or of all of several platforms' lock digests."""
    digest = lock_digests[0]
    if len(lock_digests) > 1:
        digest = canonical_digest("lock-index", 1, sorted(lock_digests))
    return f"{_repository(name)}:{digest.removeprefix('sha256:')[:_TAG_DIGITS]}"


def _repository(name: str) -> str:
    """``name`` as a repository's: in lower case, and single separators only (distribution spec)."""
    return re.sub(r"[^a-z0-9]+$", "", re.sub(r"([._-])[._-]+", r"\1", name.lower()))
