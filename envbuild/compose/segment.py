"""One artifact becomes a compressed tar segment: its files, then its byte code, without an end of archive.

A segment is a pure function of its :class:`SegmentInputs`. Byte code follows the files in chunks whose
boundaries depend on the artifact alone, each compiled by a fresh interpreter: several cores share a large
package, and no package's byte code depends on another's.
"""

from __future__ import annotations

import posixpath
import shutil
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from envbuild.compose.base import ByteCompiler, Entry, EntryKind
from envbuild.compose.codec import BLOCK, FORMAT, Codec
from envbuild.compose.filesystem import resolve
from envbuild.compose.tar import MTIME, check_path, entry_stream
from envbuild.errors import BuildError
from envbuild.lock.identity import conda_identity
from envbuild.lock.model import CondaPin, PythonPin
from envbuild.oci.digest import CHUNK, canonical_digest
from envbuild.plan.model import Artifact
from envbuild.specs.model import PREFIX, STANDALONE
from envbuild.store.segments import DirectoryRow, Segment

COMPILE_CHUNK = 4 << 20
"""Bytes of source after which another interpreter takes over. Part of the format."""

_DEPTH = 3
"""Blocks of one segment being compressed at once: bounds memory."""


@dataclass(frozen=True, kw_only=True)
class SegmentInputs:
    """Everything a segment depends on. ``links`` are symlinks of the image to resolve in its paths,
    ``omit`` paths that another artifact already brings with the same content."""

    artifact: Artifact
    python: PythonPin | None = None
    compiler: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    omit: tuple[str, ...] = ()
    made_of: str | None = None
    """SHA-256 of another artifact that some of this one's files are made of."""
    mtime: int = MTIME
    """The time of all entries."""

    def key(self, codec: Codec) -> str:
        """The segment's name in the store, bare hex."""
        artifact, python = self.artifact, self.python
        pin = artifact.pin
        value = {
            "artifact": [artifact.kind.value, artifact.name, artifact.version, artifact.sha256],
            # Its record in conda-meta says what the channel said, not only what the archive holds.
            "conda": conda_identity(pin) if isinstance(pin, CondaPin) else None,
            "prefix": str(PREFIX),
            "python": [python.version, python.provider, python.executable] if python else None,
            "compiler": self.compiler,
            "chunk": COMPILE_CHUNK if self.compiler else None,
            "codec": codec.identity,
            "links": sorted(map(list, self.links)),
            "omit": sorted(self.omit),
            "mtime": self.mtime,
            **({"made_of": self.made_of} if self.made_of else {}),
        }
        return canonical_digest("segment", FORMAT, value).removeprefix("sha256:")

    def compiled(self, path: str) -> bool:
        """Whether a file at ``path`` lies in a library directory of the interpreter."""
        if self.compiler is None or self.python is None:
            return False
        if path.startswith(f"{str(PREFIX)[1:]}/lib/python{self.python.short}/"):
            return True
        if self.python.build is not None:
            return path.startswith(f"{str(STANDALONE)[1:]}/lib/python{self.python.short}/")
        return self.python.provider == "debian" and path.startswith(
            (f"usr/lib/python{self.python.short}/", "usr/lib/python3/")
        )


class BuildStopped(Exception):
    """Another part of the build failed or was interrupted; this one gives up."""


class WorkerPools:
    """The threads that compress and compile, and the switch that stops them all.

    Compression leaves the GIL and compiling is another process, so threads are enough.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.blocks = ThreadPoolExecutor(min(workers, 16), thread_name_prefix="compress")
        self.compilers = ThreadPoolExecutor(workers, thread_name_prefix="compile")
        self.pending = threading.BoundedSemaphore(2 * workers)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Lets every worker raise :class:`BuildStopped` at its next step."""
        self._stopped.set()

    def check(self) -> None:
        if self._stopped.is_set():
            raise BuildStopped

    def __enter__(self) -> WorkerPools:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop()
        self.compilers.shutdown(wait=True, cancel_futures=kind is not None)
        self.blocks.shutdown(wait=True, cancel_futures=kind is not None)


class CompressedWriter:
    """Cuts a stream into blocks, has them compressed in parallel and writes them in order."""

    def __init__(self, file: BinaryIO, codec: Codec, pools: WorkerPools) -> None:
        self._file = file
        self._codec = codec
        self._pools = pools
        self._buffer = bytearray()
        self._pending: deque[tuple[Future[bytes], int]] = deque()
        self.members: list[tuple[int, int]] = []
        self.checksums: list[int] = []
        self.position = 0
        """Bytes of the uncompressed stream so far."""

    def write(self, data: bytes) -> None:
        self._buffer += data
        self.position += len(data)
        while len(self._buffer) >= BLOCK:
            self._submit(bytes(memoryview(self._buffer)[:BLOCK]))
            del self._buffer[:BLOCK]

    def end_member(self) -> None:
        """Ends the block under way, so that what follows doesn't depend on what came before."""
        if self._buffer:
            self._submit(bytes(self._buffer))
            self._buffer.clear()

    def append(self, part: Path, members: Iterable[tuple[int, int]], checksums: Iterable[int]) -> None:
        """Copies ready members from a file."""
        self.end_member()
        self._drain(0)
        with part.open("rb") as file:
            shutil.copyfileobj(file, self._file, CHUNK)
        for member in members:
            self.members.append(member)
            self.position += member[1]
        self.checksums.extend(checksums)

    def finish(self) -> None:
        self.end_member()
        self._drain(0)

    def _submit(self, block: bytes) -> None:
        self._pools.check()
        self._pending.append((self._pools.blocks.submit(self._codec.compress, block), len(block)))
        self._drain(_DEPTH)

    def _drain(self, depth: int) -> None:
        while len(self._pending) > depth:
            future, size = self._pending.popleft()
            member = future.result()
            self._file.write(member)
            self.members.append((len(member), size))
            self.checksums.append(zlib.crc32(member))


@dataclass(frozen=True, kw_only=True)
class _BytecodeChunk:
    """Byte code of one chunk, compressed: offsets are from the chunk's own start."""

    part: Path
    members: tuple[tuple[int, int], ...]
    checksums: tuple[int, ...]
    paths: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class SegmentMaker:
    """Writes segments of one build into ``scratch``."""

    codec: Codec
    pools: WorkerPools
    scratch: Path
    compiler: ByteCompiler | None = None

    def make(self, inputs: SegmentInputs, entries: Iterator[Entry]) -> tuple[Segment, Path]:
        """The segment of ``inputs`` and the file with its bytes, to be put into the cache.

        Raises ``BuildError`` that names the artifact."""
        key = inputs.key(self.codec)
        part = self.scratch / key
        try:
            with part.open("wb") as file:
                return self._write(inputs, key, entries, file), part
        except BuildError as error:
            artifact = inputs.artifact
            if artifact.name in error.message:
                raise
            raise BuildError(
                f"{artifact.name} {artifact.version}: {error.message}", hint=error.hint
            ) from error
        except OSError as error:
            raise BuildError(
                f"can't write the segment of {inputs.artifact.name} to {self.scratch}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error

    def _write(self, inputs: SegmentInputs, key: str, entries: Iterator[Entry], file: BinaryIO) -> Segment:
        writer = CompressedWriter(file, self.codec, self.pools)
        paths: list[tuple[str, int]] = []
        links: list[tuple[str, str]] = []
        directories: list[DirectoryRow] = []
        chunks: list[Future[_BytecodeChunk]] = []
        sources: list[_Source] = []
        gathered = 0
        seen: set[str] = set()
        try:
            for name, entry in _place(entries, inputs):
                self.pools.check()
                if entry.path in seen:
                    raise BuildError(f"it brings {entry.path} twice")
                seen.add(entry.path)
                if entry.kind is EntryKind.DIRECTORY:
                    directories.append((entry.path, entry.mode & 0o7777, entry.uid, entry.gid))
                    continue
                paths.append((entry.path, writer.position))
                if entry.kind is EntryKind.SYMLINK:
                    links.append((entry.path, entry.target))
                for data in entry_stream(entry, inputs.mtime):
                    writer.write(data)
                if entry.kind is EntryKind.FILE and entry.path.endswith(".py") and name:
                    # Read now: a source may free its scratch space when its last entry is taken.
                    source = _read_content(entry.content)
                    sources.append(_Source(name, posixpath.dirname(entry.path), source))
                    gathered += len(source)
                    if gathered >= COMPILE_CHUNK:
                        chunks.append(self._submit_chunk(inputs, len(chunks), sources))
                        sources, gathered = [], 0
            if sources:
                chunks.append(self._submit_chunk(inputs, len(chunks), sources))
            writer.end_member()
            for future in chunks:
                chunk = future.result()
                self.pools.check()
                writer.finish()
                start = writer.position
                writer.append(chunk.part, chunk.members, chunk.checksums)
                chunk.part.unlink()
                paths.extend((path, start + offset) for path, offset in chunk.paths)
            writer.finish()
        except BaseException:
            for future in chunks:
                future.cancel()
            raise
        return Segment(
            key=key,
            members=tuple(writer.members),
            checksums=tuple(writer.checksums),
            paths=tuple(paths),
            links=tuple(links),
            directories=tuple(directories),
        )

    def _submit_chunk(
        self, inputs: SegmentInputs, number: int, sources: list[_Source]
    ) -> Future[_BytecodeChunk]:
        """Hands a chunk over. Waits while too many are pending, which bounds the memory they hold."""
        while not self.pools.pending.acquire(timeout=0.1):
            self.pools.check()
        try:
            part = self.scratch / f"{inputs.key(self.codec)}.{number}"
            future = self.pools.compilers.submit(self._write_bytecode, part, sources, inputs.mtime)
        except BaseException:
            self.pools.pending.release()
            raise
        future.add_done_callback(lambda _: self.pools.pending.release())
        return future

    def _write_bytecode(self, part: Path, sources: list[_Source], mtime: int) -> _BytecodeChunk:
        if self.compiler is None:
            raise BuildError("there is no interpreter to compile byte code with")
        paths: list[tuple[str, int]] = []
        places = {posixpath.dirname(source.name): source.directory for source in sources}
        with part.open("wb") as file:
            writer = CompressedWriter(file, self.codec, self.pools)
            for path, code in self.compiler.compile(self._sorted_sources(sources)):
                self.pools.check()
                cache, _, name = path.lstrip("/").rpartition("/")
                above, _, cache = cache.rpartition("/")
                entry = Entry(path=f"{places[above]}/{cache}/{name}", content=code)
                paths.append((entry.path, writer.position))
                for data in entry_stream(entry, mtime):
                    writer.write(data)
            writer.finish()
        return _BytecodeChunk(
            part=part,
            members=tuple(writer.members),
            checksums=tuple(writer.checksums),
            paths=tuple(paths),
        )

    def _sorted_sources(self, sources: list[_Source]) -> Iterator[tuple[str, bytes]]:
        for source in sorted(sources, key=lambda source: source.name):
            self.pools.check()
            yield "/" + source.name, source.content


class _Source(NamedTuple):
    """A file to be compiled. ``name`` is its path as the interpreter finds it, ``directory`` where it lies
    once the image's links are followed."""

    name: str
    directory: str
    content: bytes


def _place(entries: Iterator[Entry], inputs: SegmentInputs) -> Iterator[tuple[str | None, Entry]]:
    """The entries where the image's links lead them, without those left out and old byte code; each with its
    path as the interpreter finds it, None where that isn't in its library."""
    links = dict(inputs.links)
    omit = frozenset(inputs.omit)
    for entry in entries:
        check_path(entry.path)
        stated = entry.path
        if links:
            path = resolve(entry.path, links, whole=entry.kind is EntryKind.DIRECTORY)
            if path != entry.path:
                entry = replace(entry, path=path)
        if entry.path in omit:
            continue
        # Byte code an artifact brings holds the time of a source that has another time here.
        name = next((path for path in (entry.path, stated) if inputs.compiled(path)), None)
        if entry.path.endswith(".pyc") and "/__pycache__/" in entry.path and name:
            continue
        yield name, entry


def _read_content(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()
