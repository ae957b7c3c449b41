"""Which blob a layer of given segments is, so that it is neither written nor hashed again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envbuild.oci.digest import is_digest
from envbuild.store.content import Store
from envbuild.store.records import Records


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
        self._records = Records(store, "layers")

    def get(self, key: str) -> LayerFile | None:
        """The layer, if its record is sound and its blob there with the right size."""
        return self._records.get(key, self._sound)

    def put(self, key: str, layer: LayerFile, scratch: Path) -> None:
        self._records.put(key, json.dumps(asdict(layer), sort_keys=True), scratch / f"{key}.layer.json")

    def _sound(self, value: dict[str, Any]) -> LayerFile | None:
        layer = LayerFile(digest=value["digest"], diff_id=value["diff_id"], size=value["size"])
        known = is_digest(layer.digest) and is_digest(layer.diff_id)
        return layer if known and self.store.blob(layer.digest).stat().st_size == layer.size else None
