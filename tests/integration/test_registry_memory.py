"""A blob of any size goes through little memory, both ways."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from envbuild.publish.base import LayerRecord
from envbuild.remote.media import OCI_LAYER
from envbuild.store.content import Store
from tests.fakes import registry_server
from tests.fakes.image import put_image
from tests.fakes.registry_server import needs_registry
from tests.integration.registry import small_image

pytestmark = [needs_registry()]

SIZE = 600_000_000
MOST = 150_000_000

SCRIPT = """
import sys
from pathlib import Path
from envbuild.progress import Silent
from envbuild.publish.base import Publication
from envbuild.publish.remote import push_publication
from envbuild.remote.auth import Credentials
from envbuild.remote.client import RegistryClient
from envbuild.remote.describe import image_of
from envbuild.remote.manifest import parse_manifest
from envbuild.remote.reference import Reference
from envbuild.remote.source import RegistrySource
from envbuild.store.content import Store

way, root, name = sys.argv[1:]
store, reference = Store(Path(root)), Reference.parse(name)
with RegistryClient(store, Silent(), Credentials({})) as client:
    if way == "push":
        image = image_of(RegistrySource(reference, client), client.manifest(reference, sys.stdin.read()))
        push_publication(Publication(images=(image,), names=()), reference, ("1",), client, store, Silent())
    else:
        top = client.manifest(reference)
        client.pull_blobs(reference, parse_manifest(top.content, name).layers)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(way: str, store: Store, name: str, digest: str = "") -> int:
    """Bytes of memory that the process had at the most."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, way, str(store.root), name],
        input=digest,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


def test_a_large_layer_goes_through_little_memory(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    zeros = tmp_path / "zeros"
    sha = hashlib.sha256()
    with zeros.open("wb") as file:
        file.truncate(SIZE)
    with zeros.open("rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    digest = f"sha256:{sha.hexdigest()}"
    small = small_image(store)
    store.directory("blobs/sha256")
    zeros.rename(store.blob(digest))
    layer = LayerRecord(digest=digest, diff_id=digest, size=SIZE, media_type=OCI_LAYER)
    image = put_image(store, [*small.layers, layer])
    try:
        with registry_server.serve(tmp_path / "registry") as server:
            assert peak("push", store, f"{server.host}/large:1", image.digest) < MOST
            assert server.complete("large", "1")
            target = Store(tmp_path / "target")
            assert peak("pull", target, f"{server.host}/large:1") < MOST
            assert target.blob(digest).stat().st_size == SIZE
    finally:
        # pytest keeps the directories of its last runs.
        shutil.rmtree(tmp_path / "registry", ignore_errors=True)
        shutil.rmtree(tmp_path / "target", ignore_errors=True)
