"""Which manifest or index a name stands for in the store: ``registry/repository:tag``, fully written out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes, is_digest
from envbuild.store.content import Store

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

    def get(self, name: str) -> NamedImage | None:
        """What ``name`` stands for, where the record is sound. Looks at no blob. Notes the time of use."""
        named_image = self._load(self.path(name))
        if named_image is None or named_image.name != name:
            return None
        now = self._clock()
        with contextlib.suppress(OSError):
            os.utime(self.path(name), (now, now))
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
        body = json.dumps(value, sort_keys=True).encode()
        try:
            self._store.directory("names")
            with self._store.scratch() as scratch:
                part = scratch / "name.json"
                part.write_bytes(digest_bytes(body).encode() + b"\n" + body)
                part.replace(self.path(name))
        except OSError as error:
            raise BuildError(
                f"can't write to {self._store.root}: {error.strerror}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error

    def entries(self) -> tuple[NamedImage, ...]:
        """All sound records, by name."""
        return tuple(sorted(self._all(), key=lambda image: image.name))

    def drop(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where the record of ``name`` is or would be."""
        return self._store.root / "names" / f"{_key(name)}.json"

    def _all(self) -> Iterator[NamedImage]:
        directory = self._store.root / "names"
        for path in directory.glob("*.json") if directory.is_dir() else ():
            named_image = self._load(path)
            if named_image is not None and path == self.path(named_image.name):
                yield named_image

    def _load(self, path: Path) -> NamedImage | None:
        try:
            checksum, _, body = path.read_bytes().partition(b"\n")
            if checksum.decode("ascii", "replace") != digest_bytes(body):
                return None
            value = json.loads(body)
            if value["format"] != _FORMAT:
                return None
            named_image = NamedImage(
                name=value["name"],
                digest=value["digest"],
                images=tuple(value["images"]),
                others=tuple(value["others"]),
            )
            sound = all(
                is_digest(digest) for digest in (named_image.digest, *named_image.images, *named_image.others)
            )
            return named_image if sound else None
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _key(name: str) -> str:
    """The name of the name's file: no character of a name can lead out of the directory."""
    return hashlib.sha256(name.encode()).hexdigest()
