"""Loading into, and running in, a real Docker engine: the one DOCKER_HOST names."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.docker.client import NoEngine, connect
from envbuild.errors import PublishError
from envbuild.images.sinks import daemon
from envbuild.images.sinks.daemon import DaemonSink
from envbuild.images.sinks.tar_stream import Member
from envbuild.oci.image import ImageSet
from envbuild.progress import Silent
from envbuild.run.command import Command
from envbuild.run.runners import ContainerRunner
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer, shell_image


def test_an_engine_that_is_not_there_is_explained(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    found = connect(environ)
    assert isinstance(found, NoEngine)
    assert found.reason == (
        f"no Docker engine at unix://{tmp_path}/none.sock (DOCKER_HOST): there is no such socket"
    )
    store = Store(tmp_path / "store")
    image = put_image(store, [put_layer(store, [Item(name="a")])])
    with pytest.raises(PublishError, match="there is no such socket"):
        DaemonSink(store, Silent(), environ).publish(ImageSet(images=(image,), names=()))


def test_the_current_context_is_followed(tmp_path: Path) -> None:
    meta = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"away").hexdigest()
    meta.mkdir(parents=True)
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "away"}')
    (meta / "meta.json").write_text('{"Endpoints": {"docker": {"Host": "unix:///nowhere/x.sock"}}}')
    found = connect({"HOME": str(tmp_path)})
    assert isinstance(found, NoEngine)
    assert (
        found.reason == "no Docker engine at unix:///nowhere/x.sock (context away): there is no such socket"
    )
    (meta / "meta.json").write_text("{}")
    found = connect({"HOME": str(tmp_path)})
    assert isinstance(found, NoEngine)
    assert found.reason.startswith("the Docker context 'away' can't be read")


@pytest.fixture
def tag() -> Iterator[str]:
    """A name that is taken from the engine again."""
    name = f"envbuild-test-{os.getpid()}:one"
    yield name
    client = connect(os.environ)
    if not isinstance(client, NoEngine):
        import docker

        with contextlib.suppress(docker.errors.NotFound):
            client.api.remove_image(name, force=True)
        client.close()


@pytest.mark.engine
def test_an_image_is_loaded_under_its_name_and_then_only_tagged(
    tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    unique = put_layer(store, [Item(name="unique", content=os.urandom(16))])
    first = put_image(store, [*shell_image(store).layers, unique])
    sent: list[list[str]] = []
    original = daemon._post

    def spy(client: object, members: tuple[Member, ...], progress: object) -> None:
        sent.append([member.name for member in members])
        original(client, members, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(daemon, "_post", spy)
    publisher = DaemonSink(store, Silent(), os.environ)
    assert publisher.publish(ImageSet(images=(first,), names=(tag,))) == f"the Docker engine, as {tag}"
    assert len(sent) == 1
    publisher.publish(ImageSet(images=(first,), names=(tag,)))
    assert len(sent) == 1
    client = connect(os.environ)
    assert not isinstance(client, NoEngine)
    assert client.images.get(tag).id in (first.config_digest, first.digest)
    more = put_layer(store, [Item(name="more", content=os.urandom(16))])
    second = put_image(store, [*first.layers, more])
    publisher.publish(ImageSet(images=(second,), names=(tag,)))
    assert client.images.get(tag).id in (second.config_digest, second.digest)
    status = str(client.info().get("DriverStatus"))
    if "io.containerd.snapshotter" not in status:
        assert [name for name in sent[1] if name.endswith(first.layers[0].digest[7:])] == []
    client.images.remove(tag, force=True)
    client.close()


@pytest.mark.engine
def test_a_command_runs_in_a_container(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "work").mkdir()
    runner = ContainerRunner(store, Silent(), os.environ)
    assert runner.available() is None
    command = Command(
        image=shell_image(store),
        arguments=("sh", "-c", "pwd; cat /etc/image; echo $MINE; echo bad >&2; touch made; exit 7"),
        workdir=tmp_path / "work",
        env=(("MINE", "1"),),
    )
    assert runner.run(command) == 7
    out, err = capfd.readouterr()
    assert out == "/workspace\nmade by a test\n1\n"
    assert err == "bad\n"
    assert (tmp_path / "work/made").stat().st_uid == os.getuid()
