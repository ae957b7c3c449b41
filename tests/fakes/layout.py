"""OCI layouts in a tar, as BuildKit exports them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import (
    DOCKER_LAYER_GZIP,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from tests.fakes.image import Item, compress, tar

LAYER = tar([Item(name="etc/one", content=b"1")])


@dataclass
class Export:
    """A layout as a builder writes it; a test changes what it is about."""

    layers: list[tuple[bytes, str]] = field(
        default_factory=lambda: [(LAYER, OCI_LAYER_GZIP), (tar([Item(name="two")]), OCI_LAYER_GZIP)]
    )
    config: dict[str, Any] = field(
        default_factory=lambda: {
            "architecture": "amd64",
            "os": "linux",
            "config": {"User": "1000:1000", "Labels": {"a": "b"}},
            "history": [
                {"created_by": "ADD base.tar.gz / # buildkit"},
                {"created_by": "ENV a=b", "empty_layer": True},
                {"created_by": "RUN /bin/sh -c echo   hello # buildkit"},
            ],
        }
    )
    config_type: str = OCI_CONFIG
    manifest_type: str = OCI_MANIFEST
    blobs: dict[str, bytes] = field(default_factory=dict)
    wrap: bool = False
    platform: Mapping[str, str] | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_bytes(data)
        self.blobs.setdefault(f"blobs/sha256/{digest.removeprefix('sha256:')}", data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def index(self) -> dict[str, Any]:
        layers = [
            self.blob(
                gzip.compress(data, mtime=0) if kind == DOCKER_LAYER_GZIP else compress(data, kind), kind
            )
            for data, kind in self.layers
        ]
        rootfs = {"type": "layers", "diff_ids": [digest_bytes(data) for data, _ in self.layers]}
        config = self.blob(json.dumps({"rootfs": rootfs, **self.config}).encode(), self.config_type)
        manifest = {
            "schemaVersion": 2,
            "mediaType": self.manifest_type,
            "config": config,
            "layers": layers,
        }
        entry = self.blob(json.dumps(manifest).encode(), self.manifest_type)
        if self.platform is not None:
            entry["platform"] = dict(self.platform)
        return entry

    def write(self, path: Path) -> Path:
        top: dict[str, Any] = {"schemaVersion": 2, "manifests": [self.index()]}
        if self.wrap:
            other = {**self.blob(b'{"schemaVersion": 2}', OCI_MANIFEST)}
            inner = {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [
                    {**top["manifests"][0], "platform": {"os": "linux", "architecture": "amd64"}},
                    {**other, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
                    {
                        **other,
                        "platform": {"os": "unknown", "architecture": "unknown"},
                        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
                    },
                ],
            }
            top["manifests"] = [self.blob(json.dumps(inner).encode(), OCI_INDEX)]
        files = {
            **self.blobs,
            "index.json": json.dumps(top).encode(),
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            **self.files,
        }
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path
