"""The pipeline over real parts, where no test of a stage reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.pipeline import BuildRequest, BuildResult, Pipeline, RunRequest
from envbuild.platforms import Platform
from envbuild.progress import Silent
from envbuild.publish.base import Image
from envbuild.run.base import Command
from envbuild.settings import Settings
from envbuild.spec.model import Spec
from envbuild.store.content import Store
from envbuild.store.leases import in_use
from tests.fakes.image import Item, put_image, put_layer

SPEC = Spec(name="x", source=Path("envbuild.yaml"))


class Recorder:
    """A runner that notes what is in use while its command runs."""

    name = "recorder"

    def __init__(self, store: Store) -> None:
        self.store = store
        self.names: frozenset[str] = frozenset()
        self.command: Command | None = None

    def available(self) -> str | None:
        return None

    def run(self, command: Command) -> int:
        self.command = command
        with in_use(self.store) as used:
            self.names = used.names
        return 7


def test_what_a_command_runs_in_is_in_use_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    image = put_image(store, [put_layer(store, [Item(name="a")])])
    runner = Recorder(store)
    asked: list[BuildRequest] = []

    def build(self: Pipeline, spec: Spec, request: BuildRequest) -> BuildResult:
        asked.append(request)
        return _result(image)

    monkeypatch.setattr(Pipeline, "build", build)
    monkeypatch.setattr("envbuild.wiring.Parts.runner", lambda self, backend: runner)
    with Pipeline(Settings(cache_dir=store.root), Silent(), environ={}) as pipeline:
        assert pipeline.run(SPEC, RunRequest(command=("true",), workdir=tmp_path)) == 7
    digest = image.digest.removeprefix("sha256:")
    assert {f"rootfs/{digest}", f"blobs/sha256/{digest}"} <= runner.names
    assert runner.command == Command(image=image, arguments=("true",), workdir=tmp_path)
    assert [request.platforms for request in asked] == [(Platform.host(),)]
    with in_use(store) as used:
        assert used.names == frozenset()


def _result(image: Image) -> BuildResult:
    return BuildResult(
        reference=f"x:1@{image.digest}",
        digest=image.digest,
        images=(image,),
        cached=True,
        engine="native",
        seconds=0.0,
        published=(),
    )
