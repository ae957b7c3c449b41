"""Standalone pythons: which build of which list, by which hash, from which mirror."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import ResolveError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import PythonRequest, Upgrade
from envbuild.lock.model import PythonBuild, PythonPin
from envbuild.lock.python.standalone import PythonPlaces, StandaloneResolver, addresses, python_places
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.python_build import PythonIndex, file_name, list_entry, serve_directory, sums

PUBLISHED = "https://github.com/astral-sh/python-build-standalone/releases/download"
OLD, NEW = b"old", b"new"


@pytest.fixture
def index(tmp_path: Path) -> PythonIndex:
    index = PythonIndex(tmp_path / "index")
    for version in ("3.8.20", "3.10.12", "3.10.13", "3.13.9", "3.14.2"):
        index.add(version, version.encode(), PUBLISHED)
    index.add("3.10.12", b"arm", PUBLISHED, machine="aarch64")
    return index


@pytest.fixture
def served(index: PythonIndex) -> Iterator[tuple[str, list[str]]]:
    with serve_directory(index.root) as running:
        yield running


def resolver(
    store: Store, *, offline: bool = False, env: Mapping[str, str] | None = None, **settings: Any
) -> Any:
    chosen = Settings(cache_dir=store.root, **settings)
    fetcher = HttpFetcher(
        store, offline=offline, settings=chosen, progress=Silent(), sleep=lambda seconds: None, environ={}
    )
    return StandaloneResolver(fetcher, python_places(chosen, env or {}), env=env or {})


def request(wanted: str | None, *platforms: Any, **more: Any) -> PythonRequest:
    return PythonRequest(wanted=wanted, platforms=platforms or (LINUX_AMD64,), **more)


def pin(version: str, data: bytes) -> PythonPin:
    series = version.rpartition(".")[0]
    return PythonPin(
        version=version,
        provider="standalone",
        executable=f"/opt/python/bin/python{series}",
        build=PythonBuild(
            version=version,
            url=f"{PUBLISHED}/20260101/{file_name(version).replace('+', '%2B')}",
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        ),
    )


def test_the_newest_that_answers_is_pinned_by_address_size_and_hash(
    served: tuple[str, list[str]], store: Store
) -> None:
    root, asked = served
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    assert named.resolve(request("3.10")) == {LINUX_AMD64: pin("3.10.13", b"3.10.13")}
    assert named.resolve(request(">=3.8,<3.10")) == {LINUX_AMD64: pin("3.8.20", b"3.8.20")}
    # Of an open python the series of the default Debian release.
    assert named.resolve(request(None))[LINUX_AMD64].version == "3.13.9"
    assert f"/20260101/{file_name('3.10.13').replace('+', '%2B')}" in asked
    assert store.artifact(hashlib.sha256(b"3.10.13").hexdigest()).read_bytes() == b"3.10.13"


def test_all_platforms_get_one_version(served: tuple[str, list[str]], store: Store) -> None:
    root, _ = served
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    pins = named.resolve(request("3.10", LINUX_AMD64, LINUX_ARM64))
    assert {platform: each.version for platform, each in pins.items()} == {
        LINUX_AMD64: "3.10.12",
        LINUX_ARM64: "3.10.12",
    }
    assert pins[LINUX_ARM64].build.file == file_name("3.10.12", "aarch64")


def test_what_is_locked_stays_and_nobody_is_asked(store: Store) -> None:
    kept = pin("3.10.12", OLD)
    nowhere = resolver(store, offline=True, python_downloads_json_url="http://127.0.0.1:9/list.json")
    assert nowhere.resolve(request("3.10", preferred={LINUX_AMD64: kept})) == {LINUX_AMD64: kept}


@pytest.mark.parametrize(
    ("wanted", "upgrade"),
    [
        ("3.10", Upgrade(everything=True)),
        ("3.10", Upgrade(packages=frozenset({"python"}))),
        ("3.10.13", Upgrade()),
    ],
)
def test_what_is_locked_goes_where_it_is_upgraded_or_no_answer(
    served: tuple[str, list[str]], store: Store, wanted: str, upgrade: Upgrade
) -> None:
    root, _ = served
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    pins = named.resolve(request(wanted, preferred={LINUX_AMD64: pin("3.10.12", OLD)}, upgrade=upgrade))
    assert pins[LINUX_AMD64].version == "3.10.13"


def test_a_second_platform_gets_the_version_of_the_first(served: tuple[str, list[str]], store: Store) -> None:
    root, _ = served
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    kept = pin("3.10.12", b"3.10.12")
    pins = named.resolve(request("3.10", LINUX_AMD64, LINUX_ARM64, preferred={LINUX_AMD64: kept}))
    assert pins[LINUX_AMD64] == kept
    assert pins[LINUX_ARM64].version == "3.10.12"


def test_nothing_newer_than_its_day_is_taken(served: tuple[str, list[str]], store: Store) -> None:
    root, _ = served
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    assert named.resolve(request("3.8", as_of=date(2026, 1, 1)))[LINUX_AMD64].version == "3.8.20"
    with pytest.raises(ResolveError, match="no standalone build of 2025-12-31 or before"):
        named.resolve(request("3.8", as_of=date(2025, 12, 31)))


def test_a_python_that_nobody_has_is_named_with_who_has_which(
    served: tuple[str, list[str]], store: Store
) -> None:
    root, _ = served
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    with pytest.raises(ResolveError) as caught:
        named.resolve(request("3.7"))
    assert caught.value.message == (
        "python 3.7 is asked for: Debian has 3.13 (trixie) and 3.11 (bookworm), and there is no standalone "
        "build of it for linux/amd64 (there are: 3.8, 3.10, 3.13, 3.14)"
    )
    assert caught.value.hint == (
        "write python: '3.13' or '3.11', or python_provider: conda for a python of conda-forge"
    )


def test_a_list_that_does_not_answer_is_named_with_the_remedy(store: Store) -> None:
    named = resolver(store, python_downloads_json_url="http://someone:key@127.0.0.1:9/list.json")
    with pytest.raises(ResolveError) as caught:
        named.resolve(request("3.10"))
    said = f"{caught.value.message} {caught.value.hint}"
    assert "python 3.10 is asked for: Debian has 3.13 (trixie) and 3.11 (bookworm)" in said
    assert "the list of standalone builds can't be read: can't get list.json" in said
    assert "python_provider: conda" in said
    assert "key" not in said


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "pypy"},
        {"os": "darwin"},
        {"libc": "musl"},
        {"variant": "freethreaded"},
        {"prerelease": "rc1"},
        {"arch": {"family": "x86_64", "variant": "v3"}},
        {"sha256": "1" * 63},
        {"sha256": None},
        {"url": "file:///etc/passwd-install_only.tar.gz"},
        {"url": "https://example.test/3.10-install_only.tar.zst"},
        {"url": "https://example.test/a b-install_only.tar.gz"},
        {"url": 7},
        {"minor": "10/.."},
    ],
)
def test_builds_that_no_image_can_have_are_passed_by(
    tmp_path: Path, store: Store, changes: dict[str, Any]
) -> None:
    entries = {"one": list_entry("3.10.13", NEW, PUBLISHED, **changes), "two": []}
    (tmp_path / "list.json").write_text(json.dumps(entries))
    named = resolver(store, python_downloads_json_url=(tmp_path / "list.json").as_uri())
    with pytest.raises(ResolveError, match=r"there are: none"):
        named.resolve(request("3.10"))


@pytest.mark.parametrize("text", ["[", "[]", "7", '"' + "[" * 100_000])
def test_what_is_no_list_is_refused(tmp_path: Path, store: Store, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    named = resolver(store, python_downloads_json_url=(tmp_path / "list.json").as_uri())
    with pytest.raises(ResolveError, match=r"list\.json is no list of pythons"):
        named.resolve(request("3.10"))


def test_lists_of_before_say_the_machine_in_one_word(
    served: tuple[str, list[str]], index: PythonIndex, store: Store
) -> None:
    root, _ = served
    entry = list_entry("3.10.13", b"3.10.13", PUBLISHED, arch="x86_64")
    del entry["variant"], entry["build"]
    (index.root / "list.json").write_text(json.dumps({"one": entry}))
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    assert named.resolve(request("3.10")) == {LINUX_AMD64: pin("3.10.13", b"3.10.13")}


def test_an_archive_of_other_bytes_is_refused(
    served: tuple[str, list[str]], index: PythonIndex, store: Store
) -> None:
    root, _ = served
    (index.root / "20260101" / file_name("3.10.13")).write_bytes(b"another")
    named = resolver(store, python_downloads_json_url=f"{root}/list.json", python_mirror=root)
    with pytest.raises(
        ResolveError, match=r"python 3\.10 is asked for: Debian has .*its SHA-256 is"
    ) as caught:
        named.resolve(request("3.10"))
    assert "ENVBUILD_PYTHON_MIRROR" in str(caught.value.hint)


def test_no_credential_and_no_query_of_a_list_reaches_the_pin(
    served: tuple[str, list[str]], index: PythonIndex, store: Store
) -> None:
    root, _ = served
    host = root.removeprefix("http://")
    file = file_name("3.10.13").replace("+", "%2B")
    url = f"http://someone:key@{host}/20260101/{file}?sig=key"
    entry = list_entry("3.10.13", b"3.10.13", PUBLISHED, url=url)
    (index.root / "list.json").write_text(json.dumps({"one": entry}))
    named = resolver(store, python_downloads_json_url=f"{root}/list.json")
    build = named.resolve(request("3.10"))[LINUX_AMD64].build
    assert build.url == f"http://{host}/20260101/{file}"


def test_uv_s_own_list_is_taken_where_none_is_named_with_the_release_s_hashes(
    tmp_path: Path, store: Store
) -> None:
    """uv's list says which builds there are; the mirror has one of them, and its hash beside it."""
    nowhere = resolver(store, python_mirror="http://127.0.0.1:9")
    downloads = nowhere._downloads(request("3.10"))
    series = {".".join(version.split(".")[:2]) for version, machine in downloads if machine == "x86_64"}
    assert {f"3.{minor}" for minor in range(8, 15)} <= series
    chosen = max(
        (download for (version, machine), download in downloads.items()
         if version.startswith("3.8.") and machine == "x86_64"),
        key=lambda download: tuple(map(int, download.version.split("."))),
    )  # fmt: skip
    release = chosen.url.split("/")[-2]
    (tmp_path / "mirror" / release).mkdir(parents=True)
    (tmp_path / "mirror" / release / chosen.file).write_bytes(NEW)
    (tmp_path / "mirror" / release / "SHA256SUMS").write_text(sums({chosen.file: NEW, "other.tar.gz": OLD}))
    with serve_directory(tmp_path / "mirror") as (root, _):
        pinned = resolver(store, python_mirror=root).resolve(request("3.8"))[LINUX_AMD64]
    assert pinned.version == chosen.version
    assert pinned.build == PythonBuild(
        version=chosen.version, url=chosen.url, size=3, sha256=hashlib.sha256(NEW).hexdigest()
    )


def test_a_mirror_is_never_bypassed_and_stands_for_the_published_address_alone() -> None:
    at_uv = "https://releases.astral.sh/github/python-build-standalone/releases/download/1/x.tar.gz"
    assert addresses(f"{PUBLISHED}/1/x.tar.gz", "http://m") == ("http://m/1/x.tar.gz",)
    assert addresses(at_uv, "http://m") == ("http://m/1/x.tar.gz",)
    assert addresses("https://own.test/1/x.tar.gz", "http://m") == ("https://own.test/1/x.tar.gz",)
    assert addresses(f"{PUBLISHED}/1/x.tar.gz", None) == (f"{PUBLISHED}/1/x.tar.gz",)
    assert addresses(at_uv, None) == (at_uv, f"{PUBLISHED}/1/x.tar.gz")


def test_a_setting_goes_before_uv_s_own_files(tmp_path: Path) -> None:
    file = tmp_path / "uv.toml"
    file.write_text(
        'python-install-mirror = "https://m.test/x/"\npython-downloads-json-url = "/a/list.json"\n'
    )
    env = {"UV_CONFIG_FILE": str(file)}
    settings = Settings(cache_dir=tmp_path)
    said = PythonPlaces(list="file:///a/list.json", mirror="https://m.test/x")
    assert python_places(settings, env) == said
    assert python_places(settings, {"UV_NO_CONFIG": "1"}) == PythonPlaces()
    own = Settings(cache_dir=tmp_path, python_mirror="http://own", python_downloads_json_url="http://own/l")
    assert python_places(own, env) == PythonPlaces(list="http://own/l", mirror="http://own")
    file.write_text("python-install-mirror = 7\n")
    assert python_places(settings, env) == PythonPlaces()
