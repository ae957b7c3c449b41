"""Config, manifest and index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.image import config_json, index_json, store_image, timestamp
from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image, Layer
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.store.content import Store
from tests.fakes.source import plan

LAYER = Layer(
    digest="sha256:" + "a" * 64,
    diff_id="sha256:" + "b" * 64,
    size=10,
    media_type="application/vnd.oci.image.layer.v1.tar+gzip",
    name="base",
)


def test_the_config_is_these_bytes() -> None:
    assert config_json(plan(), [LAYER]) == (
        b'{"architecture":"amd64","config":{"Cmd":["python"],"Env":["PATH=/opt/env/bin:/usr/bin"],'
        b'"User":"1000:1000"},"created":"1970-01-01T00:00:00Z","history":[{"comment":"base",'
        b'"created":"1970-01-01T00:00:00Z","created_by":"envbuild"}],"os":"linux","rootfs":{"diff_ids":["sha256:'
        + b"b" * 64
        + b'"],"type":"layers"}}'
    )


def test_the_image_in_the_store_is_what_its_digests_say(tmp_path: Path) -> None:
    store = Store(tmp_path)
    image = store_image(store, plan(), [LAYER])
    data = store.blob(image.digest).read_bytes()
    assert (digest_bytes(data), len(data)) == (image.digest, image.size)
    manifest = json.loads(data)
    config = store.blob(image.config_digest).read_bytes()
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest_bytes(config),
        "size": len(config),
    }
    assert store_image(store, plan(), [LAYER]) == image


def test_a_history_that_does_not_fit_the_base_is_not_taken_over() -> None:
    config = json.loads(
        config_json(plan(), [LAYER], below=[LAYER, LAYER], inherited={"history": [{"created_by": "x"}]})
    )
    assert [each["created_by"] for each in config["history"]] == ["base image", "base image", "envbuild"]
    assert len(config["rootfs"]["diff_ids"]) == 3


def test_what_the_base_exposes_and_labels_stays_under_ours() -> None:
    asked = plan()
    asked = replace(asked, config=replace(asked.config, labels=(("b", "2"),), exposed_ports=("5001/tcp",)))
    inherited = {
        "variant": "v8",
        "config": {
            "Labels": {"a": "1", "b": "1"},
            "ExposedPorts": {"80/tcp": {}},
            "User": "root",
            "WorkingDir": "/srv",
            "Entrypoint": ["/run"],
            "OnBuild": ["RUN x"],
        },
    }
    document = json.loads(config_json(asked, [], inherited=inherited))
    assert document["variant"] == "v8"
    assert document["config"] == {
        "Cmd": ["python"],
        "Env": ["PATH=/opt/env/bin:/usr/bin"],
        "ExposedPorts": {"5001/tcp": {}, "80/tcp": {}},
        "Labels": {"a": "1", "b": "2"},
        "User": "1000:1000",
        "WorkingDir": "/srv",
    }


@pytest.mark.parametrize(
    ("its", "ours"),
    [
        (["PATH=/usr/local/bin:/usr/bin"], "/opt/env/bin:/usr/local/bin:/usr/bin"),
        (["PATH=/opt/env/bin:/bin"], "/opt/env/bin:/bin"),
        ([], "/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ],
)
def test_the_path_of_a_base_stays_in_its_order_behind_ours(its: list[str], ours: str) -> None:
    asked = plan()
    asked = replace(asked, config=replace(asked.config, env=(("PATH", "/opt/env/bin"),)))
    below = [Layer(digest="sha256:" + "a" * 64, diff_id="sha256:" + "b" * 64, size=1, media_type="x")]
    document = json.loads(config_json(asked, [], below=below, inherited={"config": {"Env": its}}))
    assert document["config"]["Env"] == [f"PATH={ours}"]


def an_image(architecture: str) -> Image:
    return Image(
        platform=LINUX_AMD64 if architecture == "amd64" else LINUX_ARM64,
        digest=digest_bytes(architecture.encode()),
        media_type="application/vnd.oci.image.manifest.v1+json",
        size=7,
        config_digest="sha256:" + "c" * 64,
        layers=(),
        lock_digest="sha256:" + "1" * 64,
        definition_digest="sha256:" + "2" * 64,
        level="L3",
    )


def test_an_index_lists_platforms_in_one_order() -> None:
    one, other = an_image("arm64"), an_image("amd64")
    assert index_json([one, other]) == index_json([other, one])
    index = json.loads(index_json([one, other]))
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"]["dev.envbuild.definition"] == "sha256:" + "2" * 64
    with pytest.raises(BuildError, match="two images of one platform"):
        index_json([one, one])


def test_times_are_utc_and_refused_where_there_are_none() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(1_700_000_000) == "2023-11-14T22:13:20Z"
    with pytest.raises(BuildError, match="is no time"):
        timestamp(10**18)
