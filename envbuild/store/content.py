"""The local content-addressed store: files named by the digest of their bytes, written atomically.

Layout below the root (``$XDG_CACHE_HOME/envbuild``)::

    blobs/sha256/<hex>      image blobs: layers, configs, manifests, indexes
    artifacts/<hex>         downloads by SHA-256: .deb files, conda packages
    segments/…              compressed tar segments, one an artifact   (envbuild.store.segments)
    layers/…                segments → digest and diff_id of a layer   (envbuild.store.layers)
    images/…                plan → image                               (envbuild.store.images)
    names/…                 repository:tag → manifest or index         (envbuild.store.names)
    (these four are records: envbuild.store.records)
    leases/…, locks/…       who uses what, who makes what              (envbuild.store.leases)
    metadata/<area>/        package indexes, by area; may be lost at any time
    rootfs/<key>/           unpacked root file systems
    scratch/                temporary files of builds under way
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envbuild.errors import BuildError
from envbuild.oci.digest import digest_file
from envbuild.store.locks import mark_used, scratch_directory


class Store:
    """A store in a directory, made when first written to. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, area: str) -> Path:
        """The directory ``root/area``, made if need be (``metadata/debian``, ``rootfs``…)."""
        path = self.root / area
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _full(path, error) from error
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new empty directory on the store's file system, removed with all it holds on leaving.

        What a killed process left behind is removed on the way: a lock held beside each directory says
        whether its process lives."""
        with scratch_directory(self.directory("scratch")) as path:
            yield path

    def blob(self, digest: str) -> Path:
        """Where the blob ``sha256:<hex>`` is or would be."""
        return self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has_blob(self, digest: str) -> bool:
        return self.blob(digest).is_file()

    def find_blob(self, digest: str) -> bool:
        """As ``has_blob``, and no prune takes it then for as long as a build works that has begun before."""
        return self.has_blob(digest) and mark_used(self.root, self.blob(digest))

    def add_blob(self, data: bytes) -> str:
        """Stores a small blob (a manifest, a config) and returns its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        path = self.blob(digest)
        if not (self.find_blob(digest) and _holds(path, data)):
            with self.scratch() as directory:
                part = directory / "part"
                try:
                    part.write_bytes(data)
                except OSError as error:
                    raise _full(path, error) from error
                commit_file(part, path)
        return digest

    def artifact(self, sha256: str) -> Path:
        """Where the download with this SHA-256 (bare hex) is or would be."""
        return self.root / "artifacts" / sha256

    def verified_artifact(self, sha256: str) -> Path | None:
        """The download, if it is there and its bytes still hash to its name; a damaged one is removed."""
        path = self.artifact(sha256)
        if not path.is_file():
            return None
        if digest_file(path) != f"sha256:{sha256}":
            path.unlink(missing_ok=True)
            return None
        return path


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there and has these bytes: a bad disk may have changed it since."""
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def blob_name(digest: str) -> str:
    """The blob ``sha256:<hex>`` as leases name it: its path below the store's root."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def commit_file(part: Path, path: Path) -> None:
    """Makes ``part``, complete and on the same file system, the file ``path``: synced, then renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise _full(path, error) from error


def _full(path: Path, error: OSError) -> BuildError:
    return BuildError(
        f"can't write {path}: {error.strerror}",
        hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
    )
