"""Which manifest or index a name stands for in the store: ``registry/repository:tag``, fully written out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envbuild.oci.digest import is_digest
from envbuild.store.content import Store
from envbuild.store.records import Records

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedImage:
    """What a name stands for."""

    name: str
    digest: str
    """Of the manifest or index."""
    images: tuple[str, ...]
    """Digests of the manifests of its images: ``digest`` itself, or those an index lists."""
    others: tuple[str, ...] = ()
    """Digests of the blobs it needs besides those of its images: the index, attestations."""


class Names:
    """The names of a store. Each is a file of its own, replaced as a whole: several processes may write."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._records = Records(store, "names")

    def get(self, name: str) -> NamedImage | None:
        """What ``name`` stands for, where the record is sound. Looks at no blob. Notes the time of use."""
        named_image = self._records.get(_key(name), _named_image)
        if named_image is None or named_image.name != name:
            return None
        self._records.note_use(_key(name), self._clock())
        return named_image

    def put(self, name: str, digest: str, images: Sequence[str], others: Sequence[str] = ()) -> None:
        """Lets ``name`` stand for ``digest``, whatever it stood for before."""
        present = self.get(name)
        new = NamedImage(
            name=name,
            digest=digest,
            images=tuple(sorted(set(images))),
            others=tuple(sorted(set(others))),
        )
        if present == new:
            return
        value = {
            "format": _FORMAT,
            "name": name,
            "digest": digest,
            "images": new.images,
            "others": new.others,
        }
        with self._store.scratch() as scratch:
            self._records.put(_key(name), json.dumps(value, sort_keys=True), scratch / "name.json")

    def entries(self) -> tuple[NamedImage, ...]:
        """All sound records, by name."""
        return tuple(sorted(self._all(), key=lambda image: image.name))

    def drop(self, name: str) -> None:
        self._records.drop(_key(name))

    def path(self, name: str) -> Path:
        """Where the record of ``name`` is or would be."""
        return self._records.path(_key(name))

    def _all(self) -> Iterator[NamedImage]:
        for key in self._records:
            named_image = self._records.get(key, _named_image)
            if named_image is not None and key == _key(named_image.name):
                yield named_image


def _named_image(value: dict[str, Any]) -> NamedImage | None:
    if value["format"] != _FORMAT:
        return None
    named_image = NamedImage(
        name=value["name"],
        digest=value["digest"],
        images=tuple(value["images"]),
        others=tuple(value["others"]),
    )
    digests = (named_image.digest, *named_image.images, *named_image.others)
    return named_image if all(map(is_digest, digests)) else None


def _key(name: str) -> str:
    """The name of the name's file: no character of a name can lead out of the directory."""
    return hashlib.sha256(name.encode()).hexdigest()
