"""Environments that exist, made by the tools that make them, read back as exactly what is in them."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from uv import find_uv_bin

from envbuild.errors import SpecError, UsageError
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.cache import remembered_spec
from envbuild.specs.fields import carried
from envbuild.specs.importers.conda.prefix import conda_record, explicit_packages, platform_of
from envbuild.specs.importers.pip.installed import Distribution, exact_requirements
from envbuild.specs.importers.pip.virtualenv import current_environment
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec
from envbuild.specs.text.source import state_of
from tests.fakes.channel import File, Package, index_channel, make_package
from tests.fakes.wheelhouse import Wheel, Wheelhouse

HASH = "ab" * 32


def pins(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


def uv(*arguments: str, directory: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "UV_CACHE_DIR": str(directory / "cache"),
    }
    subprocess.run(
        [find_uv_bin(), *arguments], check=True, capture_output=True, env=environment, cwd=directory
    )


def test_an_environment_of_venv(tmp_path: Path) -> None:
    venv.create(tmp_path / "proj" / ".venv", symlinks=True)
    spec = load_spec(tmp_path / "proj" / ".venv")
    assert (spec.name, spec.python, pins(spec)) == ("proj", platform.python_version(), [])
    assert spec.directory == tmp_path / "proj"


def test_an_environment_of_uv(tmp_path: Path) -> None:
    wheels = Wheelhouse(tmp_path / "wheels")
    wheels.add(Wheel(name="first-one", version="1.5"))
    wheels.add(Wheel(name="second", version="2.0"))
    local = next((tmp_path / "wheels").rglob("second-2.0*.whl"))
    uv("venv", "--python", sys.executable, str(tmp_path / "env-1"), directory=tmp_path)
    with wheels.serve() as index:
        install = ("pip", "install", "--python", str(tmp_path / "env-1"), "--no-deps", "--index-url", index)
        uv(*install, "first-one", directory=tmp_path)
        uv(*install, str(local), directory=tmp_path)
    spec = load_spec(tmp_path / "env-1")
    assert (spec.name, spec.python) == ("env-1", platform.python_version())
    assert pins(spec) == ["first-one==1.5"]
    assert spec.pip.complete
    assert spec.left_out == ("second 2.0: installed from a file of this machine",)


async def install(channel: str, names: list[str], prefix: Path, cache: Path) -> None:
    import rattler

    records = await rattler.solve([channel], names, platforms=["linux-64", "noarch"])
    await rattler.install(
        records, prefix, cache_dir=cache, platform=rattler.Subdir("linux-64"), show_progress=False
    )


def test_an_environment_of_conda(tmp_path: Path) -> None:
    house = Wheelhouse(tmp_path / "served")
    channel = tmp_path / "served" / "channel"
    place = "site-packages/greeter-0.3.dist-info"
    packages = [
        Package(name="python", version="3.12.4", files=(File(path="bin/python3.12", content=b"x"),)),
        Package(
            name="greeter",
            version="0.3",
            noarch="python",
            depends=("python >=3.9",),
            files=(
                File(path="site-packages/greeter/__init__.py", content=b""),
                File(path=f"{place}/METADATA", content=b"Name: greeter\nVersion: 0.3\n"),
            ),
        ),
    ]
    for package in packages:
        make_package(package, channel)
    index_channel(channel, packages)
    prefix = tmp_path / "envs" / "train"
    with house.serve() as index:
        address = index.removesuffix("/simple") + "/channel"
        asyncio.run(install(address, ["greeter"], prefix, tmp_path / "cache"))
    site = prefix / "lib" / "python3.12" / "site-packages"
    assert (site / "greeter-0.3.dist-info" / "METADATA").is_file()
    added = site / "mlflow-2.16.2.dist-info"
    added.mkdir()
    (added / "METADATA").write_text("Name: mlflow\nVersion: 2.16.2\n")
    (added / "INSTALLER").write_text("pip\n")
    spec = load_spec(prefix)
    assert (spec.name, spec.source, spec.platforms) == ("train", prefix, (LINUX_AMD64,))
    assert spec.conda is not None
    assert [each.url for each in spec.conda.explicit] == [
        f"{address}/linux-64/python-3.12.4-0.conda",
        f"{address}/noarch/greeter-0.3-0.conda",
    ]
    assert all(each.sha256 and each.md5 for each in spec.conda.explicit)
    assert pins(spec) == ["mlflow==2.16.2"]
    assert spec.left_out == ()


def test_what_is_looked_for_in_vain_is_remembered_too(tmp_path: Path) -> None:
    record = {"name": "xz", "version": "5", "subdir": "linux-64", "url": "https://c.example/xz-5-0.conda"}
    (tmp_path / "env" / "conda-meta").mkdir(parents=True)
    (tmp_path / "env" / "conda-meta" / "xz-5-0.json").write_text(json.dumps({**record, "md5": "a" * 32}))
    reads: dict[Path, str] = {}
    load_spec(tmp_path / "env", reads=reads)
    assert {path.name for path, state in reads.items() if not state} == {"lib", "pinned", "state"}
    assert reads == {path: state_of(path) for path in reads}


def test_what_is_installed_later_is_seen(tmp_path: Path) -> None:
    prefix, memory = tmp_path / ".venv", tmp_path / "memory"
    venv.create(prefix, symlinks=True)
    assert pins(remembered_spec(prefix, memory)) == []
    short = ".".join(platform.python_version_tuple()[:2])
    place = prefix / "lib" / f"python{short}" / "site-packages" / "six-1.16.0.dist-info"
    place.mkdir()
    assert pins(remembered_spec(prefix, memory)) == ["six==1.16.0"]
    (place / "METADATA").write_text("Name: six\nVersion: 1.16.1\n")
    assert pins(remembered_spec(prefix, memory)) == ["six==1.16.1"]
    (place / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {}}')
    assert pins(remembered_spec(prefix, memory)) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"VIRTUAL_ENV": "/a", "CONDA_PREFIX": "/b"}, "/a"),
        ({"VIRTUAL_ENV": "", "CONDA_PREFIX": "/b"}, "/b"),
    ],
)
def test_the_active_environment(environ: dict[str, str], expected: str) -> None:
    assert current_environment(environ) == Path(expected)


def test_no_active_environment_is_told() -> None:
    with pytest.raises(UsageError) as raised:
        current_environment({"HOME": "/h"})
    assert raised.value.hint == "activate one, or name its directory instead"


def distribution(
    name: str = "x", version: str = "1", direct: object = None, place: str = "p"
) -> Distribution:
    text = direct if isinstance(direct, str) else json.dumps(direct) if direct is not None else ""
    return Distribution(name=name, version=version, place=place, direct_url=text)


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        ({"url": "https://f.example/x-1.whl", "archive_info": {"hash": f"sha256={HASH}"}}, None),
        (
            {"url": "https://f.example/x-1.whl", "archive_info": {"hash": "md5=00"}},
            "x 1: installed from https://f.example/x-1.whl, and no hash is recorded",
        ),
        ({"url": 3}, "x 1: its direct_url.json can't be read"),
        ([], "x 1: its direct_url.json can't be read"),
        ("[" * 100_000, "x 1: its direct_url.json can't be read"),
        (
            {"url": "https://u:hunter2@g.example/x", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "x 1: a credential stands in 'https://****@g.example'",
        ),
    ],
)
def test_an_address_is_kept_where_its_hash_is(direct: object, expected: str | None) -> None:
    found, lines = exact_requirements([distribution(direct=direct)])
    if expected is None:
        assert [(each.text, each.hashes) for each in found] == [
            ("x @ https://f.example/x-1.whl", (f"sha256:{HASH}",))
        ]
    assert lines == (() if expected is None else (expected,))


@pytest.mark.parametrize(
    ("name", "version", "line"),
    [
        ("x; rm", "1", "x; rm 1: its name is none"),
        ("x", "1 --hash", "x 1 --hash: its version is none (PEP 440)"),
        ("-e", "1", "-e 1: its name is none"),
    ],
)
def test_hostile_names_become_no_requirement(name: str, version: str, line: str) -> None:
    assert exact_requirements([distribution(name, version)]) == ((), (line,))


def test_of_two_distributions_of_one_name_the_first_counts() -> None:
    found, lines = exact_requirements(
        [distribution("A_b", "1", place="a"), distribution("a-b", "2", place="b")]
    )
    assert [each.text for each in found] == ["a-b==1"]
    assert lines == ("a-b 2 in b: hidden by a-b==1",)


def test_addresses_of_conda_lose_tokens_and_credentials() -> None:
    record = conda_record(
        json.dumps(
            {
                "name": "x",
                "version": "1",
                "subdir": "linux-64",
                "url": "https://me:hunter2@c.example/t/hunter2/team/linux-64/x-1-0.conda?token=hunter2#hunter2",
                "sha256": HASH.upper(),
                "files": [3, "lib/x.dist-info/METADATA"],
            }
        )
    )
    packages, lines = explicit_packages([record], LINUX_AMD64)
    assert [(package.url, package.sha256, package.md5) for package in packages] == [
        ("https://c.example/team/linux-64/x-1-0.conda", HASH, None)
    ]
    assert (lines, record.owned) == ((), ("lib/x.dist-info",))


def test_packages_of_two_platforms_are_refused() -> None:
    with pytest.raises(SpecError):
        platform_of({"linux-64", "linux-aarch64"}, "x")
    assert platform_of({"noarch", ""}, "x") == LINUX_AMD64


@pytest.mark.parametrize(
    "name",
    [
        "API_TOKEN",
        "DB_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "my_secret",
        "OPENAI_API_KEY",
        "STORAGE_ACCOUNT_KEY",
    ],
)
def test_a_variable_that_may_hold_a_credential_is_not_written_down(name: str) -> None:
    kept, lines = carried([(name, "hunter2"), ("LEVEL", "1")])
    assert kept == (("LEVEL", "1"),)
    assert lines == (
        f"environment variable {name!r}: may hold a credential: give it when a container is run",
    )


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "PASSAGE", "MONKEY"])
def test_a_variable_that_only_sounds_alike_is_kept(name: str) -> None:
    assert carried([(name, "1")]) == (((name, "1"),), ())
