"""Images go from files into a real Docker engine and back out of it: the one DOCKER_HOST names."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from envbuild.images.sinks.layout import LayoutSink
from envbuild.platforms import LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.integration.driver import Machine

pytestmark = [pytest.mark.engine]

NAME = "envbuild-test/copied:1"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(root=tmp_path / "machine", env={"DOCKER_HOST": os.environ["DOCKER_HOST"]})
    with suppress(subprocess.SubprocessError):
        docker("rmi", "-f", NAME)


def docker(*arguments: str) -> bytes:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=60).stdout


def test_an_image_goes_into_the_engine_and_comes_out_again(machine: Machine, tmp_path: Path) -> None:
    source = Store(tmp_path / "source")
    layers = [put_layer(source, [Item(name=name, content=b"x" * 5000)]) for name in ("one", "two")]
    images = [put_image(source, layers, {}, each) for each in (Platform.host(), LINUX_ARM64)]
    LayoutSink(tmp_path / "layout", source, Silent()).publish(put_index(source, images, [NAME]))

    loaded = machine.run("pull", f"oci:{tmp_path / 'layout'}:{NAME}", "--load")
    # Of the index, the engine's own platform alone was taken.
    assert loaded.reference in (NAME, f"{NAME}@{images[0].digest}")
    for name in (NAME, loaded.reference):
        assert docker("image", "inspect", "-f", "{{.Id}}", name).decode().strip() in (
            images[0].config_digest,
            images[0].digest,
        )

    (tmp_path / "saved.tar").write_bytes(docker("save", NAME))
    (tmp_path / "saved.tar.gz").write_bytes(gzip.compress((tmp_path / "saved.tar").read_bytes(), 1))
    digests = {
        machine.run("pull", reference).reference.rpartition("@")[2]
        for reference in (
            f"docker-daemon:{NAME}",
            f"docker-archive:{tmp_path / 'saved.tar'}",
            f"docker-archive:{tmp_path / 'saved.tar.gz'}:{NAME}",
        )
    }
    (digest,) = digests
    manifest = json.loads((machine.cache / "blobs" / "sha256" / digest[7:]).read_bytes())
    assert manifest["config"]["digest"] == images[0].config_digest
    assert machine.leftovers() == []


def test_an_image_that_the_engine_has_not(machine: Machine) -> None:
    machine.run("pull", "docker-daemon:envbuild-test/none:1").failed(
        6, "docker-daemon:envbuild-test/none:1", "refused"
    )
