"""Archives of each kind, from what brings it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.compose.artifacts.conda.source import CondaFiles, CondaSource
from envbuild.compose.artifacts.sources import FetchedFiles, FilesByKind, artifact_sources
from envbuild.compose.base import ComposeContext
from envbuild.errors import BuildError, FetchError
from envbuild.http.fetcher import HttpFetcher
from envbuild.plan.model import Artifact, ArtifactKind, Inputs
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.channel import File, Package
from tests.unit.compose.test_artifacts_conda_source import artifact_of

PACKAGE = Package(name="tool", files=(File(path="bin/tool", content=b"tool\n"),))
SCRIPTED = Package(name="scripted", files=(File(path="bin/.scripted-post-link.sh", content=b"true\n"),))


class Named:
    """Brings whatever it is asked for, as files named by who was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[str] = []

    def fetch_files(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        self.asked += [artifact.name for artifact in artifacts]
        return {artifact.sha256: Path(self.name, artifact.name) for artifact in artifacts}


def an_artifact(kind: ArtifactKind, name: str) -> Artifact:
    return Artifact(kind=kind, name=name, version="1", sha256=name * 8, size=0)


def fetcher(store: Store, *, offline: bool = False) -> HttpFetcher:
    return HttpFetcher(
        store, offline=offline, settings=Settings(cache_dir=store.root), progress=Silent(), environ={}
    )


def test_every_kind_but_the_plans_own_files_has_a_source_and_opens_none_before_it_is_asked(
    tmp_path: Path,
) -> None:
    def nothing() -> Any:
        raise AssertionError("nothing is fetched")

    settings = Settings(cache_dir=tmp_path)
    context = ComposeContext(
        store=Store(tmp_path),
        settings=settings,
        environ={},
        progress=Silent(),
        fetcher=nothing,
        registry=nothing,
        inputs=Inputs(directory=tmp_path),
    )
    assert artifact_sources(context).keys() == set(ArtifactKind) - {ArtifactKind.GENERATED}


def test_each_kind_is_asked_of_its_own_and_none_is_made_in_vain() -> None:
    wheels, conda = Named("wheels"), Named("conda")

    def never() -> Named:
        raise AssertionError("there is no jar")

    archives = FilesByKind(
        {
            ArtifactKind.WHEEL: lambda: wheels,
            ArtifactKind.CONDA: lambda: conda,
            ArtifactKind.JAR: never,
        }
    )
    found = archives.fetch_files(
        [
            an_artifact(ArtifactKind.WHEEL, "a"),
            an_artifact(ArtifactKind.CONDA, "b"),
            an_artifact(ArtifactKind.WHEEL, "c"),
        ]
    )
    assert (wheels.asked, conda.asked) == (["a", "c"], ["b"])
    assert found == {
        "a" * 8: Path("wheels/a"),
        "c" * 8: Path("wheels/c"),
        "b" * 8: Path("conda/b"),
    }


def test_what_has_no_archive_is_named() -> None:
    with pytest.raises(BuildError, match=r"^settings 1 has no archive$"):
        FilesByKind({}).fetch_files([an_artifact(ArtifactKind.GENERATED, "settings")])


@pytest.mark.parametrize("package", [PACKAGE, SCRIPTED])
def test_a_conda_package_is_the_file_of_its_channel(tmp_path: Path, package: Package) -> None:
    artifact = artifact_of(package, tmp_path / "channel")
    store = Store(tmp_path / "store")
    with fetcher(store) as source:
        found = CondaFiles(source).fetch_files([artifact])
    original = tmp_path / "channel" / "linux-64" / package.file_name
    assert found == {artifact.sha256: store.artifact(artifact.sha256)}
    assert found[artifact.sha256].read_bytes() == original.read_bytes()

    original.unlink()
    with fetcher(store, offline=True) as source:
        assert CondaFiles(source).fetch_files([artifact]) == found


def test_a_conda_package_that_was_replaced_is_refused(tmp_path: Path) -> None:
    artifact = artifact_of(PACKAGE, tmp_path / "channel")
    path = tmp_path / "channel" / "linux-64" / PACKAGE.file_name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with (
        fetcher(Store(tmp_path / "store")) as source,
        pytest.raises(FetchError, match=f"conda package tool 1.0.*but {artifact.sha256} is pinned"),
    ):
        CondaFiles(source).fetch_files([artifact])


def test_a_composing_source_leaves_the_file_it_fetched(tmp_path: Path) -> None:
    artifact = artifact_of(PACKAGE, tmp_path / "channel")
    store = Store(tmp_path / "store")
    with fetcher(store) as source:
        found = FetchedFiles(store, lambda: nullcontext(CondaSource(store, source))).fetch_files([artifact])
    assert found == {artifact.sha256: store.artifact(artifact.sha256)}
    assert store.verified_artifact(artifact.sha256) is not None


def test_a_source_that_keeps_no_file_is_found_out(tmp_path: Path) -> None:
    class Forgetful(CondaSource):
        def fetch(self, artifacts: Sequence[Artifact]) -> None:
            pass

    store = Store(tmp_path / "store")
    artifact = artifact_of(PACKAGE, tmp_path / "channel")
    with fetcher(store) as source, pytest.raises(BuildError, match=r"tool 1.0 was not kept"):
        FetchedFiles(store, lambda: nullcontext(Forgetful(store, source))).fetch_files([artifact])


def test_a_pin_of_another_kind_is_refused(tmp_path: Path) -> None:
    artifact = replace(artifact_of(PACKAGE, tmp_path), pin=None)
    with fetcher(Store(tmp_path / "store")) as source, pytest.raises(BuildError, match="has no pin of one"):
        CondaFiles(source).fetch_files([artifact])
