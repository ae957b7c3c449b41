"""skopeo and umoci accept what the native engine makes, and unpack exactly what was planned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from envbuild.compose.tar import MTIME
from envbuild.images.sinks.layout import LayoutSink
from envbuild.oci.image import ImageSet
from envbuild.progress import Silent
from tests.fakes.source import SITE
from tests.unit.compose.test_engine import Bench, whole


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    bench = Bench(tmp_path / "store")
    image = bench.engine().build(whole())
    LayoutSink(tmp_path / "layout", bench.store, Silent()).publish(
        ImageSet(images=(image,), names=("judged:one",))
    )
    return tmp_path / "layout"


def tag(layout: Path) -> str:
    [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
    return str(manifest["annotations"]["org.opencontainers.image.ref.name"])


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_copies_it_with_its_digests(layout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--preserve-digests", f"oci:{layout}", f"oci:{copy}"],
        capture_output=True,
        check=True,
    )
    blobs = {path.name for path in (layout / "blobs/sha256").iterdir()}
    assert {path.name for path in (copy / "blobs/sha256").iterdir()} == blobs


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_unpacks_the_planned_tree(layout: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    # umoci takes the last part of its argument for the tag.
    shutil.copytree(layout, tmp_path / "judged")
    index = tmp_path / "judged" / "index.json"
    index.write_text(index.read_text().replace(tag(layout), "one"))
    subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'judged'}:one", str(bundle)],
        capture_output=True,
        check=True,
    )
    root = bundle / "rootfs"
    found = sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    )
    assert found == [
        "bin", "etc/passwd", "lib", "opt/env/bin/f2py",
        f"{SITE}/attr/__init__.py", f"{SITE}/attr/__pycache__/__init__.cpython-313.pyc", f"{SITE}/attrs.py",
        f"{SITE}/numpy/__init__.py", f"{SITE}/numpy/__pycache__/__init__.cpython-313.pyc",
        f"{SITE}/numpy/__pycache__/core.cpython-313.pyc", f"{SITE}/numpy/core.py", f"{SITE}/numpy/core.so",
        "tmp", "usr/lib/libc.so", "usr/lib/libc.so.6", "var/mail",
    ]  # fmt: skip
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert os.access(root / "opt/env/bin/f2py", os.X_OK)
    assert (root / "opt/env/bin/f2py").stat().st_mtime == MTIME
