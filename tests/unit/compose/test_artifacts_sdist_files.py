"""Where sdists come from: the index, without running any of their code; logins only to their own host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from envbuild.compose.artifacts.sdist.files import SdistFiles
from envbuild.compose.artifacts.wheel.index import PackageIndexes
from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download
from envbuild.lock.base import PipTarget
from envbuild.lock.git.repository import GitRepositories
from envbuild.lock.model import GitCommit, PipPin
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.git import parse_git_address
from envbuild.store.content import Store
from tests.fakes.git import GitRepository
from tests.fakes.sdist import source_dist
from tests.fakes.wheelhouse import Wheelhouse

TARGET = PipTarget(platform=LINUX_AMD64, python="3.13.5", glibc="2.41")


@dataclass
class Recorder:
    """A fetcher that only remembers what it was asked for."""

    asked: list[Download] = field(default_factory=list)
    error: FetchError | None = None

    def files(self, downloads: Sequence[Download], *, stage: str = "download") -> dict[str, Path]:
        self.asked += downloads
        if self.error:
            raise self.error
        return {download.sha256: Path("/made", download.sha256) for download in downloads}

    def read(self, url: str, *, limit: int, cache: bool = False) -> bytes:
        raise AssertionError(url)


def files(
    tmp_path: Path, fetcher: Recorder, env: Mapping[str, str], options: Sequence[str] = ()
) -> SdistFiles:
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    return SdistFiles(
        store=Store(tmp_path / "store"),
        fetcher=lambda: fetcher,
        indexes=PackageIndexes(
            env={**kept, "PIP_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(tmp_path / "uv"), **env},
            options=tuple(options),
        ),
    )


def test_finding_an_sdist_runs_none_of_its_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    legacy = source_dist(
        "demo",
        pyproject="",
        files={
            "PKG-INFO": "Metadata-Version: 1.0\nName: demo\nVersion: 1.0\n",
            "setup.py": f"open({str(marker)!r}, 'w').write('x')\n",
        },
    )
    # Settings of uv above the store don't count.
    (tmp_path / "uv.toml").write_text("no-index = true\n")
    house = Wheelhouse(tmp_path / "house")
    house.add_file("demo", "demo-1.0.tar.gz", legacy)
    pin = PipPin(
        name="demo",
        version="1.0",
        file="demo-1.0.tar.gz",
        size=len(legacy),
        sha256=sha256(legacy).hexdigest(),
    )
    fetcher = Recorder()
    path = files(tmp_path, fetcher, {"UV_DEFAULT_INDEX": house.url}).fetch(pin, TARGET)
    assert path == Path("/made", pin.sha256)
    assert fetcher.asked == [
        Download(
            what="demo-1.0.tar.gz",
            urls=((house.simple / "demo" / "demo-1.0.tar.gz").as_uri(),),
            sha256=pin.sha256,
            size=pin.size,
        )
    ]
    assert not marker.exists()


def asked(tmp_path: Path, url: str, env: Mapping[str, str], options: Sequence[str] = ()) -> str:
    fetcher = Recorder()
    pin = PipPin(name="demo", version="1.0", file="demo-1.0.tar.gz", size=0, sha256="a" * 64, url=url)
    files(tmp_path, fetcher, env, options).fetch(pin, TARGET)
    ((address,),) = [each.urls for each in fetcher.asked]
    return address


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ({"UV_DEFAULT_INDEX": "https://me:pw@index.test/simple"}, ()),
        ({"UV_INDEX": "https://a.test/simple own=https://me:pw@index.test/simple"}, ()),
        ({"PIP_EXTRA_INDEX_URL": "https://me:pw@index.test/simple"}, ()),
        ({"TOKEN": "pw"}, ("--extra-index-url https://me:${TOKEN}@index.test/simple",)),
    ],
)
def test_an_indexs_login_goes_to_its_own_host_alone(
    tmp_path: Path, env: Mapping[str, str], options: Sequence[str]
) -> None:
    url = "https://index.test/files/demo-1.0.tar.gz"
    assert asked(tmp_path, url, env, options) == "https://me:pw@index.test/files/demo-1.0.tar.gz"
    for other in ("https://index.test.evil/x", "https://files.test/x", "http://index.test/x"):
        assert asked(tmp_path, f"{other}/demo-1.0.tar.gz", env, options) == f"{other}/demo-1.0.tar.gz"
    own = "https://you:own@index.test/demo-1.0.tar.gz"
    assert asked(tmp_path, own, env, options) == own


def test_a_variable_of_an_address_is_filled_in(tmp_path: Path) -> None:
    url = "https://${TOKEN}@index.test/demo-1.0.tar.gz"
    assert asked(tmp_path, url, {"TOKEN": "t:pw"}) == "https://t:pw@index.test/demo-1.0.tar.gz"


def test_a_download_that_fails_is_an_error_of_the_build(tmp_path: Path) -> None:
    fetcher = Recorder(error=FetchError("gone", hint="try later"))
    pin = PipPin(
        name="demo", version="1.0", file="demo-1.0.tar.gz", size=0, sha256="a" * 64, url="https://a.test/x"
    )
    with pytest.raises(BuildError, match="gone") as caught:
        files(tmp_path, fetcher, {}).fetch(pin, TARGET)
    assert caught.value.hint == "try later"


def test_a_commit_is_packed_again_and_another_tree_under_its_name_is_refused(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "demo.git")
    commit = repository.commit({"pyproject.toml": "[project]"})
    url = f"git+file://{repository.directory}@main"
    source = files(tmp_path, Recorder(), {})
    archive = GitRepositories(store=Store(tmp_path / "other"), env=source.indexes.env).fetch(
        "demo", parse_git_address(url)[0], commit
    )
    pin = PipPin(
        name="demo",
        version="1.0",
        file=archive.file,
        size=archive.size,
        sha256=archive.sha256,
        url=url,
        git=GitCommit(commit=commit, tree=archive.tree),
    )
    repository.commit({"pyproject.toml": "[moved]"})
    wrong = replace(pin, sha256="1" * 64)
    with pytest.raises(BuildError, match=f"the tree of commit {commit} is {archive.tree}"):
        source.fetch(wrong, TARGET)
    assert sha256(source.fetch(pin, TARGET).read_bytes()).hexdigest() == pin.sha256
    offline = replace(source, store=Store(tmp_path / "new"), indexes=replace(source.indexes, offline=True))
    with pytest.raises(BuildError, match="isn't in the store, and this is offline"):
        offline.fetch(pin, TARGET)
