"""Wheels as files: the pinned one, from wherever a lock may have it, and no other."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from envbuild.compose.artifacts.wheel.files import WheelFiles
from envbuild.compose.artifacts.wheel.index import PackageIndexes
from envbuild.errors import BuildError, FetchError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.model import PipPin, Sdist
from envbuild.lock.pip.runner import Completed, SubprocessRunner
from envbuild.plan.model import Artifact
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import PackageIndex
from envbuild.specs.paths import located_address
from envbuild.store.content import Store
from tests.fakes.channel import serve
from tests.fakes.wheelhouse import Wheel, Wheelhouse

DEMO = Wheel(name="demo")
SECRET = "s3cret-value"
SDIST = Sdist(file="demo-1.0.tar.gz", size=1, sha256="0" * 64)


class Nobody:
    def run(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, input: str = "") -> Completed:
        raise AssertionError("uv is not asked")


class Site:
    """A store, an index and uv's cache of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.house = Wheelhouse(root / "house")
        self.house.simple.mkdir(parents=True)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
        self.env |= {
            "HOME": str(root),
            "UV_CACHE_DIR": str(root / "uv"),
            "UV_DEFAULT_INDEX": self.house.url,
            "UV_HTTP_RETRIES": "0",
        }
        self.slept: list[float] = []

    def bring(
        self,
        *pins: PipPin,
        store: str = "store",
        offline: bool = False,
        runner: Nobody | None = None,
        options: Sequence[str] = (),
        own: Mapping[str, PackageIndex] = MappingProxyType({}),
        build_wheel: Callable[[PipPin], Path] | None = None,
    ) -> dict[str, bytes]:
        """What ``fetch_files`` gives, by SHA-256, read; all of it lies in the store."""
        there = Store(self.root / store)
        artifacts = [Artifact.of(pin) for pin in pins]
        with HttpFetcher(
            there,
            offline=offline,
            settings=Settings(cache_dir=there.root),
            progress=Silent(),
            environ=self.env,
            sleep=self.slept.append,
        ) as fetcher:
            indexes = PackageIndexes(
                env=self.env,
                options=tuple(options),
                own=own,
                locate=partial(located_address, directory=self.root),
                offline=offline,
                runner=runner or SubprocessRunner(),
            )
            files = WheelFiles(there, fetcher, indexes, build_wheel=build_wheel).fetch_files(artifacts)
        assert list((there.root / "scratch").glob("*")) == []
        return {sha256: path.read_bytes() for sha256, path in files.items()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_settings_of_uv_above_the_store_do_not_count(site: Site) -> None:
    (site.root / "uv.toml").write_text("no-index = true\n")
    site.house.add(DEMO)
    pin = DEMO.pin()
    assert site.bring(pin) == {pin.sha256: DEMO.data()}


def test_the_pinned_file_comes_into_the_store_and_uv_is_asked_no_more(site: Site) -> None:
    site.house.add(DEMO)
    pin = DEMO.pin()
    assert site.bring(pin) == {pin.sha256: DEMO.data()}
    assert Store(site.root / "store").artifact(pin.sha256).read_bytes() == DEMO.data()
    assert site.bring(pin, runner=Nobody()) == {pin.sha256: DEMO.data()}
    assert site.bring(pin, runner=Nobody(), offline=True) == {pin.sha256: DEMO.data()}


def test_a_file_that_was_damaged_in_the_store_is_fetched_anew(site: Site) -> None:
    site.house.add(DEMO)
    pin = DEMO.pin()
    site.bring(pin)
    Store(site.root / "store").artifact(pin.sha256).write_bytes(b"damaged")
    assert site.bring(pin) == {pin.sha256: DEMO.data()}


def test_offline_the_file_that_is_missing_is_named(site: Site) -> None:
    site.house.add(DEMO)
    with pytest.raises(
        FetchError, match=r"demo-1.0-py3-none-any.whl from the store: not there, and"
    ) as caught:
        site.bring(DEMO.pin(), offline=True, runner=Nobody())
    assert caught.value.hint == "run once without --offline, so that it is kept"


def test_files_of_every_machine_and_python_and_two_versions_of_a_name_come_at_once(site: Site) -> None:
    wheels = [
        Wheel(name="native", tag="cp313-cp313-manylinux_2_28_aarch64"),
        Wheel(name="older", tag="cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        Wheel(name="stable", tag="cp310-abi3-manylinux_2_28_x86_64"),
        Wheel(name="many", tag="cp311.cp312-none-manylinux_2_17_x86_64"),
        Wheel(name="both", version="1.0"),
        Wheel(name="both", version="2.0"),
        Wheel(name="early", version="1.0rc1"),
        Wheel(name="local", version="1.0+cpu"),
    ]
    site.house.add(*wheels)
    site.house.add(Wheel(name="stable", tag="cp310-abi3-manylinux_2_28_aarch64"))
    expected = {wheel.pin().sha256: wheel.data() for wheel in wheels}
    assert site.bring(*(wheel.pin() for wheel in wheels)) == expected


def basic(path: str, headers: Mapping[str, str]) -> str | None:
    login = base64.b64encode(f"who:{SECRET}".encode()).decode()
    return path if headers.get("Authorization") == f"Basic {login}" else None


@pytest.mark.parametrize("how", ["address", "name", "configuration", "option", "own", "keyring"])
def test_an_index_that_wants_a_login_is_answered(site: Site, how: str) -> None:
    site.house.add(DEMO)
    pin = DEMO.pin()
    options, own = [], {}
    with serve(site.house.root, basic) as (url, requests):
        index = f"{url}/simple"
        within = index.replace("//", f"//who:{SECRET}@")
        if how == "address":
            site.env["UV_DEFAULT_INDEX"] = within
        elif how == "name":
            site.env |= {"UV_DEFAULT_INDEX": f"corp={index}"}
            site.env |= {"UV_INDEX_CORP_USERNAME": "who", "UV_INDEX_CORP_PASSWORD": SECRET}
        elif how == "configuration":
            del site.env["UV_DEFAULT_INDEX"]
            config = site.root / "uv.toml"
            config.write_text(f'[[index]]\nurl = "{within}"\ndefault = true\n')
            site.env["UV_CONFIG_FILE"] = str(config)
        elif how == "option":
            del site.env["UV_DEFAULT_INDEX"]
            site.env["INDEX_TOKEN"] = SECRET
            options = ["--index-url " + index.replace("//", "//who:${INDEX_TOKEN}@")]
        elif how == "own":
            site.env["UV_DEFAULT_INDEX"] = "http://127.0.0.1:9"
            site.env |= {"UV_INDEX_CORP_USERNAME": "who", "UV_INDEX_CORP_PASSWORD": SECRET}
            own = {"demo": PackageIndex(url=index, name="corp", packages=("demo",))}
        else:
            keyring = site.root / "bin" / "keyring"
            keyring.parent.mkdir()
            keyring.write_text(f'#!/bin/sh\n[ "$3" = who ] && echo {SECRET}\n')
            keyring.chmod(0o755)
            site.env |= {"PATH": f"{keyring.parent}:{site.env['PATH']}", "UV_KEYRING_PROVIDER": "subprocess"}
            site.env["UV_DEFAULT_INDEX"] = index.replace("//", "//who@")
        assert site.bring(pin, options=options, own=own) == {pin.sha256: DEMO.data()}
    assert f"/simple/demo/{pin.file}" in requests


def test_a_login_that_fails_is_not_told(site: Site) -> None:
    site.house.add(DEMO)
    with serve(site.house.root, lambda path, headers: None) as (url, _):
        site.env["UV_DEFAULT_INDEX"] = f"{url}/simple".replace("//", f"//who:{SECRET}@")
        with pytest.raises(FetchError, match=r"demo-1.0-py3-none-any.whl") as caught:
            site.bring(DEMO.pin())
    said = f"{caught.value.message} {caught.value.hint}"
    assert SECRET not in said
    assert "who" not in said


def test_a_direct_reference_needs_no_index(site: Site) -> None:
    site.house.add(DEMO)
    pin = DEMO.pin(url=f"file:house/simple/demo/{DEMO.file}")
    assert site.bring(pin, runner=Nobody()) == {pin.sha256: DEMO.data()}


def test_a_direct_reference_may_name_a_variable_that_opens_it(site: Site) -> None:
    site.house.add(DEMO)
    site.env["INDEX_TOKEN"] = SECRET
    with serve(site.house.root, basic) as (url, _):
        address = f"{url}/simple/demo/{DEMO.file}".replace("//", "//who:${INDEX_TOKEN}@", 1)
        pin = DEMO.pin(url=address)
        assert site.bring(pin, runner=Nobody()) == {pin.sha256: DEMO.data()}


def test_a_directory_of_wheels_counts_as_an_index(site: Site) -> None:
    (site.root / "links").mkdir()
    (site.root / "links" / DEMO.file).write_bytes(DEMO.data())
    pin = DEMO.pin()
    options = ["--no-index", f"--find-links {site.root / 'links'}"]
    assert site.bring(pin, options=options) == {pin.sha256: DEMO.data()}


def test_a_file_that_was_replaced_is_no_file_of_the_lock(site: Site) -> None:
    site.house.add(replace(DEMO, files={"demo.py": b"value = 2\n"}))
    with pytest.raises(
        FetchError, match=r"lists no file of demo 1.0 with the SHA-256 that is pinned"
    ) as caught:
        site.bring(DEMO.pin())
    assert "envbuild lock --upgrade-package demo" in str(caught.value.hint)


def test_a_version_that_has_left_the_index_is_named(site: Site) -> None:
    site.house.add(Wheel(name="demo", version="2.0"))
    with pytest.raises(FetchError, match=r"can't find out where to get demo-1.0-py3-none-any.whl") as caught:
        site.bring(DEMO.pin())
    assert str(site.root) not in caught.value.message


def test_addresses_that_uv_remembers_are_asked_anew_once_they_are_gone(site: Site) -> None:
    site.house.add(DEMO)
    pin = DEMO.pin()
    with serve(site.house.root) as (url, requests):
        site.env["UV_DEFAULT_INDEX"] = f"{url}/simple"
        site.bring(pin)
        page = site.house.simple / "demo" / "index.html"
        (site.house.root / "moved").mkdir()
        (site.house.simple / "demo" / DEMO.file).rename(site.house.root / "moved" / DEMO.file)
        page.write_text(page.read_text().replace('href="', 'href="../../moved/'))
        # A second ahead, as the server tells of no smaller time.
        os.utime(page, (page.stat().st_mtime + 5, page.stat().st_mtime + 5))
        requests.clear()
        assert site.bring(pin, store="other") == {pin.sha256: DEMO.data()}
    assert [request for request in requests if request.endswith(".whl")] == [
        f"/simple/demo/{DEMO.file}",
        f"/moved/{DEMO.file}",
    ]


def test_a_wheel_that_envbuild_builds_is_asked_of_the_builder(site: Site) -> None:
    pin = DEMO.pin(sdist=SDIST, url="https://index.test/demo-1.0.tar.gz")
    built = site.root / "built.whl"
    built.write_bytes(DEMO.data())
    asked: list[str] = []

    def build(each: PipPin) -> Path:
        asked.append(each.name)
        return built

    assert site.bring(pin, build_wheel=build, runner=Nobody()) == {pin.sha256: DEMO.data()}
    assert asked == ["demo"]
    built.write_bytes(b"another")
    with pytest.raises(BuildError, match=r"demo-1.0-py3-none-any.whl was built, but isn't what is pinned"):
        site.bring(pin, build_wheel=build, runner=Nobody())
    with pytest.raises(BuildError, match="it has to be built"):
        site.bring(pin, runner=Nobody())


def test_a_source_distribution_is_refused(site: Site) -> None:
    pin = DEMO.pin(file="demo-1.0.tar.gz")
    with pytest.raises(BuildError, match=r"demo-1.0.tar.gz: only a source distribution of demo 1.0 fits"):
        site.bring(pin, runner=Nobody())


def test_another_indexs_local_version_is_not_taken_for_the_pinned_one(site: Site) -> None:
    site.house.add(DEMO)
    other = Wheelhouse(site.root / "other")
    other.add(replace(DEMO, version="1.0+cpu"))
    pin = DEMO.pin()
    assert site.bring(pin, options=[f"--extra-index-url {other.url}"]) == {pin.sha256: DEMO.data()}


def test_an_index_whose_page_says_no_hash_has_the_pinned_file(site: Site) -> None:
    site.house.add(DEMO)
    page = site.house.simple / "demo" / "index.html"
    page.write_text(re.sub("#sha256=[0-9a-f]*", "", page.read_text()))
    pin = DEMO.pin()
    with site.house.serve() as index:
        site.env["UV_DEFAULT_INDEX"] = index
        assert site.bring(pin) == {pin.sha256: DEMO.data()}


def test_a_pinned_file_is_found_behind_an_index_that_has_only_another_version(site: Site) -> None:
    site.house.add(DEMO)
    other = Wheelhouse(site.root / "other")
    other.add(Wheel(name="demo", version="0.1"))
    pin = DEMO.pin()
    assert site.bring(pin, options=[f"--extra-index-url {other.url}"]) == {pin.sha256: DEMO.data()}
