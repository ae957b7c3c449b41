"""The engine that composes images itself: no daemon, no root, same plan same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from envbuild.compose.base import ArtifactSource, ByteCompiler
from envbuild.compose.codec import codec
from envbuild.compose.interpreter import UnpackBase
from envbuild.compose.native_build import NativeBuild
from envbuild.compose.reuse import ReusedLayers
from envbuild.engines.base import cannot_build
from envbuild.errors import BuildError
from envbuild.lock.model import ContextBase, ImageBase, PipPin, PythonPin
from envbuild.oci.image import Image, Layer
from envbuild.plan.model import ArtifactKind, Plan
from envbuild.platforms import Platform, runs_linux
from envbuild.progress import Progress, Silent
from envbuild.store.content import Store
from envbuild.store.indexed_build import Made, indexed_build
from envbuild.store.leases import Lease
from envbuild.store.segments import Segment, SegmentCache

if TYPE_CHECKING:
    from envbuild.cache.segments import SharedSegments

SourceFactory = Callable[[Plan], AbstractContextManager[ArtifactSource]]


class BaseContents(Protocol):
    """What the engine needs to know of an image base, whose blobs are in the store by then."""

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The base's whole config document."""

    @property
    def directories(self) -> Mapping[str, tuple[int, int, int]]:
        """Path to mode, uid, gid."""

    @property
    def links(self) -> Mapping[str, str]:
        """Symlinks: path to target."""

    @property
    def prefix(self) -> Sequence[str]:
        """The first paths of what it has in the prefix itself."""


class CompilerFactory(Protocol):
    """Makes byte compilers. ``identity`` is known without an interpreter at hand."""

    def identity(self, python: PythonPin) -> str: ...

    def __call__(self, python: PythonPin, rootfs: Path) -> ByteCompiler: ...


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

    def build_over(self, plan: Plan, taken: ReusedLayers, lease: Lease) -> Image:
        """The image with the layers of ``taken`` as they are, for which nothing is fetched; what it uses is
        named in ``lease``. It isn't looked up by its lock again, since nobody composed those layers here.

        Raises ``BuildError``, which is ``Entangled`` where composing them would give others."""
        packing = codec(plan.compression)
        with self.store.scratch() as scratch, ExitStack() as stack:
            return NativeBuild(self, plan, packing, lease, scratch, stack, taken).run()

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
