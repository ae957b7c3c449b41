"""A Docker engine pulls and runs what was pushed, and pushes what is pulled, copied and built upon."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.app import build as builds
from envbuild.app import specs
from envbuild.app.requests import BuildRequest
from envbuild.app.session import Session
from envbuild.docker.client import NoEngine, connect
from envbuild.images.describe import image_of
from envbuild.images.sinks.registry import RegistrySink
from envbuild.images.sources.base import RegistrySource
from envbuild.oci.image import ImageSet
from envbuild.oci.manifest import DOCKER_MANIFEST
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes import registry_server
from tests.fakes.image import Item, put_image, put_index, put_layer, shell_image
from tests.fakes.registry_server import RegistryServer, needs_registry
from tests.integration.registry import blobs, make_client, same_blobs

pytestmark = [pytest.mark.engine, needs_registry()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server.serve(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def names() -> Iterator[list[str]]:
    """Images that are taken from the engine again."""
    found: list[str] = []
    yield found
    client = connect(os.environ)
    if not isinstance(client, NoEngine):
        import docker

        for name in found:
            with contextlib.suppress(docker.errors.APIError):
                client.api.remove_image(name, force=True)
        client.close()


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_docker_pulls_and_runs_what_was_pushed(
    server: RegistryServer, names: list[str], tmp_path: Path
) -> None:
    """By tag and by digest; of an index, this machine's image."""
    store = Store(tmp_path / "store")
    host = Platform.host()
    other = Platform("linux", "arm64" if host.architecture == "amd64" else "amd64")
    mine = put_image(
        store, [*shell_image(store).layers, put_layer(store, [Item(name="unique", content=os.urandom(9))])]
    )
    theirs = put_image(store, [put_layer(store, [Item(name="other")])], platform=other)
    for repository, publication in (
        ("single", ImageSet(images=(mine,), names=())),
        ("both", put_index(store, [mine, theirs], ())),
    ):
        name = f"{server.host}/{repository}"
        with make_client(tmp_path, store) as client:
            RegistrySink(remote=client, store=store, repository=Reference.parse(name), tags=("one",)).publish(
                publication
            )
        names += [f"{name}:one", f"{name}@{publication.digest}"]
        for reference in (f"{name}:one", f"{name}@{publication.digest}"):
            docker("pull", "--quiet", reference)
            said = docker("run", "--rm", "--network=none", reference, "sh", "-c", "cat /etc/image")
            assert said == "made by a test"
        assert (
            docker("inspect", "--format={{json .RepoDigests}}", f"{name}:one").count(publication.digest) == 1
        )


def test_what_docker_pushed_is_pulled_copied_and_built_upon(
    server: RegistryServer, names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_bytes(os.urandom(100_000))
    (tmp_path / "context" / "Dockerfile").write_text(
        'FROM scratch\nCOPY file /opt/file\nENV FROM_DOCKER=yes\nLABEL theirs=kept\nCMD ["/opt/file"]\n'
    )
    name = f"{server.host}/theirs:docker"
    names.append(name)
    docker("build", "--quiet", "--network=host", f"--tag={name}", str(tmp_path / "context"))
    docker("push", "--quiet", name)
    store = Store(tmp_path / "store")
    reference = Reference.parse(name)
    with make_client(tmp_path, store) as client:
        top = client.manifest(reference)
        assert top.media_type == DOCKER_MANIFEST
        assert top.content == server.manifest("theirs", "docker")
        image = image_of(RegistrySource(reference, client), top)
        client.pull_blobs(reference, blobs(store, image))
        copy = Reference.parse(f"{server.host}/copied:docker")
        sink = RegistrySink(remote=client, store=store, repository=copy, tags=("docker",))
        sink.publish(ImageSet(images=(image,), names=()))
    assert server.manifest("copied", "docker") == top.content
    assert server.complete("copied", "docker")
    other = Store(tmp_path / "other")
    with make_client(tmp_path, other) as client:
        client.manifest(copy)
        client.pull_blobs(copy, blobs(store, image))
    assert same_blobs(store, other, image)
    spec = tmp_path / "spec" / "envbuild.yaml"
    spec.parent.mkdir()
    platform = Platform.host()
    spec.write_text(
        f"name: upon\nplatforms: [{platform}]\nimage: {name}\nenvironment_variables: {{MINE: '1'}}\n"
    )
    settings = Settings(cache_dir=tmp_path / "cache", engine="native")
    with Session(settings, Silent(), environ={"HOME": str(tmp_path)}) as session:
        built = builds.build(session, specs.find_spec(session, str(spec)), BuildRequest())
    (mine,) = built.images
    assert [layer.digest for layer in mine.layers] == [each.digest for each in image.layers]
    config = json.loads(Store(tmp_path / "cache").blob(mine.config_digest).read_bytes())["config"]
    assert {"FROM_DOCKER=yes", "MINE=1"} <= set(config["Env"])
    assert config["Labels"]["theirs"] == "kept"
