"""Which blob a layer of given segments is, so that it is neither written nor hashed again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes, is_digest
from envbuild.store.content import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFile:
    """A layer in the store: digest of the compressed blob, diff_id of the tar, blob's size in bytes."""

    digest: str
    diff_id: str
    size: int


class LayerCache:
    """The layers of a store, by the key of what they are made from (bare hex)."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def record(self, key: str) -> Path:
        return self.store.root / "layers" / f"{key}.json"

    def get(self, key: str) -> LayerFile | None:
        """The layer, if its record is sound and its blob there with the right size."""
        try:
            checksum, _, body = self.record(key).read_bytes().partition(b"\n")
            if checksum.decode("ascii", "replace") != digest_bytes(body):
                return None
            value = json.loads(body)
            layer = LayerFile(digest=value["digest"], diff_id=value["diff_id"], size=value["size"])
            if not (is_digest(layer.digest) and is_digest(layer.diff_id)):
                return None
            if self.store.blob(layer.digest).stat().st_size != layer.size:
                return None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return layer

    def put(self, key: str, layer: LayerFile, scratch: Path) -> None:
        body = json.dumps(
            {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size}, sort_keys=True
        ).encode()
        part = scratch / f"{key}.layer.json"
        try:
            self.store.directory("layers")
            part.write_bytes(digest_bytes(body).encode() + b"\n" + body)
            part.replace(self.record(key))
        except OSError as error:
            raise BuildError(
                f"can't write to {self.store.root}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error
