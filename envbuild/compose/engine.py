"""The engine that composes images itself: no daemon, no root, same plan same bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from envbuild.cache.segments import Found, SharedSegments, WantedSegment
from envbuild.compose.activation import ActivationRoot, Activator, disarm, sourced_files
from envbuild.compose.artifacts.deb.policy import MADE_OF
from envbuild.compose.artifacts.generated import GeneratedSource
from envbuild.compose.artifacts.sources import artifact_sources
from envbuild.compose.base import (
    ActivatingSource,
    ArtifactSource,
    ByteCompiler,
    ComposeContext,
    ForeseeingSource,
    SourceFactory,
    cannot_build,
    interpreter_target,
    source_target,
)
from envbuild.compose.base_image import BaseContents, base_images
from envbuild.compose.bytecode import RootfsCompilers
from envbuild.compose.clashes import (
    Overwritten,
    install_order,
    is_worth_a_word,
    may_overwrite,
    owners_of,
    warnings,
)
from envbuild.compose.codec import Codec, codec
from envbuild.compose.fetch_queue import AwaitedCompiler, FetchQueue
from envbuild.compose.filesystem import (
    USRMERGE,
    BaseTree,
    Contribution,
    MergeResult,
    layer_directories,
    merge_contributions,
    resolve,
)
from envbuild.compose.image import config_env, store_image
from envbuild.compose.interpreter import (
    Sources,
    UnpackBase,
    conda_closure,
    interpreter_artifacts,
    interpreter_rootfs,
    rootfs_key,
)
from envbuild.compose.layer import LayerMaker
from envbuild.compose.reuse import ReusedLayers
from envbuild.compose.segment import BuildStopped, SegmentInputs, SegmentMaker, WorkerPools
from envbuild.compose.segment_scan import scan_segment
from envbuild.compose.tar import file_time
from envbuild.errors import BuildError
from envbuild.lock.model import (
    OCCUPIED_HINT,
    CondaPin,
    ContextBase,
    ImageBase,
    PipPin,
    PlatformLock,
    PythonPin,
    occupied_base,
)
from envbuild.oci.image import Image, Layer
from envbuild.plan.activation import Activation
from envbuild.plan.make import activation_plan
from envbuild.plan.model import Artifact, ArtifactKind, Interpreter, Plan
from envbuild.platforms import Platform, runs_linux
from envbuild.progress import Progress, Silent
from envbuild.specs.model import PREFIX, STANDALONE
from envbuild.store.content import Store, blob_name
from envbuild.store.images import Made, indexed_build, read_config
from envbuild.store.layers import LayerCache, LayerFile
from envbuild.store.leases import Lease
from envbuild.store.segments import DamagedSegment, Segment, SegmentCache

_ROUNDS = 8
"""How often links may lead to further links before we give up."""
_REPAIRS = 16
"""How many damaged segments one build makes anew before it takes the disk for broken."""


class CompilerFactory(Protocol):
    """Makes byte compilers. ``identity`` is known without an interpreter at hand."""

    def identity(self, python: PythonPin, *, checked: bool) -> str: ...

    def __call__(self, python: PythonPin, rootfs: Path, *, checked: bool) -> ByteCompiler: ...


@dataclass(frozen=True, kw_only=True)
class NativeEngine:
    """Composes plans with what the store has and the sources bring.

    ``sources`` has one factory for each kind of artifact but ``GENERATED``. ``reuse=False`` takes nothing
    from the caches (``--no-cache``), but fills them.
    """

    store: Store
    sources: Mapping[ArtifactKind, SourceFactory]
    compiler_factory: CompilerFactory | None = None
    base_loader: Callable[[ImageBase, Platform], BaseContents] | None = None
    unpack_base: UnpackBase | None = None
    progress: Progress = field(default_factory=Silent)
    workers: int | None = None
    reuse: bool = True
    clock: Callable[[], float] = time.time
    host: Platform = field(default_factory=Platform.host)
    shared: SharedSegments | None = None
    """The repositories in which machines share segments; ``reuse=False`` only writes there."""
    name: str = "native"

    def unable(self, plan: Plan) -> list[str]:
        """Every reason why ``plan`` can't be composed here, sorted."""
        reasons: set[str] = set()
        for artifact in plan.artifacts:
            if isinstance(artifact.pin, PipPin) and not artifact.pin.is_wheel:
                reasons.add(f"{artifact.pin.file} is no wheel: lock again, so that one is built from it")
            if artifact.kind is not ArtifactKind.GENERATED and artifact.kind not in self.sources:
                reasons.add(
                    f"{artifact.name} {artifact.version}: no source of {artifact.kind.value} packages"
                )
        if isinstance(plan.base, ContextBase):
            reasons.add(f"a Dockerfile ({plan.base.dockerfile}) runs its own steps")
        if isinstance(plan.base, ImageBase) and self.base_loader is None:
            reasons.add(f"nothing here loads the base {plan.base.reference}")
        if plan.bytecode and plan.python is not None:
            if plan.interpreter is None or plan.interpreter.lock.platform != self.host or not runs_linux():
                reasons.add(
                    f"byte code for {plan.platform} needs a python {plan.python.version} that runs on this "
                    f"machine ({self.host}), and the lock has none"
                )
            elif self.compiler_factory is None:
                reasons.add("nothing here compiles byte code")
        return sorted(reasons)

    def identity(self, plan: Plan) -> str:
        """The plan's own lock digest, which covers all that decides these bytes."""
        return plan.lock_digest

    def build_over(self, plan: Plan, reused: ReusedLayers, lease: Lease) -> Image:
        """The image with the layers of ``reused`` as they are, for which nothing is fetched; what it uses is
        named in ``lease``. It isn't looked up by its lock again, since nobody composed those layers here.

        Raises ``BuildError``, which is ``NotReusable`` where composing them would give others."""
        packing = codec(plan.compression)
        with self.store.scratch() as scratch, ExitStack() as stack:
            return NativeBuild(self, plan, packing, lease, scratch, stack, reused).run()

    def activation(self, plan: Plan) -> Activation:
        """What activating the environment of ``plan`` sets; no more of it is composed than that takes.
        Raises ``BuildError``."""
        artifacts = [artifact for artifact in plan.artifacts if artifact.kind is ArtifactKind.CONDA]
        if not artifacts or not plan.activate:
            return Activation()
        with self.sources[ArtifactKind.CONDA](source_target(plan)) as source:
            activating = source.activating(artifacts) if isinstance(source, ActivatingSource) else []
        if not activating:
            return Activation()
        pins = [artifact.pin for artifact in artifacts if isinstance(artifact.pin, CondaPin)]
        names = {pin.name for pin in conda_closure(pins, [artifact.name for artifact in activating])}
        image = self.build(activation_plan(plan, names))
        return Activation.of_config(read_config(image, self.store))

    def build(self, plan: Plan) -> Image:
        """The image. Two builds of one plan at once compose it once."""
        reasons = self.unable(plan)
        if reasons:
            raise BuildError(
                cannot_build(self.name, reasons),
                hint="what runs steps of its own takes --engine docker or buildx; where only byte code is in "
                "the way: envbuild lock --no-bytecode",
            )
        packing = codec(plan.compression)
        composed: dict[str, Segment] = {}

        def compose(lease: Lease) -> Made:
            with self.store.scratch() as scratch, ExitStack() as stack:
                composition = NativeBuild(self, plan, packing, lease, scratch, stack)
                image = composition.run()
            composed.update(composition.shareable)
            return image, composition.uses()

        image = indexed_build(self.store, self.identity(plan), compose, reuse=self.reuse, clock=self.clock)
        # The image is recorded by now: nothing that happens to a cache can take it away again.
        if composed and self.shared is not None and self.shared.writes:
            with self.progress.stage("share"), self.store.scratch() as scratch:
                self.shared.share(composed, SegmentCache(self.store), scratch)
        return image


def native_engine(context: ComposeContext, *, reuse: bool, shared: SharedSegments | None) -> NativeEngine:
    """The composer of a call; see :class:`NativeEngine` for ``reuse`` and ``shared``."""
    bases = base_images(context)
    return NativeEngine(
        store=context.store,
        sources=artifact_sources(context),
        compiler_factory=RootfsCompilers(),
        base_loader=bases.load,
        unpack_base=bases.unpack,
        progress=context.progress,
        workers=context.settings.workers,
        reuse=reuse,
        shared=shared,
    )


@dataclass(kw_only=True)
class _SegmentWork:
    """One artifact of a build under way."""

    artifact: Artifact
    inputs: SegmentInputs
    segment: Segment | None = None


class NativeBuild:
    """One build under way: its threads, its scratch space, its sources."""

    def __init__(
        self,
        engine: NativeEngine,
        plan: Plan,
        packing: Codec,
        lease: Lease,
        scratch: Path,
        stack: ExitStack,
        reused: ReusedLayers | None = None,
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.reused = reused or ReusedLayers()
        self.mtime = file_time(plan.created)
        self.codec = packing
        self.lease = lease
        self.scratch = scratch
        self.stack = stack
        self.store = engine.store
        self.progress = engine.progress
        self.workers = max(1, engine.workers or os.cpu_count() or 1)
        self.segments = SegmentCache(engine.store)
        self.sources: dict[ArtifactKind, ArtifactSource] = {ArtifactKind.GENERATED: GeneratedSource()}
        self.overwritten: list[Overwritten] = []
        self.fresh: set[str] = set()
        """Keys of segments that this build made itself: never older than it, even without the caches."""
        self.shareable: dict[str, Segment] = {}
        """Segments of packages by key, also those that were only a step on the way: another machine that is
        to fetch no package needs the same steps."""
        self.work = [
            _SegmentWork(artifact=artifact, inputs=self._segment_inputs(artifact))
            for index, layer in enumerate(plan.layers)
            if index not in self.reused.layers
            for artifact in layer.artifacts
        ]

    def _segment_inputs(self, artifact: Artifact) -> SegmentInputs:
        plan, factory = self.plan, self.engine.compiler_factory
        if artifact.kind is ArtifactKind.GENERATED:
            return SegmentInputs(artifact=artifact, mtime=self.mtime)
        compiler = None
        if plan.bytecode and plan.python and factory:
            compiler = factory.identity(plan.python, checked=plan.checked_bytecode)
        inputs = SegmentInputs(artifact=artifact, python=plan.python, compiler=compiler, mtime=self.mtime)
        if artifact.kind is not ArtifactKind.DEBIAN:
            return inputs
        origin = MADE_OF.get(artifact.name)
        packages = plan.artifacts if origin else ()
        made_of = [other.sha256 for other in packages if (other.kind, other.name) == (artifact.kind, origin)]
        return replace(inputs, links=USRMERGE, made_of=made_of[0] if made_of else None)

    def uses(self) -> tuple[str, ...]:
        """The names below the store's root of what the image was made with."""
        names = [f"segments/{work.segment.key}" for work in self.work if work.segment]
        names += self.plan.artifact_names
        if self.plan.interpreter and self.plan.bytecode:
            names.append(f"rootfs/{rootfs_key(self.plan.interpreter)}")
        return tuple(sorted(set(names)))

    def run(self) -> Image:
        plan, engine = self.plan, self.engine
        base: BaseContents | None = None
        if isinstance(plan.base, ImageBase) and engine.base_loader:
            with self.progress.stage("base"):
                base = engine.base_loader(plan.base, plan.platform)
        below = tuple(base.layers) if base else ()
        if plan.config.inherit and base:
            self.lease.use(*(blob_name(layer.digest) for layer in below))
            return store_image(self.store, plan, (), below=below, inherited=base.config)
        if isinstance(plan.base, ImageBase) and base:
            _check_free(plan, plan.base, base.tree)
        tree = self.reused.merge(base.tree if base else BaseTree())
        self.lease.use(*plan.artifact_names)
        self.lease.use(*(blob_name(layer.digest) for layer in below))
        with WorkerPools(self.workers) as pools:
            for attempt in count():
                try:
                    with self.progress.stage("compose"):
                        merged = self._settle_segments(pools, tree)
                        self.reused.check([_segment_of(work) for work in self.work], tree, merged)
                    with self.progress.stage("layers"):
                        layers = self._write_layers(pools, merged)
                    break
                except DamagedSegment as error:
                    if attempt == _REPAIRS:
                        raise
                    self.progress.note(f"a cached segment is damaged and is made anew: {error.key[:12]}")
                    for work in self.work:
                        if work.segment and work.segment.key == error.key:
                            work.segment = None
        inherited = base.config if base else None
        activation = self._activation(layers, base)
        return store_image(self.store, plan, layers, below=below, inherited=inherited, activation=activation)

    # --- segments -------------------------------------------------------------------------------------

    def _settle_segments(self, pools: WorkerPools, tree: BaseTree) -> MergeResult:
        """Makes segments until no path goes through a link or belongs to two artifacts."""
        for _ in range(_ROUNDS):
            self._provide_segments(pools)
            contributions = [
                Contribution(
                    name=f"{work.artifact.name} {work.artifact.version}",
                    segment=_segment_of(work),
                    decides=work.artifact.kind is ArtifactKind.GENERATED,
                )
                for work in self.work
            ]
            merged = merge_contributions(contributions, tree)
            omit = self._settle_clashes(merged, contributions)
            if not merged.through and not omit:
                for line in warnings(self.overwritten):
                    self.progress.note(line)
                self.overwritten.clear()
                return merged
            for index in {*omit, *merged.through}:
                work = self.work[index]
                work.inputs = replace(
                    work.inputs,
                    links=tuple(sorted({*work.inputs.links, *merged.through.get(index, ())})),
                    omit=tuple(sorted({*work.inputs.omit, *omit.get(index, ())})),
                )
                work.segment = None
        raise BuildError("the symbolic links of this image lead to one another without an end")

    def _settle_clashes(
        self, merged: MergeResult, contributions: Sequence[Contribution]
    ) -> dict[int, set[str]]:
        """Contribution to the paths that it leaves to another one. Raises with every path that artifacts own
        differently and none of them may overwrite."""
        problems = [
            f"{clash.path} is a file of {contributions[clash.first].name}, "
            f"and a directory of {contributions[clash.second].name}"
            for clash in merged.blocked
        ]
        omit: dict[int, set[str]] = {}
        order = install_order(self.plan.artifacts) if merged.clashes else {}
        for path, owners in owners_of(merged.clashes).items():
            contents = [self._entry_bytes(contributions[index].segment, path) for index in owners]
            artifacts = [self.work[index].artifact for index in owners]
            kept = owners[0]
            if len(set(contents)) > 1:
                if self.plan.refuse_clashes or not may_overwrite(artifacts):
                    names = [contributions[index].name for index in owners]
                    problems.append(f"{path} is owned by both {' and '.join(names)}")
                    continue
                kept = max(owners, key=lambda index: order[self.work[index].artifact.sha256])
                if is_worth_a_word(path, contents):
                    winner = contributions[kept].name
                    losers = (contributions[index].name for index in owners if index != kept)
                    self.overwritten += [
                        Overwritten(path=path, winner=winner, loser=loser) for loser in losers
                    ]
            for index in owners:
                if index != kept:
                    omit.setdefault(index, set()).add(path)
        if problems:
            raise BuildError(
                "\n".join(sorted(problems)),
                hint="leave one of the packages out, or pin versions that don't both bring the path",
            )
        return omit

    def _entry_bytes(self, segment: Segment, path: str) -> bytes:
        """The entry as it stands in the archive: header, mode, owner and content."""
        start, end = segment.offsets[path]
        position, entry = 0, bytearray()
        for member, size in self.segments.members(segment):
            if position >= end:
                break
            if position + size > start:
                try:
                    block = self.codec.expand(member, size)
                except BuildError as error:
                    self.segments.drop(segment.key)
                    raise DamagedSegment(segment.key) from error
                entry += block[max(0, start - position) : end - position]
            position += size
        return bytes(entry)

    def _provide_segments(self, pools: WorkerPools) -> None:
        """Fills in every missing segment: from the store, else from a shared cache, else fetched and made,
        the largest first."""
        missing: list[_SegmentWork] = []
        for work in self.work:
            if work.segment is None:
                key = work.inputs.key(self.codec)
                self.lease.use(f"segments/{key}")
                if self.engine.reuse or key in self.fresh:
                    work.segment = self.segments.get(key)
                if work.segment is None:
                    missing.append(work)
                else:
                    self.segments.touch(key)
        missing = self._fetch_shared(missing)
        if missing:
            self._compose_segments(pools, missing)
        for work in self.work:
            if work.artifact.kind is not ArtifactKind.GENERATED:
                segment = _segment_of(work)
                self.shareable[segment.key] = segment

    def _fetch_shared(self, missing: list[_SegmentWork]) -> list[_SegmentWork]:
        """What of ``missing`` no shared cache had. Generated files are never there: made, they cost less."""
        shared = self.engine.shared
        wanted = {
            work.inputs.key(self.codec): work.artifact.size
            for work in missing
            if work.artifact.kind is not ArtifactKind.GENERATED
        }
        if not wanted or shared is None or not shared.reads or not self.engine.reuse:
            return missing
        segments: dict[str, Segment] = {}

        def take(match: Found) -> None:
            segment = scan_segment(
                match.key,
                match.part,
                match.members,
                match.directories,
                self.codec,
                mtime=self.mtime,
                beat=match.beat,
            )
            self.segments.put(segment, match.part)
            segments[match.key] = segment

        with self.progress.stage("shared cache"):
            sized = [WantedSegment(key=key, size=size) for key, size in wanted.items()]
            sized.sort(key=lambda segment: -segment.size)
            shared.bring(sized, self.scratch, take)
        for work in missing:
            work.segment = segments.get(work.inputs.key(self.codec))
        return [work for work in missing if work.segment is None]

    def _compose_segments(self, pools: WorkerPools, missing: list[_SegmentWork]) -> None:
        """Fetches the packages of ``missing`` and makes their segments."""
        self._refuse_early([work.artifact for work in missing])
        missing.sort(key=lambda work: (-work.artifact.size, work.artifact.kind.value, work.artifact.name))
        with (
            self.progress.task("compose", "packages", total=len(missing), unit="packages") as task,
            ThreadPoolExecutor(min(self.workers, 4), thread_name_prefix="segment") as writers,
        ):
            composing: dict[Future[Segment], _SegmentWork] = {}
            waiting = {id(work.artifact): work for work in missing}
            fetch = FetchQueue(
                self.source, [work.artifact for work in missing], self._interpreter_artifacts(missing)
            )
            try:
                maker = SegmentMaker(
                    codec=self.codec,
                    pools=pools,
                    scratch=self.scratch,
                    compiler=self._open_compiler(fetch, missing),
                )
                while fetch.pending or composing:
                    running: set[Future[Any]] = {*fetch.pending, *composing}
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        if future in fetch.pending:
                            for artifact in fetch.take(future):
                                work = waiting.pop(id(artifact))
                                composing[writers.submit(self._write_segment, maker, work)] = work
                        else:
                            work = composing.pop(future)
                            work.segment = future.result()
                            self.fresh.add(work.segment.key)
                            task.advance(1)
            except BaseException as error:
                pools.stop()
                for pending in composing:
                    pending.cancel()
                # After an error nothing may go on that writes to the store. An interrupted build ends now.
                fetch.close(wait=isinstance(error, Exception))
                raise
            fetch.close(wait=True)

    def _refuse_early(self, missing: Sequence[Artifact]) -> None:
        """Lets the sources refuse what can't be composed before anything is fetched."""
        for kind in sorted({artifact.kind for artifact in missing}):
            source = self.source(kind)
            if isinstance(source, ForeseeingSource):
                source.foresee([artifact for artifact in missing if artifact.kind is kind])

    def _write_segment(self, maker: SegmentMaker, work: _SegmentWork) -> Segment:
        segment, part = maker.make(work.inputs, self.source(work.artifact.kind).entries(work.artifact))
        self.segments.put(segment, part)
        return segment

    def source(self, kind: ArtifactKind) -> ArtifactSource:
        """The build's source of ``kind``, opened when first asked for (by the build's own thread)."""
        if kind not in self.sources:
            self.sources[kind] = self.stack.enter_context(self.engine.sources[kind](source_target(self.plan)))
        return self.sources[kind]

    # --- byte code ------------------------------------------------------------------------------------

    def _interpreter_artifacts(self, missing: Sequence[_SegmentWork]) -> frozenset[str]:
        """SHA-256 of the packages to be fetched first, because compiling waits for them."""
        interpreter = self._interpreter(missing)
        artifacts = interpreter_artifacts(interpreter) if interpreter else ()
        return frozenset(artifact.sha256 for artifact in artifacts)

    def _interpreter(self, missing: Sequence[_SegmentWork]) -> Interpreter | None:
        needed = any(work.inputs.compiler for work in missing)
        return self.plan.interpreter if needed else None

    def _open_compiler(self, fetch: FetchQueue, missing: Sequence[_SegmentWork]) -> ByteCompiler | None:
        interpreter, factory = self._interpreter(missing), self.engine.compiler_factory
        if interpreter is None or factory is None or self.plan.python is None:
            return None
        # Its packages may be another platform's than the plan's.
        packages = (f"artifacts/{artifact.sha256}" for artifact in interpreter_artifacts(interpreter))
        self.lease.use(f"rootfs/{rootfs_key(interpreter)}", *packages)
        checked = self.plan.checked_bytecode
        ready = fetch.after_first(
            lambda: factory(interpreter.python, self._unpack_interpreter(interpreter), checked=checked)
        )
        return AwaitedCompiler(factory.identity(self.plan.python, checked=checked), ready)

    def _unpack_interpreter(self, interpreter: Interpreter) -> Path:
        sources = self._sources_of(interpreter.lock)
        with self.progress.stage("interpreter"):
            return interpreter_rootfs(interpreter, self.store, sources, unpack_base=self.engine.unpack_base)

    def _sources_of(self, lock: PlatformLock) -> Sources:
        """What brings the packages of a root file system that runs on this machine."""
        target = interpreter_target(lock)
        return {kind: partial(open_source, target) for kind, open_source in self.engine.sources.items()}

    # --- layers ---------------------------------------------------------------------------------------

    def _write_layers(self, pools: WorkerPools, merged: MergeResult) -> tuple[Layer, ...]:
        maker = LayerMaker(
            codec=self.codec,
            pools=pools,
            segments=self.segments,
            layers=LayerCache(self.store),
            scratch=self.scratch,
            mtime=self.mtime,
            reuse=self.engine.reuse,
        )
        segments = iter([_segment_of(work) for work in self.work])
        grouped = [
            (layer, [next(segments) for _ in layer.artifacts])
            for index, layer in enumerate(self.plan.layers)
            if layer.artifacts and index not in self.reused.layers
        ]
        with (
            self.progress.task("layers", "layers", total=len(grouped), unit="layers") as task,
            ThreadPoolExecutor(min(self.workers, 8), thread_name_prefix="layer") as pool,
        ):

            def write(members: Sequence[Segment]) -> LayerFile:
                file = maker.make(members, layer_directories(members, merged.directories))
                task.advance(1)
                return file

            # The largest first, so that none is left to one core at the end.
            order = sorted(
                range(len(grouped)), key=lambda index: -sum(segment.unpacked for segment in grouped[index][1])
            )
            futures = {index: pool.submit(write, grouped[index][1]) for index in order}
            try:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
                # The error itself, not that of a worker that gave up because of it.
                for future in futures.values():
                    if future.done() and not isinstance(future.exception(), BuildStopped):
                        future.result()
                files = [futures[index].result() for index in range(len(grouped))]
            except BaseException as error:
                if not isinstance(error, DamagedSegment):
                    pools.stop()
                for future in futures.values():
                    future.cancel()
                raise
        written = (
            Layer(
                digest=file.digest,
                diff_id=file.diff_id,
                size=file.size,
                media_type=self.codec.media_type,
                name=layer.name,
                artifacts=tuple(f"{artifact.name} {artifact.version}" for artifact in layer.artifacts),
            )
            for (layer, _), file in zip(grouped, files, strict=True)
        )
        layers = ((index, layer) for index, layer in enumerate(self.plan.layers) if layer.artifacts)
        return tuple(self.reused.layers.get(index) or next(written) for index, _ in layers)

    # --- activation -----------------------------------------------------------------------------------

    def _activation(self, layers: Sequence[Layer], base: BaseContents | None) -> Activation:
        """The variables that activating the environment sets, as conda would."""
        plan = self.plan
        pins = [artifact.pin for artifact in plan.artifacts if isinstance(artifact.pin, CondaPin)]
        if not pins or not plan.activate:
            return Activation()
        prefix = resolve(str(PREFIX)[1:], base.tree.links, whole=True) if base else str(PREFIX)[1:]
        files = {
            path: work.artifact.name
            for work in self.work
            for path in sourced_files(_segment_of(work).offsets, prefix)
        }
        if not files:
            return Activation()
        with self.progress.stage("activate"):
            root = self.scratch / "activation"
            names = {pin.name for pin in conda_closure(pins, files.values())}
            ActivationRoot(
                plan=plan,
                store=self.store,
                host=self.engine.host,
                sources=self._sources_of,
                unpack_base=self.engine.unpack_base,
            ).unpack(root, layers, names.union(files.values()))
            disarm(root / prefix)
            inherited = base.config if base else None
            activator = Activator(
                tree=root,
                scratch=self.scratch,
                env=config_env(plan, below=base is not None, inherited=inherited),
            )
            activation = activator.run(files)
        for note in activator.notes:
            self.progress.note(note)
        return activation


def _check_free(plan: Plan, base: ImageBase, tree: BaseTree) -> None:
    """Raises ``BuildError`` for a base that has files where ours go: the two would be mixed."""
    if tree.prefix:
        raise BuildError(occupied_base(base, tree.prefix), hint=OCCUPIED_HINT)
    place = resolve(str(STANDALONE)[1:], tree.links, whole=True)
    if plan.python is not None and plan.python.build is not None and place in tree.directories:
        raise BuildError(
            f"the base {base.reference}@{base.digest} already has a directory {STANDALONE}, where the "
            "standalone python goes",
            hint="write python_provider: base if that python is the one, or take another base",
        )


def _segment_of(work: _SegmentWork) -> Segment:
    if work.segment is None:
        raise BuildError(f"the segment of {work.artifact.name} was not made")
    return work.segment
