"""What a config says, whatever its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import BuildError, FetchError
from envbuild.oci.manifest import ConfigDocument, parse_config
from envbuild.store.content import Store
from envbuild.store.images import read_config, read_manifest
from tests.fakes.image import put_image

A = "sha256:" + "a" * 64


def test_a_config_s_values() -> None:
    config = ConfigDocument(
        {
            "os": "linux",
            "architecture": "arm64",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Env": ["A=1=2", "B", "A=3"], "Labels": {"x": "1", "y": 2}, "User": "7"},
            "rootfs": {"diff_ids": [A]},
            "history": [{"created_by": "envbuild"}, None],
        }
    )
    assert config.stated_platform == "linux/arm64"
    assert config.created == "2026-01-01T00:00:00Z"
    assert config.variables == {"A": "3", "B": ""}
    assert config.labels == {"x": "1"}
    assert config.settings["User"] == "7"
    assert config.diff_ids == (A,)
    assert config.history == ({"created_by": "envbuild"},)


@pytest.mark.parametrize("value", [None, [], {}, 7, "text", [7], {"a": 7}])
def test_a_config_of_another_form_says_nothing_and_fails_nowhere(value: Any) -> None:
    outer = ConfigDocument(dict.fromkeys(("created", "config", "rootfs", "history"), value))
    inner = ConfigDocument({"config": {"Env": value, "Labels": value}, "rootfs": {"diff_ids": value}})
    assert (outer.labels, outer.variables, outer.diff_ids) == ({}, {}, ())
    assert outer.created == (value if isinstance(value, str) else "")
    assert outer.settings == (value if isinstance(value, dict) else {})
    assert inner.labels == {}
    assert len(inner.variables) == len(inner.diff_ids) == (1 if value == [7] else 0)
    assert outer.history == ()


def test_each_layer_has_a_diff_id() -> None:
    content = json.dumps({"rootfs": {"diff_ids": [A]}}).encode()
    assert parse_config(content, "it", 1).diff_ids == (A,)
    with pytest.raises(FetchError, match="it: the config names 1 layers, the manifest has 2"):
        parse_config(content, "it", 2)
    with pytest.raises(FetchError, match="the config names 1 layers"):
        parse_config(b'{"rootfs": {"diff_ids": ["a"]}}', "it", 1)
    with pytest.raises(FetchError, match="not the form of an image manifest"):
        parse_config(b'{"rootfs": {"diff_ids": "a"}}', "it", 1)


def test_what_an_image_of_the_store_says(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = put_image(store, [], {"Labels": {"x": "1"}})
    assert read_config(image, store).labels["x"] == "1"
    assert read_manifest(image, store)["config"]["digest"] == image.config_digest
    assert image.blobs == (image.digest, image.config_digest)
    for damage in (b"{", b"[" * 100_000):
        store.blob(image.config_digest).write_bytes(damage)
        with pytest.raises(BuildError, match=f"lacks a part of the image, {image.config_digest}") as caught:
            read_config(image, store)
        assert caught.value.hint == "build the image again, or pull it"
    store.blob(image.config_digest).write_bytes(b"[]")
    assert read_config(image, store).document == {}
