"""An image of a Docker engine becomes one of the store: same config byte for byte, layers in our compression.

``docker save`` has two forms, and both are read in one pass without knowing which comes: before Docker 25 a
directory a layer with a ``layer.tar``, or a symlink to another's; since then an OCI layout, whose layers are
compressed where the engine keeps its images in containerd. A layer is known by what it hashes to, so
names and order in the archive decide nothing.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from envbuild.compose.codec import BLOCK, FORMAT, Codec, codec
from envbuild.compose.image import manifest_json
from envbuild.docker.stream import engine_errors
from envbuild.errors import BuildError
from envbuild.lazy import lazy
from envbuild.lock.model import ImageBase
from envbuild.oci.digest import canonical_digest, digest_bytes, is_digest
from envbuild.oci.image import Image, Layer
from envbuild.oci.layer import layer_names
from envbuild.oci.manifest import LAYERS, OCI_MANIFEST, ConfigDocument
from envbuild.plan.model import Plan
from envbuild.progress import Progress
from envbuild.store.content import Store, blob_name, commit_file
from envbuild.store.layers import LayerCache, LayerFile
from envbuild.store.leases import Lease

if TYPE_CHECKING:
    import docker
    import zstandard
else:
    zstandard = lazy("zstandard")

_WORKERS = 2
_DEPTH = 4
"""Blocks of one layer in memory at once."""
_DOCUMENT = 8 << 20
"""Bytes of the largest config or manifest that is read."""
_DOCUMENTS = 64 << 20
"""Bytes of all of them."""
_MEMBERS = 20_000


def import_image(
    client: docker.DockerClient, image: str, plan: Plan, store: Store, progress: Progress, lease: Lease
) -> Image:
    """The engine's ``image`` (an id) as the image of ``plan``, in the store. Streams; nothing is held whole.

    Raises ``BuildError``: the engine fails, the archive is damaged, or the image isn't of the plan's
    platform.
    """
    with engine_errors():
        inspect = cast(Callable[[str], Mapping[str, Any]], client.api.inspect_image)
        size = int(inspect(image).get("Size") or 0)
        # The SDK's own pieces are of 2 MB.
        archive = cast(Iterator[bytes], client.api.get_image(image))
        with progress.stage("import"), progress.task("import", "the image", total=size) as task:
            reader = ArchiveReader(store=store, packing=codec(plan.compression), lease=lease)
            return reader.read(archive, image, plan, task.advance)


@dataclass(frozen=True, kw_only=True)
class ArchiveReader:
    """Reads ``docker save`` archives into a store."""

    store: Store
    packing: Codec
    lease: Lease

    def read(
        self,
        archive: Iterable[bytes],
        image: str,
        plan: Plan,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Image:
        """The archive's one image, whose id is ``image``, as that of ``plan``. ``on_bytes`` is told of every
        piece. Raises ``BuildError``, and ``requests``' errors of the stream itself."""
        with (
            self.store.scratch() as scratch,
            ThreadPoolExecutor(_WORKERS, thread_name_prefix="import") as pool,
        ):
            reading = _ArchiveReading(self, scratch, pool)
            try:
                reading.run(_File(archive, on_bytes))
            except (tarfile.TarError, EOFError, ValueError, zlib.error, RecursionError) as error:
                raise BuildError(f"the Docker engine's archive is damaged: {error}") from error
            return reading.image(image, plan)


class _File:
    """Pieces as the file that ``tarfile`` reads from."""

    def __init__(self, pieces: Iterable[bytes], on_bytes: Callable[[int], None]) -> None:
        self._pieces = iter(pieces)
        self._on_bytes = on_bytes
        self._rest = b""

    def read(self, size: int) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
            self._on_bytes(len(piece))
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class _ArchiveReading:
    """One archive under way."""

    def __init__(self, reader: ArchiveReader, scratch: Path, pool: ThreadPoolExecutor) -> None:
        self._store = reader.store
        self._codec = reader.packing
        self._lease = reader.lease
        self._cache = LayerCache(reader.store)
        self._scratch = scratch
        self._pool = pool
        self._parts = count()
        self._room = _DOCUMENTS
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, tuple[LayerFile, Path | None]] = {}
        """By diff_id: what the layer is, and where it waits, unless the store has it."""

    def run(self, file: _File) -> None:
        with tarfile.open(
            fileobj=cast(IO[bytes], file), mode="r|", bufsize=1 << 20, encoding="utf-8"
        ) as archive:
            for number, member in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]
                if number >= _MEMBERS:
                    raise BuildError("the Docker engine's archive has too many files")
                if not member.isreg():
                    continue  # Directories, and links to layers that are there anyway.
                content = archive.extractfile(member)
                if content is not None:
                    with closing(content):
                        self._member(member.name, member.size, content)

    def _member(self, name: str, size: int, content: IO[bytes]) -> None:
        if name.endswith((".json", "/json", "/VERSION")) or name in ("repositories", "oci-layout"):
            self._document(name, size, b"", content)
            return
        # A layout's blobs are named after their digests: a config looks like a layer until it is read.
        named = f"sha256:{name.rpartition('/')[2]}" if name.startswith("blobs/sha256/") else ""
        head = content.read(min(BLOCK, size))
        if named and size <= _DOCUMENT and head[:1] == b"{":
            head = self._document(name, size, head, content)
        if is_digest(named) and (cached := self._cached(named)):
            self._layers[named] = (cached, None)
            return
        part = self._scratch / f"layer-{next(self._parts)}"
        layer = self._compress(_expanded(head, content), part)
        self._layers.setdefault(layer.diff_id, (layer, part))

    def _document(self, name: str, size: int, head: bytes, content: IO[bytes]) -> bytes:
        self._room -= size
        if size > _DOCUMENT or self._room < 0:
            raise BuildError(f"{name[:200]!r} of the Docker engine's archive is too large")
        self._documents[name] = head + content.read()
        return self._documents[name]

    def _compress(self, blocks: Iterator[bytes], part: Path) -> LayerFile:
        """Writes ``part`` and says what it is."""
        diff_id, digest = hashlib.sha256(), hashlib.sha256()
        size = 0
        flying: deque[Future[bytes]] = deque()
        with part.open("wb", buffering=0) as file:

            def write() -> int:
                member = flying.popleft().result()
                digest.update(member)
                view = memoryview(member)
                while view:
                    view = view[file.write(view) or 0 :]
                return len(member)

            for block in blocks:
                flying.append(self._pool.submit(self._codec.compress, block))
                diff_id.update(block)
                if len(flying) >= _DEPTH:
                    size += write()
            while flying:
                size += write()
        return LayerFile(
            digest=f"sha256:{digest.hexdigest()}", diff_id=f"sha256:{diff_id.hexdigest()}", size=size
        )

    # --- the end --------------------------------------------------------------------------------------

    def image(self, image: str, plan: Plan) -> Image:
        name, body = self._config()
        config = ConfigDocument(_object(body, name))
        if not config.diff_ids or not all(map(is_digest, config.diff_ids)):
            raise BuildError("the Docker engine's archive is damaged: the config has no layers")
        digest = digest_bytes(body)
        if image != digest and not self._leads(image, digest):
            raise BuildError(f"the Docker engine's archive holds the image {digest}, not {image}")
        if config.stated_platform != str(plan.platform):
            raise BuildError(
                f"the image that was built is for {config.stated_platform}, not for {plan.platform}"
            )
        below = self._base(plan)
        records = tuple(
            below.get(diff_id) or self._record(diff_id, label)
            for diff_id, label in zip(config.diff_ids, layer_names(config), strict=True)
        )
        manifest = manifest_json(plan, digest, len(body), records)
        self._store.add_blob(body)
        return Image(
            platform=plan.platform,
            digest=self._store.add_blob(manifest),
            media_type=OCI_MANIFEST,
            size=len(manifest),
            config_digest=digest,
            layers=records,
            lock_digest=plan.lock_digest,
            definition_digest=plan.definition_digest,
            level=plan.level,
        )

    def _config(self) -> tuple[str, bytes]:
        """Name and bytes of the config that ``manifest.json`` names."""
        body = self._documents.get("manifest.json")
        if body is None:
            raise BuildError("the Docker engine's archive ends too early: it has no manifest.json")
        try:
            (entry,) = json.loads(body)
            name = entry["Config"]
            return name, self._documents[name]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BuildError(
                "the Docker engine's archive is damaged: its manifest.json can't be used"
            ) from error

    def _leads(self, image: str, config: str) -> bool:
        """Whether ``image`` is a manifest, or an index with a manifest, of that config: containerd's ids."""
        reached: set[str] = set()
        todo = [image]
        while todo and len(reached) < 100:
            digest = todo.pop()
            body = self._documents.get(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            if digest in reached or body is None or digest_bytes(body) != digest:
                continue
            reached.add(digest)
            document = _object(body, digest)
            inner = document.get("config")
            if isinstance(inner, Mapping) and inner.get("digest") == config:
                return True
            for entry in document.get("manifests") or ():
                if isinstance(entry, Mapping) and is_digest(str(entry.get("digest"))):
                    todo.append(str(entry["digest"]))
        return False

    def _base(self, plan: Plan) -> Mapping[str, Layer]:
        """The layers of the plan's base as its registry has them, by diff_id, where the store holds them: a
        registry that has the base needn't be sent them again."""
        if not isinstance(plan.base, ImageBase):
            return {}
        manifest = self._store.blob(plan.base.digest)
        self._lease.use(blob_name(plan.base.digest))
        try:
            layers = _object(manifest.read_bytes(), manifest.name)["layers"]
            self._lease.use(*(blob_name(str(layer["digest"])) for layer in layers))
            return {
                diff_id: Layer(
                    digest=pair["digest"],
                    diff_id=diff_id,
                    size=pair["size"],
                    media_type=LAYERS[pair["mediaType"]],
                    name="base",
                )
                for pair, diff_id in zip(layers, plan.base.diff_ids, strict=True)
                if self._store.blob(pair["digest"]).stat().st_size == pair["size"]
            }
        except (OSError, BuildError, ValueError, TypeError, KeyError):
            return {}  # Not there, or no longer whole: our own copy does as well.

    def _record(self, diff_id: str, name: str) -> Layer:
        known = self._layers.get(diff_id)
        if known is None:
            raise BuildError(f"the Docker engine's archive is damaged: it has no layer {diff_id}")
        layer, part = known
        self._lease.use(blob_name(layer.digest))
        if part is not None:
            commit_file(part, self._store.blob(layer.digest))
            self._cache.put(self._key(diff_id), layer, self._scratch)
            self._layers[diff_id] = (layer, None)
        return Layer(
            digest=layer.digest,
            diff_id=diff_id,
            size=layer.size,
            media_type=self._codec.media_type,
            name=name,
        )

    def _cached(self, diff_id: str) -> LayerFile | None:
        """The layer as an earlier import has left it."""
        record = self._cache.get(self._key(diff_id))
        if record is None:
            return None
        self._lease.use(blob_name(record.digest))
        return self._cache.get(self._key(diff_id))

    def _key(self, diff_id: str) -> str:
        return canonical_digest("imported-layer", FORMAT, [self._codec.identity, diff_id]).removeprefix(
            "sha256:"
        )


def _expanded(head: bytes, content: IO[bytes]) -> Iterator[bytes]:
    """The layer's tar in blocks of :data:`BLOCK` bytes, uncompressed where it wasn't."""

    def pieces() -> Iterator[bytes]:
        yield head
        while piece := content.read(BLOCK):
            yield piece

    if head[:2] == b"\x1f\x8b":
        return _blocks(_gunzipped(pieces()))
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return _blocks(_unzstd(head, content))
    return _blocks(pieces())


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    gathered = bytearray()
    for piece in pieces:
        if not gathered and len(piece) == BLOCK:
            yield piece
            continue
        gathered += piece
        while len(gathered) >= BLOCK:
            yield bytes(gathered[:BLOCK])
            del gathered[:BLOCK]
    if gathered:
        yield bytes(gathered)


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip stream; never more than a block at once, however well it was compressed."""
    expand = zlib.decompressobj(wbits=31)
    data = b""
    for piece in pieces:
        data += piece
        while data:
            yield expand.decompress(data, BLOCK)
            if expand.eof:
                data, expand = expand.unused_data, zlib.decompressobj(wbits=31)
            else:
                data = expand.unconsumed_tail
    # What is kept back for want of room, and the check that the stream is whole.
    tail = expand.flush()
    if tail:
        yield tail


def _unzstd(head: bytes, content: IO[bytes]) -> Iterator[bytes]:
    class Whole:
        rest = head

        def read(self, size: int = -1) -> bytes:
            if self.rest:
                data, self.rest = self.rest[:size], self.rest[size:]
                return data
            return content.read(size)

    try:
        with zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], Whole()), read_across_frames=True
        ) as stream:
            while piece := stream.read(BLOCK):
                yield piece
    except zstandard.ZstdError as error:
        raise BuildError(f"the Docker engine's archive is damaged: {error}") from error


def _object(body: bytes, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"the Docker engine's archive is damaged: {name} is no JSON") from error
    if not isinstance(document, dict):
        raise BuildError(f"the Docker engine's archive is damaged: {name} is no object")
    return document
