"""The embedded resolver: where it looks, what it says when it can't, and what never gets into a pin."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import CondaRequest, CondaTarget
from envbuild.lock.conda.channels import ChannelNames
from envbuild.lock.conda.configuration import CondaConfiguration
from envbuild.lock.conda.rattler import RattlerResolver
from envbuild.lock.conda.satisfied import virtual_packages
from envbuild.lock.model import CondaPin
from envbuild.platforms import LINUX_AMD64
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import CondaSpec
from envbuild.store.content import Store
from tests.fakes.channel import Package, index_channel, make_channel, make_package, serve

TARGET = CondaTarget(platform=LINUX_AMD64, virtual_packages=virtual_packages("2.41", LINUX_AMD64, {}))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("channels") / "main"
    make_channel(path, python=False)
    return path


@pytest.fixture
def resolver(tmp_path: Path) -> RattlerResolver:
    return RattlerResolver(tmp_path / "cache", retries=0)


def resolve(resolver: RattlerResolver, *dependencies: str, channels: tuple[str, ...]) -> tuple[CondaPin, ...]:
    return resolver.resolve(
        CondaRequest(spec=CondaSpec(channels=channels, dependencies=dependencies), targets=[TARGET])
    )[LINUX_AMD64]


def test_over_http_the_cache_answers_offline(directory: Path, resolver: RattlerResolver) -> None:
    with serve(directory) as (url, requests):
        spec = CondaSpec(channels=(url,), dependencies=("tool",))
        with pytest.raises(ResolveError, match="is not in the cache") as caught:
            resolver.resolve(CondaRequest(spec=spec, targets=[TARGET], offline=True))
        assert requests == []
        assert caught.value.hint == "drop --offline once, so that it is fetched"
        online = resolver.resolve(CondaRequest(spec=spec, targets=[TARGET]))
        assert "/linux-64/repodata.json" in requests
        asked = len(requests)
        assert resolver.resolve(CondaRequest(spec=spec, targets=[TARGET], offline=True)) == online
        assert len(requests) == asked


def test_credentials_stay_out_of_pins_and_messages(directory: Path, resolver: RattlerResolver) -> None:
    with serve(directory.parent) as (url, _):
        (directory.parent / "t").mkdir(exist_ok=True)
        if not (link := directory.parent / "t" / "s3cret").exists():
            link.symlink_to("..")
        secret = url.replace("http://", "http://user:pa55@") + "/t/s3cret/main"
        (pin,) = resolve(resolver, "libtool", channels=(secret,))
        assert pin.url == f"{url}/main/linux-64/libtool-1.5-0.tar.bz2"
        assert pin.channel == f"{url}/main"
        with pytest.raises(ResolveError) as caught:
            resolve(resolver, "tool", channels=(secret + "-none",))
        said = f"{caught.value} {caught.value.hint}"
        assert "unknown conda channel" in said
        assert "pa55" not in said
        assert "s3cret" not in said


def test_a_channel_that_does_not_answer_is_named(resolver: RattlerResolver) -> None:
    with pytest.raises(ResolveError) as caught:
        resolve(resolver, "tool", channels=("http://127.0.0.1:9/conda",))
    assert caught.value.message.startswith("conda channel http://127.0.0.1:9/conda does not answer: ")


def test_the_first_channel_that_has_a_package_is_its_only_one(tmp_path: Path, directory: Path) -> None:
    first = tmp_path / "first"
    package = Package(name="tool", version="0.5")
    make_package(package, first)
    url, second = index_channel(first, [package]), directory.as_uri()
    resolver = RattlerResolver(tmp_path / "cache")
    assert [pin.version for pin in resolve(resolver, "tool", channels=(url, second))] == ["0.5"]
    explicit = resolve(resolver, f"{second}::tool", channels=(url, second))
    assert [(pin.name, pin.version) for pin in explicit] == [("libtool", "1.5"), ("tool", "2.0")]


def test_a_name_is_looked_up_below_the_alias(tmp_path: Path, directory: Path) -> None:
    names = ChannelNames(alias=directory.parent.as_uri())
    resolver = RattlerResolver(tmp_path / "cache", CondaConfiguration(names=names))
    (pin,) = resolve(resolver, "main::libtool", channels=("main",))
    assert pin.channel == directory.as_uri()


def test_as_of_leaves_out_what_is_newer_or_undated(directory: Path, resolver: RattlerResolver) -> None:
    channels = (directory.as_uri(),)
    spec = CondaSpec(channels=channels, dependencies=("tool",))
    old = resolver.resolve(CondaRequest(spec=spec, targets=[TARGET], as_of=date(2023, 11, 14)))[LINUX_AMD64]
    assert [pin.version for pin in old if pin.name == "tool"] == ["1.0"]
    new = resolver.resolve(CondaRequest(spec=spec, targets=[TARGET]))
    back = resolver.resolve(
        CondaRequest(spec=spec, targets=[TARGET], as_of=date(2023, 11, 14), preferred=new)
    )[LINUX_AMD64]
    assert back == old
    with pytest.raises(ResolveError):
        resolver.resolve(
            CondaRequest(
                spec=replace(spec, dependencies=("undated",)), targets=[TARGET], as_of=date(2026, 1, 1)
            )
        )


def test_unknown_packages_are_all_named_with_the_nearest(directory: Path, resolver: RattlerResolver) -> None:
    url = directory.as_uri()
    with pytest.raises(ResolveError) as caught:
        resolve(resolver, "greter", "zzz", "tool", channels=(url,))
    assert caught.value.message == (
        f"no conda package is named 'greter' in {url} for linux-64; did you mean greeter?\n"
        f"no conda package is named 'zzz' in {url} for linux-64"
    )


def test_it_works_inside_a_running_event_loop(directory: Path, resolver: RattlerResolver) -> None:
    async def notebook() -> tuple[CondaPin, ...]:
        return resolve(resolver, "libtool", channels=(directory.as_uri(),))

    assert [pin.name for pin in asyncio.run(notebook())] == ["libtool"]


GPU = (
    Package(name="torch", version="2.0", build="cpu_0"),
    Package(name="torch", version="2.0", build="cuda_1", build_number=1, depends=("__cuda >=12",)),
    Package(name="gpuonly", depends=("__cuda",)),
    Package(name="plain"),
)


@pytest.fixture(scope="module")
def gpu_channel(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("channels") / "gpu"
    for package in GPU:
        make_package(package, path)
    return index_channel(path, GPU)


def test_a_lock_for_cpus_says_so_where_one_for_gpus_would_differ(
    gpu_channel: str, resolver: RattlerResolver, caplog: pytest.LogCaptureFixture
) -> None:
    (torch,) = resolve(resolver, "torch", channels=(gpu_channel,))
    assert torch.build == "cpu_0"
    assert caplog.messages == [
        "linux/amd64: locked for machines without a GPU: torch 2.0 cpu_0; for those with one, say which CUDA "
        'the drivers have, system_requirements: {cuda: "12.9"}'
    ]
    caplog.clear()
    resolve(resolver, "plain", channels=(gpu_channel,))
    gpu = replace(TARGET, virtual_packages={**TARGET.virtual_packages, "__cuda": "12.9"})
    spec = CondaSpec(channels=(gpu_channel,), dependencies=("torch",))
    (torch,) = resolver.resolve(CondaRequest(spec=spec, targets=[gpu]))[LINUX_AMD64]
    assert torch.build == "cuda_1"
    assert caplog.messages == []


def test_what_needs_a_gpu_is_refused_with_the_key_that_says_there_is_one(
    gpu_channel: str, resolver: RattlerResolver
) -> None:
    with pytest.raises(ResolveError, match="__cuda") as raised:
        resolve(resolver, "gpuonly", channels=(gpu_channel,))
    assert raised.value.hint == (
        'these packages need a GPU: say which CUDA the drivers have, system_requirements: {cuda: "12.9"}'
    )


PYTHON = (
    Package(name="python", version="3.12.4"),
    Package(name="pip", version="24.0", noarch="python", depends=("python >=3.8", "wheel")),
    Package(name="wheel", version="0.43", noarch="python", depends=("python",)),
)


@pytest.mark.parametrize(
    ("packages", "add_pip", "locked"),
    [
        (PYTHON, True, ["pip", "python", "wheel"]),
        (PYTHON, False, ["python"]),
        # A channel that has no pip: conda would find no solution, and nobody asked for it.
        (PYTHON[:1], True, ["python"]),
    ],
)
def test_pip_comes_with_python_as_conda_has_it(
    packages: tuple[Package, ...], add_pip: bool, locked: list[str], tmp_path: Path, resolver: RattlerResolver
) -> None:
    for package in packages:
        make_package(package, tmp_path / "channel")
    url = index_channel(tmp_path / "channel", packages)
    spec = CondaSpec(channels=(url,), dependencies=("python",), add_pip=add_pip)
    pins = resolver.resolve(CondaRequest(spec=spec, targets=[TARGET]))[LINUX_AMD64]
    assert [pin.name for pin in pins] == locked


def test_of_a_channel_with_md5_alone_the_archive_is_hashed_once(
    tmp_path: Path, resolver: RattlerResolver, store: Store
) -> None:
    package = Package(name="old", extension=".tar.bz2")
    archive = make_package(package, tmp_path / "channel")
    url = index_channel(tmp_path / "channel", [package])
    repodata = tmp_path / "channel" / "linux-64" / "repodata.json"
    document = json.loads(repodata.read_text())
    for record in document["packages"].values():
        del record["sha256"]
    repodata.write_text(json.dumps(document))
    settings = Settings(cache_dir=store.root)
    with HttpFetcher(store, offline=False, settings=settings, progress=Silent(), environ={}) as fetcher:
        resolver.fetcher = fetcher
        (pin,) = resolve(resolver, "old", channels=(url,))
        assert pin.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
        archive.unlink()
        spec = CondaSpec(channels=(url,), dependencies=("old",))
        again = CondaRequest(spec=spec, targets=[TARGET], preferred={LINUX_AMD64: (pin,)})
        assert resolver.resolve(again)[LINUX_AMD64] == (pin,)
        archive.write_bytes(b"another")
        with pytest.raises(ResolveError, match=r"the channel says MD5 [0-9a-f]{32}, the archive has "):
            resolve(resolver, "old", channels=(url,))
