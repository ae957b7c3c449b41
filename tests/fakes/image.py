"""Small OCI images made by hand, put into a store as the composer would."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuild.oci.digest import canonical_json, digest_bytes
from envbuild.oci.image import Image, ImageSet, Layer
from envbuild.oci.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from envbuild.platforms import Platform
from envbuild.store.content import Store


@dataclass(frozen=True, kw_only=True)
class Item:
    """One tar entry, of any kind, safe or not."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    type: bytes = tarfile.REGTYPE
    link: str = ""


def directory(name: str, mode: int = 0o755) -> Item:
    return Item(name=name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Item:
    return Item(name=name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Item:
    return Item(name=name, type=tarfile.LNKTYPE, link=target)


def tar(items: Sequence[Item]) -> bytes:
    """An uncompressed layer of exactly these entries, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.mode, info.type, info.linkname = item.mode, item.type, item.link
            info.size = len(item.content)
            archive.addfile(info, io.BytesIO(item.content))
    return buffer.getvalue()


def compress(data: bytes, media_type: str = OCI_LAYER_GZIP) -> bytes:
    """As the media type says; gzip in two members, as the composer writes several."""
    if media_type == OCI_LAYER:
        return data
    if media_type == OCI_LAYER_ZSTD:
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    half = len(data) // 2
    return gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)


def put_layer(store: Store, items: Sequence[Item], media_type: str = OCI_LAYER_GZIP) -> Layer:
    data = tar(items)
    blob = compress(data, media_type)
    return Layer(
        digest=store.add_blob(blob), diff_id=digest_bytes(data), size=len(blob), media_type=media_type
    )


def put_image(
    store: Store,
    layers: Sequence[Layer],
    config: Mapping[str, object] | None = None,
    platform: Platform | None = None,
) -> Image:
    """An image of these layers; ``config`` is the inner ``config`` object."""
    platform = platform or Platform.host()
    config_blob = canonical_json(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "created": "1970-01-01T00:00:00Z",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    config_digest = store.add_blob(config_blob)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": len(config_blob)},
            "layers": [
                {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
        }
    )
    return Image(
        platform=platform,
        digest=store.add_blob(manifest),
        media_type=OCI_MANIFEST,
        size=len(manifest),
        config_digest=config_digest,
        layers=tuple(layers),
        lock_digest=digest_bytes(b"lock"),
        definition_digest=digest_bytes(b"definition"),
        level="L2",
    )


def put_index(store: Store, images: Sequence[Image], names: Sequence[str]) -> ImageSet:
    """A publication of several platforms, its index in the store."""
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": image.media_type,
                    "digest": image.digest,
                    "size": image.size,
                    "platform": {"os": image.platform.os, "architecture": image.platform.architecture},
                }
                for image in images
            ],
        },
        sort_keys=True,
    ).encode()
    return ImageSet(images=tuple(images), names=tuple(names), index_digest=store.add_blob(index))


def program_items(*programs: str) -> list[Item]:
    """This machine's ``programs`` and the shared libraries they load, as entries of a usrmerged image."""
    files: dict[str, bytes] = {}
    for program in programs:
        path = Path(shutil.which(program) or program).resolve()
        files[f"usr/bin/{program}"] = path.read_bytes()
        listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            name = library.lstrip("/")
            name = name if name.startswith("usr/") else f"usr/{name}"
            files[name] = Path(library).read_bytes()
    parents = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    links = {part.split("/")[1] for part in files if part.startswith("usr/lib")} | {"bin"}
    return [
        *(directory(name) for name in sorted(parents)),
        *(symlink(name, f"usr/{name}") for name in sorted(links)),
        *(Item(name=name, content=files[name], mode=0o755) for name in sorted(files)),
    ]


def shell_image(store: Store, config: Mapping[str, object] | None = None) -> Image:
    """An image of two layers with a shell and a few programs, taken from this machine."""
    programs = put_layer(store, program_items("sh", "cat", "id", "sleep", "env", "ls", "rm", "touch", "pwd"))
    settings = put_layer(
        store,
        [
            directory("etc"),
            Item(name="etc/passwd", content=b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"),
            Item(name="etc/image", content=b"made by a test\n"),
            directory("home"),
            directory("tmp", 0o1777),
        ],
    )
    base = {"Env": ["PATH=/usr/bin", "FROM_IMAGE=yes"], "User": "1000:1000", "Cmd": ["sh"]}
    return put_image(store, [programs, settings], {**base, **(config or {})})
