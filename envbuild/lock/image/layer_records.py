"""What one layer says of what is installed: its records, and what it takes away of the layers below it.

The answer is kept by the layer's digest, so that of a new image only the new layers are read.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envbuild.errors import BuildError, FetchError
from envbuild.lock.image.records import DOCUMENTATION, essence, kind_of
from envbuild.oci.layer_scan import LayerScan, ScannedEntry, scan_layer
from envbuild.store.content import Store

_FORMAT = 1
_AREA = "metadata/layers"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordLimits:
    """What is read of an image; more is taken for an attack."""

    entries: int = 3_000_000
    size: int = 256 << 30
    """Bytes of all files together."""
    records: int = 200_000
    """Packages of all kinds."""
    header: int = 256 << 10
    """Bytes of a METADATA: its head says what counts, a description of any length follows."""
    status: int = 64 << 20
    """Bytes of a dpkg status."""
    conda: int = 16 << 20
    """Bytes of a package's record in ``conda-meta``: it names every file."""
    held: int = 256 << 20
    """Characters of what is kept of them, an upper layer's and a lower one's alike."""
    paths: int = 256 << 20
    """Characters of all paths together."""
    path: int = 4096
    """Characters of a path, as the kernel has it."""
    depth: int = 200
    turned: int = 1000
    """Directories of which the same layer makes files again: each takes a look at all records."""


@dataclass(kw_only=True, slots=True)
class LayerRecords:
    """A layer as it is when all of it was read. All paths are without leading slash, dots and whiteouts."""

    entries: int = 0
    size: int = 0
    contents: dict[str, str] = field(default_factory=dict)
    """The essence of each record, by path."""
    links: dict[str, str] = field(default_factory=dict)
    """Records that are hard links to what this layer hasn't."""
    removed: set[str] = field(default_factory=set)
    """What whiteouts take out of lower layers, each with all below it."""
    emptied: set[str] = field(default_factory=set)
    """Directories of which lower layers' content isn't seen; the empty path is the root."""
    others: set[str] = field(default_factory=set)
    """All that is no directory, and so takes the place of what lower layers have there."""


def layer_records(digest: str, media_type: str, store: Store) -> LayerRecords:
    """What the layer says, which is in the store. Raises ``BuildError``."""
    file = store.directory(_AREA) / f"{digest.removeprefix('sha256:')}.records"
    try:
        return _load(json.loads(zlib.decompress(file.read_bytes())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        pass  # Not there or damaged: it is made again from the layer.
    layer = read_layer(store.blob(digest), media_type, RecordLimits())
    with store.scratch() as scratch:
        (scratch / "records").write_bytes(zlib.compress(json.dumps(_dump(layer)).encode(), 1))
        (scratch / "records").replace(file)
    return layer


def read_layer(blob: Path, media_type: str, limits: RecordLimits) -> LayerRecords:
    """What a layer says, read from front to end. Raises ``BuildError``."""
    reading = _RecordReading(limits=limits)
    try:
        with scan_layer(blob, media_type) as scan:
            for entry in scan:
                reading.add(entry, scan)
    except FetchError as error:
        raise BuildError(error.message, hint=error.hint) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise BuildError(f"the layer {blob.name} can't be read: {error}") from error
    return reading.records


def ancestors(path: str) -> list[str]:
    """All directories above ``path`` but the root."""
    return [path[:end] for end, letter in enumerate(path) if letter == "/"]


@dataclass(kw_only=True, slots=True)
class _RecordReading:
    limits: RecordLimits
    records: LayerRecords = field(default_factory=LayerRecords)
    above: set[str] = field(default_factory=set)
    """All directories that lead to a record."""
    held: int = 0
    characters: int = 0
    turned: int = 0

    def add(self, entry: ScannedEntry, scan: LayerScan) -> None:
        records, limits = self.records, self.limits
        records.entries += 1
        records.size += entry.size
        self.characters += len(entry.name)
        check_totals(records.entries, records.size, limits)
        if len(entry.name) > limits.path:
            raise BuildError(f"a path of the image is longer than any system's: {entry.name[:60]}…")
        if self.characters > limits.paths:
            raise BuildError(f"the paths of a layer have more than {limits.paths} characters")
        path = _normal(entry.name)
        if not path:
            return
        directory, _, name = path.rpartition("/")
        if name == _OPAQUE:
            records.emptied.add(directory)
        elif name.startswith(_WHITEOUT):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden not in ("", ".", ".."):
                records.removed.add(f"{directory}/{hidden}" if directory else hidden)
        elif not entry.is_directory:
            self._forget(path)
            records.others.add(path)
            self._record(path, entry, scan)

    def _forget(self, path: str) -> None:
        """Whatever it is, it takes the place of what the layer had there before."""
        kept = self.records
        kept.contents.pop(path, None)
        kept.links.pop(path, None)
        if path in self.above:
            self.above.discard(path)
            self.turned += 1
            if self.turned > self.limits.turned:
                raise BuildError(f"a layer makes more than {self.limits.turned} directories files")
            below = f"{path}/"
            for records in (kept.contents, kept.links):
                for inside in [record for record in records if record.startswith(below)]:
                    del records[inside]

    def _record(self, path: str, entry: ScannedEntry, scan: LayerScan) -> None:
        kind = kind_of(path)
        if kind is None:
            # One package's documentation may be another's: that is where its copyright is.
            if entry.is_symlink and DOCUMENTATION.fullmatch(path):
                self._store_record(path, entry.link[: self.limits.path])
        elif kind == "copyright" and entry.is_symlink:
            self._store_record(path, "")
        elif entry.is_hard_link:
            # An installer may link files to its cache, which the same layer may hold.
            target = _normal(entry.link)
            if target in self.records.contents:
                self._store_record(path, self.records.contents[target])
            else:
                self._store_record(path, "")
                self.records.links[path] = target
        elif kind == "jar":
            if entry.is_regular:
                self._store_record(path, "")
        elif entry.is_regular:
            limits = {"status": self.limits.status, "states": self.limits.status, "conda": self.limits.conda}
            data = scan.read(limits.get(kind, self.limits.header))
            self._store_record(path, essence(kind, data.decode(errors="replace")))

    def _store_record(self, path: str, content: str) -> None:
        records = self.records
        records.contents[path] = content
        self.held += len(content)
        check_held(len(records.contents), self.held, self.limits)
        if path.count("/") >= self.limits.depth:
            raise BuildError(f"the image has directories deeper than {self.limits.depth}")
        self.above.update(ancestors(path))


def check_totals(entries: int, size: int, limits: RecordLimits) -> None:
    """Raises ``BuildError`` where an image, or a layer of it, has more than any."""
    if entries > limits.entries or size > limits.size:
        raise BuildError(f"the image has more than {limits.entries} entries or {limits.size} bytes")


def check_held(records: int, held: int, limits: RecordLimits) -> None:
    """Raises ``BuildError`` where an image, or a layer of it, has more packages than any."""
    if records > limits.records or held > limits.held:
        raise BuildError(f"the image's layers have more than {limits.records} packages")


def _normal(name: str) -> str:
    """``name`` without what means nothing in it. Raises ``BuildError`` where it leaves the image."""
    path = name.strip("/")
    if "./" in path or "//" in path or path.endswith(("/.", "/..")) or path in (".", ".."):
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BuildError(f"an entry of the image leaves it: {name!r}")
        return "/".join(parts)
    return path


def _dump(records: LayerRecords) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "entries": records.entries,
        "size": records.size,
        "contents": records.contents,
        "links": records.links,
        **{key: sorted(getattr(records, key)) for key in ("removed", "emptied", "others")},
    }


def _load(document: dict[str, Any]) -> LayerRecords:
    if document["format"] != _FORMAT:
        raise ValueError("another format")
    return LayerRecords(
        entries=int(document["entries"]),
        size=int(document["size"]),
        contents=dict(document["contents"].items()),
        links=dict(document["links"].items()),
        removed=set(document["removed"]),
        emptied=set(document["emptied"]),
        others=set(document["others"]),
    )
