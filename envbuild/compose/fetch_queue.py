"""How artifacts come to a build: what compiling waits for, a first batch, then the bulk, of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from envbuild.compose.base import ArtifactSource, ByteCompiler
from envbuild.plan.model import Artifact, ArtifactKind

BATCH = 24 << 20
"""Bytes, compressed, that are fetched before the bulk, so that composing starts before all is there."""


class FetchQueue:
    """Fetches of a build, one thread a kind."""

    def __init__(
        self,
        source: Callable[[ArtifactKind], ArtifactSource],
        missing: Sequence[Artifact],
        first: frozenset[str],
    ) -> None:
        self.pending: dict[Future[None], list[Artifact]] = {}
        self._pools: list[ThreadPoolExecutor] = []
        self._first: list[Future[None]] = []
        for kind in sorted({artifact.kind for artifact in missing}):
            group = [artifact for artifact in missing if artifact.kind is kind]
            pool = ThreadPoolExecutor(1, thread_name_prefix=f"fetch-{kind.value}")
            self._pools.append(pool)
            opened = source(kind)
            leading = [artifact for artifact in group if artifact.sha256 in first]
            rest = [artifact for artifact in group if artifact.sha256 not in first]
            for batch in _batches(rest, leading):
                future = pool.submit(opened.fetch, batch)
                self.pending[future] = batch
                if batch is leading:
                    self._first.append(future)

    def take(self, future: Future[None]) -> list[Artifact]:
        """What a finished fetch brought. Raises what it raised."""
        future.result()
        return self.pending.pop(future)

    def after_first(self, make: Callable[[], ByteCompiler]) -> Future[ByteCompiler]:
        """The result of ``make``, run once the first batches are here."""

        def run() -> ByteCompiler:
            for future in self._first:
                future.result()
            return make()

        pool = ThreadPoolExecutor(1, thread_name_prefix="interpreter")
        self._pools.append(pool)
        return pool.submit(run)

    def close(self, *, wait: bool) -> None:
        """Starts nothing more; ``wait`` for what is under way."""
        for pool in self._pools:
            pool.shutdown(wait=wait, cancel_futures=True)


class AwaitedCompiler:
    """A byte compiler whose interpreter is still being made ready."""

    def __init__(self, identity: str, ready: Future[ByteCompiler]) -> None:
        self.identity = identity
        self._ready = ready

    def compile(self, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        return self._ready.result().compile(files)


def _batches(rest: list[Artifact], leading: list[Artifact]) -> Iterator[list[Artifact]]:
    """What compiling waits for; then enough of moderate size to keep the cores busy; then all the rest at
    once, because one large fetch is faster than several."""
    if leading:
        yield leading
    second: list[Artifact] = []
    size = 0
    for artifact in rest:
        if artifact.size <= BATCH and size < BATCH:
            second.append(artifact)
            size += artifact.size
    early = {id(artifact) for artifact in second}
    for batch in (second, [artifact for artifact in rest if id(artifact) not in early]):
        if batch:
            yield batch
