"""Manifests that are none of an image's: named as what they are."""

from __future__ import annotations

import json

import pytest

from envbuild.errors import FetchError
from envbuild.oci.manifest import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    OCI_MANIFEST,
    media_type_of,
    parse_index,
    parse_manifest,
)

DIGEST = f"sha256:{64 * 'a'}"


def manifest(config_type: str, **fields: object) -> bytes:
    config = {"mediaType": config_type, "digest": DIGEST, "size": 2}
    layer = {"mediaType": "application/x-other", "digest": DIGEST, "size": 2}
    return json.dumps({"mediaType": OCI_MANIFEST, "config": config, "layers": [layer], **fields}).encode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (manifest("application/vnd.cncf.helm.config.v1+json"), "a Helm chart"),
        (
            manifest("application/vnd.acme.rocket.config"),
            "an OCI artifact of the type application/vnd.acme.rocket.config",
        ),
        (
            manifest("application/vnd.oci.empty.v1+json", artifactType="application/vnd.example+type"),
            "an OCI artifact of the type application/vnd.example+type",
        ),
    ],
)
def test_an_artifact_is_named_as_what_it_is(content: bytes, kind: str) -> None:
    with pytest.raises(FetchError) as raised:
        parse_manifest(content, "there")
    assert raised.value.message == f"there: {kind}, not an image"


@pytest.mark.parametrize("config_type", [OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream"])
def test_an_image_s_own_config_may_have_any_type_of_an_image(config_type: str) -> None:
    content = manifest(config_type, layers=[])
    assert parse_manifest(content, "there").config.media_type == config_type


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "name": "app", "fsLayers": [{"blobSum": DIGEST}]},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
    ],
)
def test_schema_1_is_named(document: dict[str, object]) -> None:
    with pytest.raises(FetchError, match="an image of Docker's schema 1, which no engine of today reads"):
        media_type_of(json.dumps(document).encode())


def test_a_blob_that_is_named_by_sha512_is_said_to_be() -> None:
    descriptor = {"mediaType": OCI_CONFIG, "digest": f"sha512:{128 * 'a'}", "size": 2}
    stated = "there: it names a blob by SHA-512 (sha512:aaaaaaaaaaaa…), which only diff_ids may have here"
    for read, document in (
        (parse_manifest, {"config": descriptor, "layers": []}),
        (parse_index, {"manifests": [descriptor]}),
    ):
        with pytest.raises(FetchError) as raised:
            read(json.dumps(document).encode(), "there")
        assert raised.value.message == stated
    with pytest.raises(FetchError, match=r"^there: an entry of the index has no sha256 digest$"):
        parse_index(json.dumps({"manifests": [{**descriptor, "digest": "sha512:a"}]}).encode(), "there")
