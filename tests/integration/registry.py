"""What the tests of registries share: small images, clients with credentials of their own, skopeo."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

from envbuild.oci.image import Image
from envbuild.oci.manifest import OCI_CONFIG, Descriptor
from envbuild.oci.reference import Reference
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.base import Pushed
from envbuild.registry.client import RegistryClient, RegistryOptions
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer


def small_image(store: Store, seed: int = 0, sizes: tuple[int, ...] = (300_000, 40_000, 100)) -> Image:
    """An image of this machine's platform with a layer of each size, which gzip can't make smaller."""
    data = random.Random(seed)
    layers = [
        put_layer(store, [Item(name=f"opt/{seed}-{number}", content=data.randbytes(size))])
        for number, size in enumerate(sizes)
    ]
    return put_image(store, layers, {"Cmd": ["sh"]})


def blobs(store: Store, image: Image) -> list[Descriptor]:
    """All blobs that the manifest names: the layers, then the config."""
    config = Descriptor(
        digest=image.config_digest,
        size=store.blob(image.config_digest).stat().st_size,
        media_type=OCI_CONFIG,
    )
    layers = [
        Descriptor(digest=layer.digest, size=layer.size, media_type=layer.media_type)
        for layer in image.layers
    ]
    return [*layers, config]


def push(client: RegistryClient, store: Store, image: Image, name: str) -> Pushed:
    """Pushes the image as ``name``, the manifest last; asserts the digest that the registry confirms."""
    reference = Reference.parse(name)
    pushed = client.push_blobs(reference, blobs(store, image))
    content = store.blob(image.digest).read_bytes()
    assert client.push_manifest(reference, content, image.media_type) == image.digest
    return pushed


def pull(client: RegistryClient, image: Image, name: str, source: Store) -> None:
    """Pulls ``name``, which must be the image, byte for byte as ``source`` has it."""
    reference = Reference.parse(name)
    manifest = client.manifest(reference)
    assert manifest.content == source.blob(image.digest).read_bytes()
    client.pull_blobs(reference, blobs(source, image))


def same_blobs(source: Store, target: Store, image: Image) -> bool:
    digests = [image.digest, *(blob.digest for blob in blobs(source, image))]
    return all(target.blob(digest).read_bytes() == source.blob(digest).read_bytes() for digest in digests)


def docker_config(home: Path, users: Mapping[str, tuple[str, str]], **more: object) -> Path:
    """``.docker/config.json`` below ``home`` with a login for each registry."""
    auths = {
        host: {"auth": base64.b64encode(":".join(user).encode()).decode()} for host, user in users.items()
    }
    path = home / ".docker" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths, **more}))
    return path


def make_client(
    root: Path,
    store: Store,
    users: Mapping[str, tuple[str, str]] | None = None,
    *,
    ca_bundle: Path | None = None,
    slept: list[float] | None = None,
    environ: Mapping[str, str] | None = None,
) -> RegistryClient:
    """A client with these logins and no others. It doesn't sleep; ``slept`` is told for how long."""
    docker_config(root, users or {})
    environ = {"HOME": str(root), **(environ or {})}
    return RegistryClient(
        store,
        Silent(),
        RegistryCredentials(environ),
        sleep=(slept if slept is not None else []).append,
        environ=environ,
        options=RegistryOptions(ca_bundle=ca_bundle, certificates=()),
    )


def skopeo(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What skopeo says; fails the test where it fails."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
