"""A real workspace in a file, and specs to put into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.app.environments import Workspace
from envbuild.app.lock import lock_directory
from envbuild.app.requests import BuildRequest, BuildResult
from envbuild.app.session import Session
from envbuild.lock.files import write_lock
from envbuild.settings import Settings
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import Spec
from tests.fakes.image import Item, put_image, put_layer
from tests.unit.lock.sample import LOCK

SPEC = "name: train\npython: '3.13'\nrequirements: [six]\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", workspace=tmp_path / "data" / "workspace.db")


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with Workspace(settings, environ={"USER": "ann"}) as found:
        yield found


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds end at once, with an image of one small layer and a lock that is written."""

    def build_images(session: Session, spec: Spec, request: BuildRequest) -> BuildResult:
        lock = replace(LOCK, definition=definition_digest(spec))
        write_lock(lock_directory(session, spec), lock)
        store = session.store
        image = replace(
            put_image(store, [put_layer(store, [Item(name="a")])]), definition_digest=lock.definition
        )
        return BuildResult(
            reference=f"{(request.tags or ('train:123456789012',))[0]}@{image.digest}",
            digest=image.digest,
            images=(image,),
            cached=False,
            engine="native",
            seconds=0.0,
            published=(),
        )

    monkeypatch.setattr("envbuild.app.build.build_images", build_images)


def write(directory: Path, text: str = SPEC, name: str = "envbuild.yaml") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path
