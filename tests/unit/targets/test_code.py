"""Code on top of an image: one layer, the same bytes for the same files, nothing below is touched."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import SpecError
from envbuild.images.describe import ENVIRONMENT_LABEL
from envbuild.oci.image import Image
from envbuild.oci.layer import check_diff_id, open_layer
from envbuild.store.content import Store
from envbuild.targets.code import CODE_LABEL, code_image
from tests.fakes.image import Item, put_image, put_layer


@pytest.fixture
def image(store: Store) -> Image:
    layer = put_layer(store, [Item(name="etc/os-release", content=b"NAME=x\n")])
    return put_image(store, [layer], {"User": "1000:1001", "Labels": {"a": "b"}, "WorkingDir": "/home"})


def project(root: Path) -> Path:
    (root / "pkg" / "__pycache__").mkdir(parents=True)
    (root / "pkg" / "__pycache__" / "x.pyc").write_bytes(b"1")
    (root / "pkg" / "x.py").write_text("X = 1\n")
    (root / "train.sh").write_text("#!/bin/sh\n")
    (root / "train.sh").chmod(0o700)
    (root / "link").symlink_to("train.sh")
    (root / ".gitignore").write_text("*.log\n/data/\n")
    (root / "a.log").write_text("noise")
    (root / "data").mkdir()
    (root / "data" / "big").write_text("big")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("ref")
    return root


def members(store: Store, image: Image) -> dict[str, tarfile.TarInfo]:
    layer = image.layers[-1]
    with open_layer(store.blob(layer.digest), layer.media_type) as archive:
        return {each.name: each for each in archive}


def document(store: Store, digest: str) -> dict[str, Any]:
    found = json.loads(store.blob(digest).read_bytes())
    assert isinstance(found, dict)
    return found


def test_layer_holds_the_code_and_belongs_to_the_image_s_user(
    store: Store, image: Image, tmp_path: Path
) -> None:
    found = members(store, code_image(image, project(tmp_path / "p"), store).image)
    assert list(found) == [
        "workspace",
        "workspace/.gitignore",
        "workspace/link",
        "workspace/pkg",
        "workspace/pkg/x.py",
        "workspace/train.sh",
    ]
    assert {(each.uid, each.gid, each.mtime) for each in found.values()} == {(1000, 1001, 315532800)}
    assert [oct(found[f"workspace{name}"].mode) for name in ("", "/train.sh", "/pkg/x.py")] == [
        "0o755",
        "0o755",
        "0o644",
    ]
    assert found["workspace/link"].linkname == "train.sh"


def test_image_below_stays_as_it_is(store: Store, image: Image, tmp_path: Path) -> None:
    made = code_image(image, project(tmp_path / "p"), store)
    top = made.image
    assert top.layers[:-1] == image.layers
    assert (top.lock_digest, top.definition_digest) == (image.lock_digest, image.definition_digest)
    layer = top.layers[-1]
    assert made.size == layer.size == store.blob(layer.digest).stat().st_size
    check_diff_id(store.blob(layer.digest), layer.media_type, layer.diff_id, "it")
    config = document(store, top.config_digest)
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in top.layers]
    assert config["config"] == {
        "User": "1000:1001",
        "WorkingDir": "/workspace",
        "Labels": {"a": "b", CODE_LABEL: made.digest, ENVIRONMENT_LABEL: image.digest},
    }
    manifest = document(store, top.digest)
    assert [each["digest"] for each in manifest["layers"]] == [layer.digest for layer in top.layers]
    assert manifest["config"]["digest"] == top.config_digest
    assert manifest["annotations"] == {CODE_LABEL: made.digest, ENVIRONMENT_LABEL: image.digest}


def test_same_code_is_the_same_image_wherever_it_stands(store: Store, image: Image, tmp_path: Path) -> None:
    first = code_image(image, project(tmp_path / "one"), store)
    other = project(tmp_path / "two")
    os.utime(other / "pkg" / "x.py", (1, 1))
    (other / "pkg" / "x.py").chmod(0o600)
    (other / "other.log").write_text("left out")
    assert code_image(image, other, store) == first
    (other / "pkg" / "x.py").write_text("X = 2\n")
    changed = code_image(image, other, store)
    assert changed.digest != first.digest
    assert changed.image.digest != first.image.digest


def test_large_code_is_written_in_blocks(store: Store, image: Image, tmp_path: Path) -> None:
    root = tmp_path / "p"
    root.mkdir()
    # The end of the archive falls upon the end of a block: 4 MiB less both headers and half of the end.
    (root / "x").write_bytes(os.urandom((4 << 20) - 3 * 512))
    layer = code_image(image, root, store).image.layers[-1]
    check_diff_id(store.blob(layer.digest), layer.media_type, layer.diff_id, "it")
    assert list(members(store, code_image(image, root, store).image)) == ["workspace", "workspace/x"]


def test_amlignore_goes_before_gitignore(store: Store, image: Image, tmp_path: Path) -> None:
    root = project(tmp_path / "p")
    (root / ".amlignore").write_text("pkg/\n")
    found = list(members(store, code_image(image, root, store).image))
    assert "workspace/pkg/x.py" not in found
    assert "workspace/a.log" in found


def test_what_is_no_directory_of_code_is_refused(store: Store, image: Image, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is no directory of code"):
        code_image(image, tmp_path / "absent", store)
    (tmp_path / "p").mkdir()
    os.mkfifo(tmp_path / "p" / "fifo")
    with pytest.raises(SpecError, match="fifo: is a FIFO"):
        code_image(image, tmp_path / "p", store)
