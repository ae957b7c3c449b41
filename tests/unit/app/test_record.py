"""Specs by the name of a version, and what builds leave in the workspace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import envbuild
from envbuild.app.build import build
from envbuild.app.environments import Workspace, look_up
from envbuild.app.lock import lock_spec
from envbuild.app.requests import BuildRequest
from envbuild.app.session import Session
from envbuild.app.specs import find_spec
from envbuild.errors import SpecError, UsageError, WorkspaceError
from envbuild.lock.base import LockRequest
from envbuild.lock.model import Lock
from envbuild.resources import curated_names
from envbuild.settings import Settings
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec
from envbuild.workspace.base import NewVersion
from tests.fakes.progress import Notes
from tests.unit.app.conftest import SPEC, write
from tests.unit.lock.sample import LOCK


@pytest.fixture
def session(
    settings: Settings, built: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    monkeypatch.chdir(tmp_path)
    with Session(settings, Notes(), environ={"USER": "ann"}) as found:
        yield found


def test_a_path_goes_before_a_version_before_a_curated_environment(session: Session, tmp_path: Path) -> None:
    curated = curated_names()[0]
    assert find_spec(session, curated).type.value == "curated"
    spec = replace(load_spec(write(tmp_path / "spec")), name=curated)
    session.workspace.register(spec)
    assert find_spec(session, curated).version == "1"
    write(tmp_path / curated, SPEC.replace("train", "here"))
    assert find_spec(session, curated).name == "here"
    assert find_spec(session, f"{curated}:1").name == curated


def test_what_was_built_of_a_curated_environment_does_not_hide_it(session: Session) -> None:
    curated = curated_names()[0]
    spec = find_spec(session, curated)
    session.workspace.environments.register(
        NewVersion(
            environment=curated, definition=definition_digest(spec), content="name: x\n", anonymous=True
        )
    )
    assert find_spec(session, curated) == spec


def test_an_unknown_name_is_told_with_the_nearest(session: Session, tmp_path: Path) -> None:
    session.workspace.register(load_spec(write(tmp_path / "trains")))
    with pytest.raises(SpecError) as raised:
        find_spec(session, "trian")
    assert raised.value.message == "trian: no such file or directory, and no environment of that name"
    assert raised.value.hint == "did you mean train or trains?"
    with pytest.raises(SpecError, match=r"^trian\.yaml: no such file or directory$"):
        find_spec(session, "trian.yaml")
    with pytest.raises(WorkspaceError, match="train has no label 'prod'"):
        find_spec(session, "train@prod")


def test_what_a_source_cannot_say_is_noted_once(session: Session, tmp_path: Path) -> None:
    docker = '"docker": {"baseImage": "a/b:1", "shmSize": "2g"}'
    (tmp_path / "azureml_environment.json").write_text(f'{{"name": "v1", {docker}}}\n')
    for _ in range(2):
        assert find_spec(session, str(tmp_path)).left_out
    assert isinstance(session.progress, Notes)
    assert session.progress.notes == ["left out: azureml_environment.json:1: docker.shmSize"] * 2


def test_a_build_records_spec_lock_and_image(session: Session, tmp_path: Path) -> None:
    spec = find_spec(session, str(write(tmp_path / "spec")))
    result = build(session, spec, BuildRequest(tags=("repo:1",)))
    registry = session.workspace.environments
    (image,) = registry.images()
    definition = definition_digest(spec)
    assert (image.digest, image.definition, image.level) == (
        result.digest,
        definition,
        result.images[0].level,
    )
    assert (image.references, image.engine, image.envbuild) == (("repo:1",), "native", envbuild.__version__)
    assert image.size == sum(layer.size for layer in result.images[0].layers)
    found = look_up(session.workspace, f"repo:1@{result.digest}")
    assert (found.images, found.definition) == ((image,), definition)
    (version,) = found.versions
    assert (version.anonymous, version.version, version.origin) == (True, definition[7:19], str(spec.source))
    assert found.lock is not None
    assert found.lock.digest == image.lock
    # Neither the name alone nor latest leads to what was only built.
    assert registry.list() == ()


def test_a_second_build_of_the_same_asks_no_database(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec(session, str(write(tmp_path / "spec")))
    build(session, spec, BuildRequest())
    recorded = len(session.workspace.environments.history())
    calls: list[str] = []
    monkeypatch.setattr("envbuild.app.record._write", lambda *_: calls.append("record"))
    build(session, spec, BuildRequest())
    assert calls == []
    build(session, spec, BuildRequest(tags=("another:1",)))
    assert calls == ["record"]
    assert len(session.workspace.environments.history()) == recorded


def test_a_build_is_recorded_again_where_the_workspace_was_made_anew(
    session: Session, tmp_path: Path
) -> None:
    spec = find_spec(session, str(write(tmp_path / "spec")))
    build(session, spec, BuildRequest())
    other = replace(session.settings, workspace=tmp_path / "other.db")
    with Session(other, Notes(), environ={}) as second:
        build(second, spec, BuildRequest())
        assert len(second.workspace.environments.images()) == 1


@pytest.mark.parametrize("change", [{"record": False}, {"workspace": None}])
def test_recording_can_be_left_out(
    session: Session, tmp_path: Path, settings: Settings, change: dict[str, object]
) -> None:
    spec = load_spec(write(tmp_path / "spec"))
    with Session(replace(settings, **change), Notes(), environ={}) as silent:  # type: ignore[arg-type]
        build(silent, spec, BuildRequest())
    assert not (tmp_path / "data").exists()


def test_a_workspace_that_fails_is_a_warning(
    session: Session, tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_spec(write(tmp_path / "spec"))
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    broken = replace(settings, workspace=tmp_path / "broken.db")
    with (
        Session(broken, Notes(), environ={}) as failing,
        caplog.at_level(logging.WARNING, "envbuild"),
    ):
        result = build(failing, spec, BuildRequest())
    assert result.digest.startswith("sha256:")
    (record,) = [record for record in caplog.records if record.name == "envbuild.app.record"]
    assert record.getMessage().startswith("the build isn't recorded in the workspace: ")


def test_a_server_that_is_away_slows_down_one_build(
    session: Session, tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_spec(write(tmp_path / "spec"))
    # Nothing listens there; the error names no password.
    away = replace(settings, workspace="postgresql://me:secret@127.0.0.1:1/none")
    for said in ("the build isn't recorded in the workspace: ", "the build isn't recorded: the workspace's"):
        caplog.clear()
        with Session(away, Notes(), environ={}) as failing:
            build(failing, spec, BuildRequest())
        (record,) = [record for record in caplog.records if record.name == "envbuild.app.record"]
        assert record.getMessage().startswith(said)
        assert "secret" not in record.getMessage()
    caplog.clear()
    with Session(replace(away, offline=True), Notes(), environ={}) as offline:
        build(offline, spec, BuildRequest())
    assert caplog.records == []


def test_a_build_of_a_registered_version_is_its_image(session: Session, tmp_path: Path) -> None:
    session.workspace.register(load_spec(write(tmp_path / "spec")))
    build(session, find_spec(session, "train:1"), BuildRequest())
    (image,) = session.workspace.environments.images(name="train", version="1")
    assert image.versions == (("train", "1"),)
    assert [
        each.version for each in session.workspace.environments.versions("train", include_anonymous=True)
    ] == ["1"]


def test_a_lock_of_a_version_goes_into_the_workspace(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve_lock(session: Session, spec: Spec, request: LockRequest, present: Lock | None) -> Lock:
        return replace(LOCK, definition=definition_digest(spec))

    monkeypatch.setattr("envbuild.app.lock.resolve_lock", resolve_lock)
    source = write(tmp_path / "spec")
    version = session.workspace.register(load_spec(source)).version
    lock_spec(session, find_spec(session, str(source)), LockRequest())
    assert session.workspace.environments.lock(version.definition) is None
    spec = find_spec(session, "train")
    assert not lock_spec(session, spec, LockRequest(dry_run=True)).written
    assert session.workspace.environments.lock(version.definition) is None
    lock_spec(session, spec, LockRequest())
    record = session.workspace.environments.lock(version.definition)
    assert record is not None
    assert record.platforms == ("linux/amd64", "linux/arm64")


def test_digests_that_lead_nowhere_are_said(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="has the digest sha256:1111"):
        look_up(workspace, "sha256:" + "1" * 64)
    with pytest.raises(UsageError, match="'sha256:12' is no digest"):
        look_up(workspace, "x@sha256:12")


def test_an_index_strategy_of_the_call_is_part_of_the_definition(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    place = str(write(tmp_path / "spec"))
    with Session(replace(settings, index_strategy="first-index"), Notes(), environ={}) as strict:
        spec = find_spec(strict, place)
    write(tmp_path / "same", SPEC + "index_strategy: first-index\n")
    assert spec.pip.index_strategy == "first-index"
    assert definition_digest(spec) == definition_digest(load_spec(tmp_path / "same"))
    assert definition_digest(spec) != definition_digest(find_spec(session, place))
