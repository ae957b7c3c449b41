"""A blob of any size goes through little memory, both ways."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from envbuild.oci.image import Image, Layer
from envbuild.oci.manifest import OCI_LAYER
from envbuild.store.content import Store
from tests.fakes import registry_server
from tests.fakes.image import put_image
from tests.fakes.registry_server import needs_registry
from tests.integration.registry import small_image

pytestmark = [needs_registry()]

SIZE = 300_000_000
MOST = 100_000_000
"""About thrice what a command takes."""

SCRIPT = """
import sys
from envbuild.cli.main import main
status = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


def peak(root: Path, *arguments: str) -> int:
    """Bytes of memory that the command had at the most."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments, f"--cache-dir={root}/cache", "--progress=none"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=root,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), "HOME": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) * 1024


def large_image(store: Store) -> Image:
    """An image with a large layer, which is no tar but zeros: a file with a hole takes no disk."""
    zeros = store.directory("blobs/sha256") / "zeros"
    sha = hashlib.sha256()
    with zeros.open("wb") as file:
        file.truncate(SIZE)
    with zeros.open("rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    digest = f"sha256:{sha.hexdigest()}"
    zeros.rename(store.blob(digest))
    layer = Layer(digest=digest, diff_id=digest, size=SIZE, media_type=OCI_LAYER)
    return put_image(store, [*small_image(store).layers, layer])


def test_a_large_layer_goes_through_little_memory(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    image = large_image(store)
    try:
        with registry_server.serve(tmp_path / "registry") as server:
            name = f"{server.host}/large:1"
            assert peak(tmp_path, "push", image.digest, name) < MOST
            assert server.complete("large", "1")
            shutil.rmtree(store.root)
            assert peak(tmp_path, "pull", name) < MOST
            assert store.blob(image.layers[-1].digest).stat().st_size == SIZE
    finally:
        # pytest keeps the directories of its last runs.
        for each in ("registry", "cache"):
            shutil.rmtree(tmp_path / each, ignore_errors=True)
