"""A Dockerfile's images are those of the lock, whatever their tags name by the time of the build: with a real
engine, its classic builder and BuildKit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.oci.manifest import OCI_INDEX
from envbuild.platforms import Platform
from envbuild.store.content import Store
from tests.fakes.image import Item, program_items, put_image, put_index, put_layer
from tests.fakes.registry import Registry, serve
from tests.integration.parity import docker
from tests.integration.test_example import envbuild

pytestmark = [pytest.mark.engine]

HOST = Platform.host()


def offer(registry: Registry, store: Store, name: str, word: str) -> str:
    """An index under ``name:1`` whose image has ``/word``, and the index's digest."""
    layer = put_layer(store, [*program_items("sh", "cat"), Item(name="word", content=word.encode())])
    image = put_image(store, [layer], {"Env": ["PATH=/usr/bin:/bin"]}, platform=HOST)
    for digest in (image.config_digest, layer.digest):
        registry.put_blob(store.blob(digest).read_bytes())
    registry.put_manifest(name, word, image.media_type, store.blob(image.digest).read_bytes())
    index = put_index(store, [image], [])
    return registry.put_manifest(name, "1", OCI_INDEX, store.blob(index.digest).read_bytes())


@pytest.fixture
def served() -> Iterator[Registry]:
    with serve() as registry:
        yield registry


@pytest.mark.parametrize("engine", ["docker", "buildx"])
def test_a_build_takes_the_images_of_the_lock_after_their_tags_have_moved(
    engine: str, served: Registry, tmp_path: Path
) -> None:
    store, cache = Store(tmp_path / "source"), tmp_path / "cache"
    digests = {name: offer(served, store, name, f"{name}-locked") for name in ("base", "tools")}
    spec = tmp_path / "spec"
    spec.mkdir()
    (spec / "envbuild.yaml").write_text(f"name: own\nplatforms: ['{HOST}']\nbuild: {{path: .}}\n")
    (spec / "Dockerfile").write_text(
        f"ARG TAG=1\nFROM --platform={HOST} {served.host}/base:${{TAG}} AS first\n"
        f'COPY --from={served.host}/tools:1 /word /tools\nFROM first\nCMD ["cat", "/word", "/tools"]\n'
    )
    done = envbuild("lock", str(spec), cache=cache)
    assert done.returncode == 0, done.stderr
    for name in ("base", "tools"):
        offer(served, store, name, f"{name}-moved")
    done = envbuild("build", "--locked", "--load", "--engine", engine, str(spec), cache=cache)
    assert done.returncode == 0, done.stderr
    assert docker("run", "--rm", "--network=host", done.stdout.strip()) == "base-lockedtools-locked"
    (lock,) = spec.glob("lockfiles/own/envbuild.lock")
    images = json.loads(lock.read_text())["platforms"][str(HOST)]["base"]["context"]["images"]
    assert images == [
        {"reference": f"{served.host}/{name}:1", "digest": digests[name]} for name in ("base", "tools")
    ]
    # Another lock takes what the tags name now.
    done = envbuild("lock", "--upgrade", str(spec), cache=cache)
    assert done.returncode == 0, done.stderr
    done = envbuild("build", "--locked", "--load", "--engine", engine, str(spec), cache=cache)
    assert docker("run", "--rm", "--network=host", done.stdout.strip()) == "base-movedtools-moved"
